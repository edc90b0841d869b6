import { FieldType, Grader, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { comparedText, rowText, turnsProblem } from "./conversation.js";
import { requirePromptFor, requireTask } from "./task.js";

const text = { kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" };
const fields = [{ name: "city", type: FieldType.STRING }];

test.each<[Parameters<typeof Task.fromPartial>[0], RegExp]>([
  [{ ...text, promptTemplate: "Q:" }, /prompt_template: contains \{input\} 0 times/],
  [{ ...text, kind: TaskKind.EXTRACTION }, /task\.fields: is empty/],
  [{ ...text, fields }, /task\.fields: are for kind extraction only/],
  [{ ...text, kind: TaskKind.EXTRACTION, fields, grader: Grader.EXACT }, /task\.grader: must be json_fields/],
  [{ ...text, grader: Grader.JSON_FIELDS }, /task\.grader: json_fields is for kind extraction/],
  [{ ...text, kind: TaskKind.MATH, grader: Grader.ROUGE_L }, /task\.grader: rouge_l is for kind text/],
  [{ ...text, grader: Grader.ROUGE_L, rougeLThreshold: 1.5 }, /rouge_l_threshold: is 1\.5; use 0 to 1/],
  [{ ...text, rougeLThreshold: 0.5 }, /rouge_l_threshold: is for grader rouge_l only/],
])("the task %# is refused with the field and the fix", (task, message) => {
  expect(() => requireTask(Task.fromPartial(task))).toThrow(message);
});

const labelled = { ...text, kind: TaskKind.CLASSIFICATION, labels: [{ name: "yes" }, { name: "no" }] };
const worked = { input: "Is ice cold?", output: "yes", wrongAnswer: "no", newInput: "Is fire hot?", newOutput: "yes" };

test.each<[Parameters<typeof Task.fromPartial>[0], object, RegExp]>([
  [labelled, { newInput: " " }, /worked_example\.new_input: is empty/],
  [labelled, { output: "" }, /worked_example\.output: is empty/],
  [labelled, { wrongAnswer: " yes" }, /worked_example\.wrong_answer: is the right answer/],
  [labelled, { newInput: "Is ice cold? " }, /worked_example\.new_input: repeats/],
  [labelled, { output: "maybe" }, /worked_example\.output: is "maybe", which is no label/],
  [labelled, { newOutput: "no" }, /worked_example\.new_output: must be "yes"/],
  [labelled, { newOutput: "y\u0000" }, /worked_example.*U\+0000/],
  [{ ...text, kind: TaskKind.EXTRACTION, fields }, {}, /worked_example\.output: is not a JSON object/],
  [
    { ...text, kind: TaskKind.EXTRACTION, fields },
    { output: '{"city": "Bern"}', newOutput: '{"town": "Oslo"}' },
    /worked_example\.new_output: "town" is not declared/,
  ],
])("the worked example %# is refused with the field and the fix", (task, change, message) => {
  const given = Task.fromPartial({ ...task, workedExample: { ...worked, ...change } });
  expect(() => requireTask(given)).toThrow(message);
});

test("a worked example is taken, and a wrong answer may be missing", () => {
  for (const wrongAnswer of ["no", ""]) {
    requireTask(Task.fromPartial({ ...labelled, workedExample: { ...worked, wrongAnswer } }));
  }
  requireTask(Task.fromPartial({ ...text, workedExample: { ...worked, newOutput: "very" } }));
});

test("a task without a prompt is for conversations only", () => {
  const task = requireTask(Task.fromPartial({ kind: TaskKind.TEXT }));
  const conversation = { id: "a", messages: [{ role: "user", content: "hi" }] };
  expect(() => requirePromptFor(task, [conversation])).not.toThrow();
  expect(() => requirePromptFor(task, [conversation, { id: "b", messages: [] }])).toThrow(
    /task\.prompt_template: is empty, and row b is no conversation/,
  );
  requireTask(Task.fromPartial({ kind: TaskKind.EXTRACTION, fields, promptTemplate: "{input}" }));
});

const user = { role: "user", content: "hi" };
const assistant = { role: "assistant", content: "hello" };
const system = { role: "system", content: "be kind" };

test.each<[unknown, string, string]>([
  ["hi", "messages", "wrong_type"],
  [[], "messages", "empty_field"],
  [[{ role: "bot", content: "x" }], "messages[0].role", "wrong_type"],
  [[null], "messages[0].role", "wrong_type"],
  [[{ role: "user", content: 7 }], "messages[0].content", "wrong_type"],
  [[user, assistant], "messages[1].role", "wrong_turns"],
  [[system], "messages[0].role", "wrong_turns"],
  [[user, system, user], "messages[1].role", "wrong_turns"],
  [[user, assistant, { role: "user", content: " " }], "messages[2].content", "empty_field"],
  [[{ role: "user", content: "" }], "messages", "empty_field"],
])("%j is no conversation to continue: %s, %s", (messages, field, code) => {
  expect(turnsProblem(messages)).toMatchObject({ field, code, message: expect.stringMatching(/\w/) });
});

test("conversations as texts", () => {
  const row = { input: "", messages: [system, user, assistant, user] };
  expect(turnsProblem(row.messages)).toBeUndefined();
  expect(rowText(row)).toBe("system: be kind\nuser: hi\nassistant: hello\nuser: hi");
  expect(comparedText(row)).toBe("hi\nhello\nhi");
  expect(comparedText({ input: "plain", messages: [] })).toBe("plain");
});
