/** From a teacher's reply to a candidate, or to a rejection with a named reason. Pure. */

import { type Message, type Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { rowText, turnsProblem } from "./conversation.js";
import { fieldProblem, orderedOutput } from "./extraction.js";
import { JsonNumber, JsonObject, type JsonValue, objectsIn } from "./jsontext.js";
import { candidate, type Outcome, rejection } from "./teacheroutcome.js";

/** How a teacher is asked: in a chat, or as a base model that continues a list. */
export type PromptForm = "chat" | "list_continuation";

/** What stands before them where a base model is shown questions and answers. */
export const questionMark = "Question:";
export const answerMark = "Answer:";

/** What was asked, as far as reading the reply needs it. */
export interface AskedRow {
  task: Task;
  seedRow: Row;
  /** Shown rows, never the seed row itself. */
  examples: readonly Row[];
  form: PromptForm;
  /** First words of the new row, put into a base model's mouth. */
  opening: string;
}

/** A new input may be this many times as long as the longest that the teacher was shown … */
const lengthFactor = 4;
/** … or this many characters, whichever is more. */
const lengthFloor = 400;

/** What a reply holds of a row, before it is checked. */
interface Parts {
  input: string;
  /** As the teacher wrote them. */
  messages: unknown[];
  /** An object where an extraction's output is one. */
  output?: string | JsonObject | undefined;
}

/** What a write reply is worth. */
export function readWritten(plan: AskedRow, reply: { text: string; finish: "stop" | "length" }): Outcome {
  const text = reply.text;
  const reject = (code: Parameters<typeof rejection>[0], message: string) => rejection(code, message, text);
  if (text.trim() === "") return reject("empty_reply", "The teacher replied with nothing.");
  if (reply.finish === "length") return reject("truncated", "The reply was cut off at the token limit.");
  const isConversation = plan.seedRow.messages.length > 0;
  const parts =
    plan.form === "chat" ? fromJson(plan.task, text, isConversation) : fromContinuation(plan.task, plan.opening + text);
  if (parts === undefined)
    return reject("unparseable", "The reply does not hold a row in the form that was asked for.");
  const turns = isConversation ? turnsProblem(parts.messages) : undefined;
  if (turns !== undefined) return reject("wrong_turns", `The new conversation's ${turns.field} ${turns.message}`);
  const row = {
    input: parts.input.trim(),
    messages: (parts.messages as Message[]).map(({ role, content }) => ({ role, content: content.trim() })),
  };
  const written = rowText(row);
  if (written === "") return reject("empty_reply", "The new row's input is empty.");
  const shown = [plan.seedRow, ...plan.examples];
  if (isCopy(written, shown)) {
    return reject("copied_seed", "The new row repeats a row that the teacher was shown.");
  }
  const output = readOutput(plan, written, parts.output);
  if ("code" in output) return reject(output.code, output.message);
  if (
    written.length > lengthBound(shown.map((one) => rowText(one).length)) ||
    output.text.length > lengthBound(shown.map((one) => one.output.length))
  ) {
    return reject("too_long", "The new row is far longer than the rows that the teacher was shown.");
  }
  return candidate(row.input, output.text, row.messages);
}

/** The label of the set that a text names, however it is dressed; undefined when it names none. */
export function findLabel(task: Task, text: string): string | undefined {
  const said = plain(text);
  return task.labels.find(({ name }) => plain(name) === said)?.name;
}

type Answer = { text: string } | { code: "no_answer" | "wrong_fields"; message: string };

/** An open answer as it is stored: the object of an extraction, else the text, if the task's grader can read it. */
export function readAnswer(task: Task, given: string | JsonObject): Answer {
  if (task.kind === TaskKind.EXTRACTION) return readObject(task, given);
  const output = given instanceof JsonObject ? "" : given.trim();
  const readable =
    task.kind === TaskKind.MATH
      ? /\d/.test(output)
      : task.kind === TaskKind.MULTIPLE_CHOICE
        ? choiceLetter(output) !== undefined
        : output.trim() !== "";
  return readable ? { text: output } : { code: "no_answer", message: "No answer can be read from the output." };
}

/** An object, or the first of a text, which must have exactly the declared fields. */
function readObject(task: Task, output: string | JsonObject): Answer {
  const [object] = output instanceof JsonObject ? [output] : objectsIn(output);
  if (object === undefined) return { code: "no_answer", message: "The output holds no JSON object." };
  const problem = fieldProblem(object, task.fields);
  if (problem === undefined) return { text: orderedOutput(object, task.fields) };
  return { code: "wrong_fields", message: `The output's field "${problem.field}" ${problem.message}` };
}

/** The choice letter of an answer, upper case: "(B)", "B.", "b", "The answer is B". */
export function choiceLetter(answer: string): string | undefined {
  const text = answer.trim();
  const alone = /^\W*([A-Za-z])(?:\W|$)/.exec(text)?.[1];
  if (alone !== undefined && (text.length <= 4 || /^\W*[A-Z][).:]/.test(text))) return alone.toUpperCase();
  return /(?:answer|choice|option)\W+(?:is\W+)?\(?([A-Z])\b/i.exec(text)?.[1]?.toUpperCase() ?? alone?.toUpperCase();
}

function readOutput(
  plan: AskedRow,
  input: string,
  output: Parts["output"],
): Answer | { code: "unknown_label"; message: string } {
  const { task } = plan;
  if (task.kind === TaskKind.CLASSIFICATION) {
    // A teacher that only continues a list does not name labels: the list is of the seed row's.
    const said = typeof output === "string" ? output.trim() : "";
    if (said === "") return { text: plan.seedRow.output };
    const label = findLabel(task, said);
    if (label === undefined) {
      return { code: "unknown_label", message: `"${said.slice(0, 80)}" is not one of the task's labels.` };
    }
    return { text: label };
  }
  const answer = readAnswer(task, output ?? "");
  if ("code" in answer) return answer;
  if (task.kind === TaskKind.MULTIPLE_CHOICE) {
    const letter = choiceLetter(answer.text) as string;
    if (!new RegExp(`(^|[^A-Za-z])${letter}[).:]`).test(input)) {
      return { code: "no_answer", message: `The new row has no choice ${letter}.` };
    }
  }
  return answer;
}

function fromContinuation(task: Task, text: string): Parts | undefined {
  if (task.kind === TaskKind.CLASSIFICATION) return { input: text, messages: [] };
  const at = text.indexOf(`\n${answerMark}`);
  if (at === -1) return undefined;
  return { input: text.slice(0, at), messages: [], output: text.slice(at + 1 + answerMark.length) };
}

/**
 * The first JSON object in a text that has an input, or messages, and an output
 * that can be one; whatever stands around it: prose, code fences, an array.
 */
function fromJson(task: Task, text: string, isConversation: boolean): Parts | undefined {
  for (const { members } of objectsIn(text)) {
    const output = outputOf(task, members.get("output") ?? null);
    if (output === "wrong") continue;
    if (!isConversation) {
      const input = members.get("input");
      if (typeof input === "string") return { input, messages: [], output };
      continue;
    }
    const messages = members.get("messages");
    if (!Array.isArray(messages)) continue;
    const turns = messages.map((turn) => (turn instanceof JsonObject ? Object.fromEntries(turn.members) : turn));
    const last = turns.at(-1) as Partial<Message> | undefined;
    // The form of chat fine-tuning, which every model knows: the answer is the last message.
    if (output === undefined && last?.role === "assistant" && typeof last.content === "string") {
      return { input: "", messages: turns.slice(0, -1), output: last.content };
    }
    return { input: "", messages: turns, output };
  }
  return undefined;
}

/** undefined where the teacher left it out, "wrong" where it is nothing that an output can be. */
function outputOf(task: Task, value: JsonValue): string | JsonObject | undefined | "wrong" {
  if (value === null) return undefined;
  if (value instanceof JsonNumber) return value.text;
  if (typeof value !== "object") return String(value);
  return value instanceof JsonObject && task.kind === TaskKind.EXTRACTION ? value : "wrong";
}

function isCopy(input: string, shown: readonly Row[]): boolean {
  const said = plain(input);
  return shown.some((row) => plain(rowText(row)) === said);
}

function lengthBound(lengths: number[]): number {
  return Math.max(lengthFloor, lengthFactor * Math.max(...lengths));
}

/** Equality of texts for a reader: case, punctuation and white space do not count. */
function plain(text: string): string {
  const words = text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
  // A text of nothing but signs is compared as it stands.
  return words === "" ? text.trim() : words;
}
