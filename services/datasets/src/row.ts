/** What a row is: its normal form, and the rules it keeps. Pure. */
import { turnsProblem } from "@tutelage/platform/conversation";
import { invalidField } from "@tutelage/platform/errors";
import { type Message, type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { hasNul } from "./fields.js";

/**
 * The form in which two inputs are the same: Unicode NFC, white space
 * collapsed and trimmed. Case is kept: for some tasks it is the answer.
 */
export function normalizedInput(row: { input: string; messages: Message[] }): string {
  if (row.messages.length === 0) return normalizedText(row.input);
  return JSON.stringify(row.messages.map(({ role, content }) => [role, normalizedText(content)]));
}

function normalizedText(text: string): string {
  return text.normalize("NFC").replace(/\s+/g, " ").trim();
}

/** Why a string cannot be stored or would not come back the same; undefined when it can. */
export function textProblem(text: string): { code: "wrong_type" | "invalid_utf8"; message: string } | undefined {
  if (hasNul(text)) return { code: "wrong_type", message: "contains the character U+0000; remove it." };
  // Under the u flag this matches only halves of surrogate pairs.
  if (/[\ud800-\udfff]/u.test(text)) {
    return { code: "invalid_utf8", message: "contains half of a surrogate pair; write the whole character." };
  }
  return undefined;
}

/** Why messages are not a conversation that can be stored; undefined when they are one. */
export function messagesProblem(value: unknown): { field: string; code: string; message: string } | undefined {
  const problem = turnsProblem(value);
  if (problem !== undefined) return problem;
  for (const [index, { content }] of (value as Message[]).entries()) {
    const wrong = textProblem(content);
    if (wrong !== undefined) return { field: `messages[${index}].content`, ...wrong };
  }
  return undefined;
}

/**
 * Checks a row that a service appends; `field` is its path, e.g. "rows[3]".
 * Throws invalid_argument. Whether its root and parent exist is not known here.
 */
export function checkAppended(row: Row, field: string): void {
  const refuse = (name: string, message: string) => {
    throw invalidField(`${field}.${name}`, message);
  };
  if (row.messages.length > 0) {
    if (row.input !== "") refuse("input", "must be empty in a row that has messages.");
    const problem = messagesProblem(row.messages);
    if (problem !== undefined) refuse(problem.field, problem.message);
  } else if (row.input.trim() === "") refuse("input", "is empty; give the text, or messages.");
  if (row.output.trim() === "") refuse("output", "is empty; give the expected answer.");
  if (row.split === Split.UNSPECIFIED) refuse("split", "must be TRAIN, DEV or TEST.");
  if (!Number.isInteger(row.iteration) || row.iteration < 0) refuse("iteration", "must be 0 or greater.");
  for (const [name, text] of [["input", row.input] as const, ["output", row.output] as const, ...metadataTexts(row)]) {
    const problem = textProblem(text);
    if (problem !== undefined) refuse(name, problem.message);
  }
  if (row.origin === RowOrigin.SEED) {
    if (row.rootRowId !== "") refuse("root_row_id", "must be empty in a seed row.");
    if (row.parentRowId !== "") refuse("parent_row_id", "must be empty in a seed row.");
    if (row.iteration !== 0) refuse("iteration", "must be 0 in a seed row.");
  } else if (row.origin === RowOrigin.SYNTHETIC) {
    if (row.rootRowId === "") refuse("root_row_id", "is empty; name the seed row that the synthetic row grew from.");
    if (row.parentRowId === "") refuse("parent_row_id", "is empty; name the row that the teacher was shown.");
  } else refuse("origin", "must be SEED or SYNTHETIC.");
}

function metadataTexts(row: Row): (readonly [string, string])[] {
  return Object.entries(row.metadata).flatMap(([key, value]) => [
    ["metadata", key] as const,
    [`metadata.${key}`, value] as const,
  ]);
}
