/** Turns records of a file into seed rows by a column mapping, or says what is wrong with them. Pure. */
import { readFields } from "@tutelage/platform/extraction";
import { JsonObject, jsonText, wholeObject } from "@tutelage/platform/jsontext";
import { csvFields, fieldCountProblem } from "@tutelage/platform/records";
import { splitFromName } from "@tutelage/platform/rowfile";
import { nearest } from "@tutelage/platform/suggestion";
import { type ExtractionField, type Message, type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { shown } from "./fields.js";
import { messagesProblem, textProblem } from "./row.js";

/** Where a row's parts stand in a record. */
export interface Mapping {
  inputColumn: string;
  outputColumn: string;
  /** Empty: no column holds the split. */
  splitColumn: string;
  /** Split of rows that name none. */
  defaultSplit: Split;
  /** Outputs that are allowed; empty allows all. */
  allowedLabels: ReadonlySet<string>;
  /** Fields that outputs must have; empty checks nothing. */
  fields: readonly ExtractionField[];
}

/** Why a record is not a row: a code of the contract, the field, and the fix. */
export interface RowProblem {
  code: string;
  field: string;
  message: string;
}

export type ReadRow = { row: Row } | { problem: RowProblem };

const messagesKey = "messages";
const metadataKey = "metadata";
const splitHints = new Map([
  ["training", "train"],
  ["validation", "dev"],
  ["valid", "dev"],
  ["val", "dev"],
  ["development", "dev"],
  ["eval", "dev"],
  ["testing", "test"],
]);

/** The JSON object that a line is. */
export function objectOfLine(text: string): { values: Record<string, unknown> } | { problem: RowProblem } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/\s+/g, " ").slice(0, 120) : "";
    return refuse("malformed_json", "", `The line is not JSON (${why}); write one JSON object a line.`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    const what = json === null ? "null" : Array.isArray(json) ? "an array" : `a ${typeof json}`;
    return refuse("wrong_type", "", `The line is ${what}; write one JSON object a line.`);
  }
  return { values: json as Record<string, unknown> };
}

/** The row of one line of JSONL. */
export function rowFromJson(text: string, mapping: Mapping): ReadRow {
  const line = objectOfLine(text);
  if ("problem" in line) return line;
  const { values } = line;
  if (mapping.fields.length === 0 || typeof own(values, mapping.outputColumn) !== "object") {
    return rowFromValues(values, mapping, true);
  }
  // Read again with every digit, and with keys that come twice: JSON.parse drops both.
  const output = wholeObject(text)?.members.get(mapping.outputColumn);
  const written = output instanceof JsonObject && output.repeated.size === 0 ? jsonText(output) : undefined;
  if (written !== undefined) return rowFromValues({ ...values, [mapping.outputColumn]: written }, mapping, true);
  const [twice] = output instanceof JsonObject ? output.repeated : [];
  if (twice === undefined) return rowFromValues(values, mapping, true);
  return refuse("wrong_fields", `${mapping.outputColumn}.${twice}`, `"${twice}" is there twice; keep one of them.`);
}

/** The row of one CSV record, given the header's columns. */
export function rowFromCsv(text: string, columns: readonly string[], mapping: Mapping): ReadRow {
  const fields = csvFields(text);
  const miscounted = fieldCountProblem(fields, columns);
  if (miscounted !== undefined) return refuse(miscounted.code, "", miscounted.message);
  return rowFromValues(Object.fromEntries(columns.map((column, index) => [column, fields[index]])), mapping, false);
}

/** The row of a record's values by their columns' names. */
export function rowFromValues(values: Record<string, unknown>, mapping: Mapping, isJson: boolean): ReadRow {
  const row: Row = {
    id: "",
    input: "",
    messages: [],
    output: "",
    split: mapping.defaultSplit,
    origin: RowOrigin.SEED,
    rootRowId: "",
    parentRowId: "",
    iteration: 0,
    metadata: {},
  };
  const problem =
    readInput(row, values, mapping, isJson) ??
    (row.output === "" ? readOutput(row, values, mapping) : readAnswer(row, row.output, mapping)) ??
    readSplit(row, values, mapping) ??
    readMetadata(row, values, mapping, isJson);
  return problem === undefined ? { row } : { problem };
}

function readInput(row: Row, values: Record<string, unknown>, mapping: Mapping, isJson: boolean) {
  const field = mapping.inputColumn;
  const given = isJson ? own(values, messagesKey) : undefined;
  const messages = field === messagesKey && typeof given === "string" ? undefined : given;
  const input = field === messagesKey && messages === given ? undefined : own(values, field);
  if (messages !== undefined && messages !== null) {
    if (input !== undefined && input !== null) {
      return fault("wrong_type", messagesKey, `The row has "${field}" and "messages"; keep one of them.`);
    }
    return readMessages(row, messages, own(values, mapping.outputColumn), mapping);
  }
  if (input === undefined || input === null) {
    return fault("missing_field", field, `"${field}" is missing; give the input text.`);
  }
  if (typeof input !== "string") {
    return fault("wrong_type", field, `"${field}" must be text, not ${shown(input)}; put it in quotes.`);
  }
  if (input.trim() === "") return fault("empty_field", field, `"${field}" is empty; give the input text.`);
  const problem = textProblem(input);
  if (problem !== undefined) return fault(problem.code, field, `"${field}" ${problem.message}`);
  row.input = input;
  return undefined;
}

/**
 * A conversation to continue, with the answer in the output; or the usual form
 * of chat fine-tuning, in which the answer is the last message, the assistant's.
 */
function readMessages(row: Row, messages: unknown, output: unknown, mapping: Mapping): RowProblem | undefined {
  const last = Array.isArray(messages) ? (messages.at(-1) as Partial<Message> | null | undefined) : undefined;
  const answered = last?.role === "assistant";
  const given = output !== undefined && output !== null;
  if (answered && given) {
    const message =
      `"messages" end with the assistant's answer, and there is "${mapping.outputColumn}" too; ` +
      `leave one of them out.`;
    return fault("wrong_turns", messagesKey, message);
  }
  const turns = answered ? (messages as unknown[]).slice(0, -1) : messages;
  const problem = messagesProblem(turns);
  if (problem !== undefined) return fault(problem.code, problem.field, `"${problem.field}" ${problem.message}`);
  if (!answered && !given) {
    const message = `"${mapping.outputColumn}" is missing; give the expected answer, there or as the assistant's last message.`;
    return fault("missing_field", mapping.outputColumn, message);
  }
  row.messages = (turns as Message[]).map(({ role, content }) => ({ role, content }));
  if (!answered) return undefined;
  const answer = last.content;
  const field = `messages[${row.messages.length}].content`;
  if (typeof answer !== "string") return fault("wrong_type", field, `"${field}" must be text.`);
  if (answer.trim() === "") return fault("empty_field", field, `"${field}" is empty; give the expected answer.`);
  row.output = answer;
  return undefined;
}

/** A number or a boolean becomes its text: 7 is "7", true is "true". */
function readOutput(row: Row, values: Record<string, unknown>, mapping: Mapping) {
  const field = mapping.outputColumn;
  const value = own(values, field);
  if (value === undefined || value === null) {
    return fault("missing_field", field, `"${field}" is missing; give the expected answer.`);
  }
  if (typeof value === "object") {
    const fix = Array.isArray(value) ? "" : " For an extraction task, declare its fields with the import.";
    return fault("wrong_type", field, `"${field}" must be text, a number or a boolean, not ${shown(value)}.${fix}`);
  }
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return fault("wrong_type", field, `"${field}" is a number that JSON does not carry exactly; put it in quotes.`);
  }
  const output = String(value);
  if (output.trim() === "") return fault("empty_field", field, `"${field}" is empty; give the expected answer.`);
  return readAnswer(row, output, mapping);
}

/** Checks an expected answer against what the import allows. */
function readAnswer(row: Row, output: string, mapping: Mapping): RowProblem | undefined {
  const field = mapping.outputColumn;
  const problem = textProblem(output);
  if (problem !== undefined) return fault(problem.code, field, `"${field}" ${problem.message}`);
  if (mapping.allowedLabels.size > 0 && !mapping.allowedLabels.has(output)) {
    const wanted = output.trim().toLowerCase();
    const near =
      [...mapping.allowedLabels].find((label) => label.trim().toLowerCase() === wanted) ??
      nearest(wanted, mapping.allowedLabels);
    const fix = near === undefined ? `use one of ${shownList(mapping.allowedLabels)}` : `did you mean ${shown(near)}?`;
    return fault("unknown_label", field, `${shown(output)} is not a label of the task; ${fix}`);
  }
  if (mapping.fields.length === 0) {
    row.output = output;
    return undefined;
  }
  const read = readFields(output, mapping.fields);
  if ("problem" in read) {
    const place = read.problem.field === "" ? field : `${field}.${read.problem.field}`;
    return fault("wrong_fields", place, `"${place}" ${read.problem.message}`);
  }
  row.output = read.output;
  return undefined;
}

function readSplit(row: Row, values: Record<string, unknown>, mapping: Mapping) {
  const field = mapping.splitColumn;
  const value = field === "" ? undefined : own(values, field);
  const name = typeof value === "string" ? value.trim() : value;
  if (name === undefined || name === null || name === "") {
    if (row.split !== Split.UNSPECIFIED) return undefined;
    return fault("missing_field", field, `"${field}" is missing; write train, dev or test, or set a default split.`);
  }
  if (typeof name !== "string") {
    return fault("wrong_type", field, `"${field}" must be "train", "dev" or "test", not ${shown(name)}.`);
  }
  row.split = splitFromName(name.toLowerCase());
  if (row.split !== Split.UNSPECIFIED) return undefined;
  const hint = splitHints.get(name.toLowerCase());
  const fix = hint === undefined ? "use train, dev or test." : `did you mean "${hint}"?`;
  return fault("unknown_split", field, `${shown(name)} is not a split; ${fix}`);
}

/**
 * All other columns, as text. The members of a JSON "metadata" object stand
 * beside them; nulls are left out; arrays and objects become their JSON.
 */
function readMetadata(row: Row, values: Record<string, unknown>, mapping: Mapping, isJson: boolean) {
  const entries: [string, string][] = [];
  for (const [key, value] of columnsOf(values, isJson)) {
    if (key === mapping.inputColumn || key === mapping.outputColumn || key === mapping.splitColumn) continue;
    if (value === null || value === undefined || (isJson && key === messagesKey)) continue;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    for (const part of [key, text]) {
      const problem = textProblem(part);
      if (problem !== undefined) return fault(problem.code, key, `${shown(key)} ${problem.message}`);
    }
    entries.push([key, text]);
  }
  row.metadata = Object.fromEntries(entries);
  return undefined;
}

function columnsOf(values: Record<string, unknown>, isJson: boolean): [string, unknown][] {
  const metadata = isJson ? own(values, metadataKey) : undefined;
  if (typeof metadata !== "object" || metadata === null || Array.isArray(metadata)) return Object.entries(values);
  return [...Object.entries(metadata), ...Object.entries(values).filter(([key]) => key !== metadataKey)];
}

/** A record's own value: a column may be called "constructor". */
function own(values: Record<string, unknown>, key: string): unknown {
  return Object.hasOwn(values, key) ? values[key] : undefined;
}

function shownList(labels: ReadonlySet<string>): string {
  const some = [...labels].slice(0, 10).map((label) => shown(label));
  return `${some.join(", ")}${labels.size > some.length ? ", …" : ""}.`;
}

function fault(code: string, field: string, message: string): RowProblem {
  return { code, field, message };
}

function refuse(code: string, field: string, message: string): { problem: RowProblem } {
  return { problem: fault(code, field, message) };
}
