/** What every service that takes a task requires of it. */
import { Grader, type Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { invalidField } from "./errors.js";
import { readFields, requireFields } from "./extraction.js";
import { requireStorable } from "./text.js";

/** Least ROUGE-L F of a right answer, where a task does not say. */
export const defaultRougeLThreshold = 0.5;

/** The task, checked. Throws invalid_argument that names the field, below `field`. */
export function requireTask(task: Task | undefined, field = "task"): Task {
  if (task === undefined) throw invalidField(field, "is missing; say what the student is to do.");
  if (task.kind === TaskKind.UNSPECIFIED) {
    throw invalidField(`${field}.kind`, "is not set; use classification, multiple_choice, math, text or extraction.");
  }
  requireStorable(task, field);
  const places = task.promptTemplate.split("{input}").length - 1;
  // Rows that are conversations need none; who has the rows refuses an empty one for others.
  if (places !== 1 && task.promptTemplate !== "") {
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
  requireGrader(task, field);
  if (task.maxAnswerTokens < 0) throw invalidField(`${field}.max_answer_tokens`, "is negative; use 0 or more.");
  requireWorkedExample(task, `${field}.worked_example`);
  return task;
}

/** A teacher does as it is shown, so what it is shown must be as its rows are to be. */
function requireWorkedExample({ workedExample, kind, labels, fields }: Task, field: string): void {
  if (workedExample === undefined) return;
  const { input, output, wrongAnswer, newInput, newOutput } = workedExample;
  for (const [name, text] of [
    ["input", input],
    ["output", output],
    ["new_input", newInput],
    ["new_output", newOutput],
  ] as const) {
    if (text.trim() === "") throw invalidField(`${field}.${name}`, "is empty; give both examples whole.");
  }
  if (wrongAnswer.trim() === output.trim()) {
    throw invalidField(`${field}.wrong_answer`, "is the right answer; give a wrong one, or leave it out.");
  }
  if (newInput.trim() === input.trim()) {
    throw invalidField(`${field}.new_input`, "repeats the example's input; write another one.");
  }
  if (kind === TaskKind.CLASSIFICATION) {
    if (!labels.some(({ name }) => name === output)) {
      throw invalidField(`${field}.output`, `is "${output}", which is no label of the task; use one of them.`);
    }
    if (newOutput !== output) {
      throw invalidField(`${field}.new_output`, `must be "${output}": a teacher is asked for a row of the same label.`);
    }
  }
  if (kind !== TaskKind.EXTRACTION) return;
  for (const [name, text] of [
    ["output", output],
    ["new_output", newOutput],
  ] as const) {
    const read = readFields(text, fields);
    if ("problem" in read) {
      const at = read.problem.field === "" ? "" : `"${read.problem.field}" `;
      throw invalidField(`${field}.${name}`, `${at}${read.problem.message}`);
    }
  }
}

/** Fields and threshold, and the graders that need them. */
function requireGrader({ kind, grader, fields, rougeLThreshold }: Task, field: string): void {
  const extracts = kind === TaskKind.EXTRACTION;
  if (extracts && fields.length === 0) {
    throw invalidField(`${field}.fields`, "is empty; declare the fields that are to be extracted.");
  }
  if (!extracts && fields.length > 0) {
    throw invalidField(`${field}.fields`, "are for kind extraction only; leave them out, or change the kind.");
  }
  requireFields(fields, `${field}.fields`);
  if (grader !== Grader.UNSPECIFIED && extracts !== (grader === Grader.JSON_FIELDS)) {
    throw invalidField(
      `${field}.grader`,
      extracts ? "must be json_fields for kind extraction; leave it out." : "json_fields is for kind extraction only.",
    );
  }
  if (grader === Grader.ROUGE_L && kind !== TaskKind.TEXT) {
    throw invalidField(`${field}.grader`, "rouge_l is for kind text only; leave it out.");
  }
  if (!(rougeLThreshold >= 0 && rougeLThreshold <= 1)) {
    throw invalidField(`${field}.rouge_l_threshold`, `is ${rougeLThreshold}; use 0 to 1.`);
  }
  if (rougeLThreshold > 0 && grader !== Grader.ROUGE_L) {
    throw invalidField(`${field}.rouge_l_threshold`, "is for grader rouge_l only; set that grader, or leave it out.");
  }
}

/** Throws invalid_argument when a row that is no conversation meets a task without a prompt. */
export function requirePromptFor(task: Task, rows: readonly Pick<Row, "id" | "messages">[], field = "task"): void {
  if (task.promptTemplate !== "") return;
  const row = rows.find(({ messages }) => messages.length === 0);
  if (row === undefined) return;
  throw invalidField(
    `${field}.prompt_template`,
    `is empty, and row ${row.id || "0"} is no conversation; write the prompt, with {input} where the row's input goes.`,
    "prompt_template_missing",
  );
}
