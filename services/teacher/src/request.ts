/** What a generation run, and a reader of the ledger, may ask for: every rule names the field and the fix. */
import { invalidField } from "@tutelage/platform/errors";
import { readFields, requireFields } from "@tutelage/platform/extraction";
import { requireProject } from "@tutelage/platform/project";
import { isUuid } from "@tutelage/platform/runs";
import type { PromptForm } from "@tutelage/platform/teacherreply";
import { requireStorable } from "@tutelage/platform/text";
import { type Row, Split, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import type { GenerationBudget, StartGenerationRunRequest, WriteOrder } from "@tutelage/proto/teacher/v1/teacher";

const maxItems = 10_000;
const maxCount = 100;
const maxAttemptsPerOrder = 1_000;
const maxRowCharacters = 100_000;
const maxExampleRows = 10_000;
const maxAttempt = 1_000_000;
const maxScopeCharacters = 200;
const longestPatienceSeconds = 31 * 86_400;

type Asked = Omit<StartGenerationRunRequest, "owner">;

/** Throws invalid_argument for the first field that is wrong. */
export function checkStartRequest(request: Asked): void {
  checkMeaning(request);
  requireStorable(request, "");
}

function checkMeaning(request: Asked): void {
  requireProject(request.projectId);
  if (request.teacherProfile === "") throw invalidField("teacher_profile", "must name a teacher profile");
  if (!Number.isSafeInteger(request.replicateSeed))
    throw invalidField("replicate_seed", "must be a whole number below 2^53");
  checkBudgets(request.budget);
  checkNumber("patience_seconds", request.patienceSeconds, 0, longestPatienceSeconds);
  if (request.replyScope.length > maxScopeCharacters) {
    throw invalidField("reply_scope", `has more than ${maxScopeCharacters} characters`);
  }
  const task = request.task;
  if (task === undefined) throw invalidField("task", "is missing");
  checkTask(task);
  const work = request.work;
  if (work === undefined) throw invalidField("work", "must be write or label");
  if (work.$case === "write") {
    checkLength("write.orders", work.value.orders.length, 1, maxItems);
    for (const [index, order] of work.value.orders.entries()) checkOrder(task, order, `write.orders.${index}`);
    return;
  }
  const { rows, exampleRows, attempt } = work.value;
  checkNumber("label.attempt", attempt, 0, maxAttempt);
  checkLength("label.rows", rows.length, 1, maxItems);
  checkLength("label.example_rows", exampleRows.length, 0, maxExampleRows);
  for (const [index, row] of rows.entries()) checkText(row, `label.rows.${index}`);
  for (const [index, row] of exampleRows.entries()) checkExample(task, row, `label.example_rows.${index}`);
}

function checkTask(task: Task): void {
  if (task.kind === TaskKind.UNSPECIFIED) {
    throw invalidField("task.kind", "must be one of the task kinds");
  }
  requireFields(task.fields, "task.fields");
  if (task.kind === TaskKind.EXTRACTION && task.fields.length === 0) {
    throw invalidField("task.fields", "must declare at least one field for an extraction task");
  }
  if (task.kind !== TaskKind.CLASSIFICATION) return;
  if (task.labels.length < 2)
    throw invalidField("task.labels", "must hold at least two labels for a classification task");
  const names = new Set<string>();
  for (const [index, { name }] of task.labels.entries()) {
    if (name.trim() === "") throw invalidField(`task.labels.${index}.name`, "must not be empty");
    if (names.has(name.trim().toLowerCase()))
      throw invalidField(`task.labels.${index}.name`, `"${name}" is there twice`);
    names.add(name.trim().toLowerCase());
  }
}

function checkOrder(task: Task, order: WriteOrder, field: string): void {
  if (order.seedRow === undefined) throw invalidField(`${field}.seed_row`, "is missing");
  checkExample(task, order.seedRow, `${field}.seed_row`);
  checkLength(`${field}.example_rows`, order.exampleRows.length, 0, maxExampleRows);
  for (const [index, row] of order.exampleRows.entries()) checkExample(task, row, `${field}.example_rows.${index}`);
  checkCharacters(order.wrongAnswer, `${field}.wrong_answer`);
  checkNumber(`${field}.count`, order.count, 1, maxCount);
  checkNumber(`${field}.max_attempts`, order.maxAttempts, order.count, maxAttemptsPerOrder);
  checkNumber(`${field}.first_attempt`, order.firstAttempt, 0, maxAttempt);
}

/** Whether a teacher that is asked in this form can do the work. */
export function canWrite(request: Pick<StartGenerationRunRequest, "work">, promptForm: PromptForm): boolean {
  return firstConversation(request, promptForm) === -1;
}

/** A base model continues a list; it keeps neither turns nor roles apart, so it is not asked to. */
function firstConversation({ work }: Pick<StartGenerationRunRequest, "work">, promptForm: PromptForm): number {
  if (promptForm === "chat" || work?.$case !== "write") return -1;
  return work.value.orders.findIndex(({ seedRow }) => (seedRow?.messages.length ?? 0) > 0);
}

/** Throws invalid_argument for orders that the teacher cannot fill. */
export function refuseConversations(
  request: Pick<StartGenerationRunRequest, "work" | "teacherProfile">,
  promptForm: PromptForm,
): void {
  const index = firstConversation(request, promptForm);
  if (index === -1) return;
  throw invalidField(
    `write.orders.${index}.seed_row`,
    `is a conversation, which the base model of profile "${request.teacherProfile}" cannot write; name a profile with prompt_form chat`,
    "teacher_cannot_write_conversations",
  );
}

/** A row that a teacher is shown with its answer. */
function checkExample(task: Task, row: Row, field: string): void {
  checkText(row, field);
  checkCharacters(row.output, `${field}.output`);
  if (row.output === "") throw invalidField(`${field}.output`, "must not be empty: the row is shown with its answer");
  if (row.split === Split.DEV || row.split === Split.TEST) {
    throw invalidField(
      `${field}.split`,
      "must be train: dev and test rows are never shown to a teacher with their answers",
    );
  }
  if (task.kind === TaskKind.CLASSIFICATION && !task.labels.some(({ name }) => name === row.output)) {
    throw invalidField(`${field}.output`, `"${row.output.slice(0, 80)}" is not one of task.labels`);
  }
  if (task.kind !== TaskKind.EXTRACTION) return;
  const read = readFields(row.output, task.fields);
  if ("problem" in read) {
    const place = read.problem.field === "" ? `${field}.output` : `${field}.output.${read.problem.field}`;
    throw invalidField(place, read.problem.message);
  }
}

function checkText(row: Row, field: string): void {
  if (row.id === "") throw invalidField(`${field}.id`, "must not be empty");
  const texts = row.messages.length > 0 ? row.messages.map(({ content }) => content) : [row.input];
  if (texts.every((text) => text.trim() === "")) throw invalidField(`${field}.input`, "must not be empty");
  for (const text of texts) checkCharacters(text, `${field}.input`);
}

function checkCharacters(text: string, field: string): void {
  if (text.includes("\0")) throw invalidField(field, "holds a NUL character; remove it");
  if (text.length > maxRowCharacters) throw invalidField(field, `has more than ${maxRowCharacters} characters`);
}

/** Throws invalid_argument for a budget that is none. */
export function checkBudgets(budget: GenerationBudget | undefined): void {
  checkBudget("budget.calls", budget?.calls);
  checkBudget("budget.tokens", budget?.tokens);
  checkBudget("budget.cost_micro_usd", budget?.costMicroUsd);
}

function checkBudget(field: string, most: number | undefined): void {
  if (most === undefined || (Number.isSafeInteger(most) && most >= 0)) return;
  throw invalidField(field, `must be a whole number from 0 to 2^53 - 1, or unset for no bound; not ${most}`);
}

function checkLength(field: string, length: number, min: number, max: number): void {
  if (length < min || length > max) throw invalidField(field, `must hold ${min} to ${max} items, not ${length}`);
}

function checkNumber(field: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw invalidField(field, `must be ${min} to ${max}, not ${value}`);
  }
}

/** Without one the calls of everybody in the project would be one ledger. */
export function requireRunKeyPrefix(prefix: string): void {
  if (prefix === "") throw invalidField("run_key_prefix", "is empty; give what the runs' idempotency keys begin with.");
}

/** Throws invalid_argument for the first that is no id. */
export function requireRunIds(ids: readonly string[]): void {
  for (const [index, id] of ids.entries()) {
    if (!isUuid(id)) throw invalidField(`run_ids[${index}]`, `"${id}" is not the id of a run.`);
  }
}
