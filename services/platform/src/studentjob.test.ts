import { expect, test } from "vitest";
import { TutelageError } from "./errors.js";
import { namedStudentError } from "./studentjob.js";

test.each<[string, string]>([
  ["rows: none to train on; give at least one row that fits the context", "rows_empty"],
  [
    "rows.messages: row 'a' is a conversation but the model has no chat template; give `input`, or use another",
    "chat_template_missing",
  ],
  [
    "rows.messages: the model's chat template refuses row 'a' with the roles system, user: no system; give others",
    "chat_template_refused",
  ],
  ["task.prompt_template: empty, and row 'a' is no conversation; write the prompt", "student_refused"],
])("what the student says, %s, has the reason %s", (message, reason) => {
  const named = namedStudentError(new TutelageError("invalid_argument", message));
  expect(named).toMatchObject({ code: "invalid_argument", reason, message });
});
