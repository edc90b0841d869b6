/** From a teacher's reply to a candidate, or to a rejection with a named reason. Pure. */
import { type Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { candidate, type Outcome, rejection } from "./outcome.js";
import { answerMark, rowText, type WritePlan } from "./prompt.js";
import type { Reply } from "./teacher.js";

/** A new input may be this many times as long as the longest that the teacher was shown … */
const lengthFactor = 4;
/** … or this many characters, whichever is more. */
const lengthFloor = 400;
/** A reply with more braces than this before its row is rubbish; reading on would take quadratic time. */
const maxObjects = 64;

/** What a write reply is worth. */
export function readWritten(plan: WritePlan, reply: Reply): Outcome {
  const text = reply.text;
  const reject = (code: Parameters<typeof rejection>[0], message: string) => rejection(code, message, text);
  if (text.trim() === "") return reject("empty_reply", "The teacher replied with nothing.");
  if (reply.finish === "length") return reject("truncated", "The reply was cut off at the token limit.");
  const parts = plan.form === "chat" ? fromJson(text) : fromContinuation(plan.task, plan.opening + text);
  if (parts === undefined)
    return reject("unparseable", "The reply does not hold a row in the form that was asked for.");
  const input = parts.input.trim();
  if (input === "") return reject("empty_reply", "The new row's input is empty.");
  if (isCopy(input, [plan.seedRow, ...plan.examples])) {
    return reject("copied_seed", "The new row repeats a row that the teacher was shown.");
  }
  const output = readOutput(plan, input, parts.output?.trim());
  if ("code" in output) return reject(output.code, output.message);
  const shown = [plan.seedRow, ...plan.examples];
  if (
    input.length > lengthBound(shown.map((row) => rowText(row).length)) ||
    output.text.length > lengthBound(shown.map((row) => row.output.length))
  ) {
    return reject("too_long", "The new row is far longer than the rows that the teacher was shown.");
  }
  return candidate(input, output.text);
}

/** The label of the set that a text names, however it is dressed; undefined when it names none. */
export function findLabel(task: Task, text: string): string | undefined {
  const said = plain(text);
  return task.labels.find(({ name }) => plain(name) === said)?.name;
}

/** Whether an answer can be read for the task's grader: a final number, a choice letter, any text. */
export function hasAnswer(task: Task, output: string): boolean {
  if (task.kind === TaskKind.MATH) return /\d/.test(output);
  if (task.kind === TaskKind.MULTIPLE_CHOICE) return choiceLetter(output) !== undefined;
  return output.trim() !== "";
}

/** The choice letter of an answer, upper case: "(B)", "B.", "b", "The answer is B". */
export function choiceLetter(answer: string): string | undefined {
  const text = answer.trim();
  const alone = /^\W*([A-Za-z])(?:\W|$)/.exec(text)?.[1];
  if (alone !== undefined && (text.length <= 4 || /^\W*[A-Z][).:]/.test(text))) return alone.toUpperCase();
  return /(?:answer|choice|option)\W+(?:is\W+)?\(?([A-Z])\b/i.exec(text)?.[1]?.toUpperCase() ?? alone?.toUpperCase();
}

function readOutput(
  plan: WritePlan,
  input: string,
  output: string | undefined,
): { text: string } | { code: "unknown_label" | "no_answer"; message: string } {
  const { task } = plan;
  if (task.kind === TaskKind.CLASSIFICATION) {
    // A teacher that only continues a list does not name labels: the list is of the seed row's.
    if (output === undefined || output === "") return { text: plan.seedRow.output };
    const label = findLabel(task, output);
    if (label === undefined) {
      return { code: "unknown_label", message: `"${output.slice(0, 80)}" is not one of the task's labels.` };
    }
    return { text: label };
  }
  if (output === undefined || !hasAnswer(task, output)) {
    return { code: "no_answer", message: "No answer can be read from the new row's output." };
  }
  if (task.kind === TaskKind.MULTIPLE_CHOICE) {
    const letter = choiceLetter(output) as string;
    if (!new RegExp(`(^|[^A-Za-z])${letter}[).:]`).test(input)) {
      return { code: "no_answer", message: `The new row has no choice ${letter}.` };
    }
  }
  return { text: output };
}

function fromContinuation(task: Task, text: string): { input: string; output?: string } | undefined {
  if (task.kind === TaskKind.CLASSIFICATION) return { input: text };
  const at = text.indexOf(`\n${answerMark}`);
  if (at === -1) return undefined;
  return { input: text.slice(0, at), output: text.slice(at + 1 + answerMark.length) };
}

/** The first JSON object in a text that has an input, whatever stands around it: prose, code fences, an array. */
function fromJson(text: string): { input: string; output?: string } | undefined {
  let tries = maxObjects;
  for (let start = text.indexOf("{"); start !== -1 && tries > 0; start = text.indexOf("{", start + 1)) {
    tries -= 1;
    const end = objectEnd(text, start);
    if (end === undefined) continue;
    const value = parseLenient(text.slice(start, end));
    if (value === undefined || typeof value.input !== "string") continue;
    const { output } = value;
    if (output === undefined || output === null) return { input: value.input };
    if (typeof output === "object") continue;
    return { input: value.input, output: String(output) };
  }
  return undefined;
}

/** Index after the brace that closes the object at `start`; undefined when it is never closed. */
function objectEnd(text: string, start: number): number | undefined {
  let depth = 0;
  let quoted = false;
  for (let index = start; index < text.length; index += 1) {
    const character = text[index];
    if (quoted) {
      if (character === "\\") index += 1;
      else if (character === '"') quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === "{") depth += 1;
    else if (character === "}") {
      depth -= 1;
      if (depth === 0) return index + 1;
    }
  }
  return undefined;
}

/** JSON as models write it: raw line breaks inside strings and trailing commas are mended. */
function parseLenient(text: string): Record<string, unknown> | undefined {
  const mended = () =>
    text
      .replace(/"(?:[^"\\]|\\[\s\S])*"/g, (literal) =>
        literal.replaceAll("\n", "\\n").replaceAll("\r", "").replaceAll("\t", "\\t"),
      )
      .replace(/,\s*}/g, "}");
  for (const attempt of [() => text, mended]) {
    try {
      const value: unknown = JSON.parse(attempt());
      if (value !== null && typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
    } catch {
      // The next form may parse.
    }
  }
  return undefined;
}

function isCopy(input: string, shown: Row[]): boolean {
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
