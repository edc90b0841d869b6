/** What every service that takes a task requires of it. */
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { invalidField } from "./errors.js";

/** The task, checked. Throws invalid_argument that names the field, below `field`. */
export function requireTask(task: Task | undefined, field = "task"): Task {
  if (task === undefined) throw invalidField(field, "is missing; say what the student is to do.");
  if (task.kind === TaskKind.UNSPECIFIED) {
    throw invalidField(`${field}.kind`, "is not set; use classification, multiple_choice, math or text.");
  }
  const places = task.promptTemplate.split("{input}").length - 1;
  if (places !== 1) {
    throw invalidField(
      `${field}.prompt_template`,
      `contains {input} ${places} times; write it exactly once, where the row's input goes.`,
    );
  }
  const names = task.labels.map(({ name }) => name);
  if (task.kind === TaskKind.CLASSIFICATION && names.length < 2) {
    throw invalidField(`${field}.labels`, `has ${names.length} labels; a classification needs at least two.`);
  }
  if (names.length === 1) throw invalidField(`${field}.labels`, "has one label; give at least two, or none.");
  const seen = new Set<string>();
  for (const [index, name] of names.entries()) {
    if (name.trim() === "") throw invalidField(`${field}.labels[${index}].name`, "is empty; name every label.");
    if (seen.has(name)) throw invalidField(`${field}.labels[${index}].name`, `repeats "${name}"; name it once.`);
    seen.add(name);
  }
  if (task.maxAnswerTokens < 0) throw invalidField(`${field}.max_answer_tokens`, "is negative; use 0 or more.");
  return task;
}
