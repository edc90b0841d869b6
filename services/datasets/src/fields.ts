/** Checks of request fields, each with the fix in its message. Pure. */
import { invalidField } from "@tutelage/platform/errors";

const namePattern = /^[A-Za-z0-9._-]{1,100}$/;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const rowIdPattern = /^[0-9a-f]{32}$/;
const maxFilterLength = 10_000;
const maxKeyLength = 200;

export function requireName(name: string): string {
  if (namePattern.test(name)) return name;
  throw invalidField("name", 'must be 1 to 100 letters, digits, ".", "_" or "-", e.g. "support-intents".');
}

export function requireUuid(field: string, value: string): string {
  if (uuidPattern.test(value)) return value.toLowerCase();
  throw invalidField(field, `must be a UUID, not ${shown(value)}.`);
}

/** A row's id as datasets computes it. */
export function requireRowId(field: string, value: string): string {
  if (rowIdPattern.test(value)) return value;
  throw invalidField(field, `must be a row's id, 32 hexadecimal digits in lower case, not ${shown(value)}.`);
}

/** What a listing of rows may be narrowed to. */
export function checkRowFilter(filter: {
  output: string;
  rootRowId: string;
  iteration?: number | undefined;
  text: string;
}): void {
  if (filter.rootRowId !== "") requireRowId("root_row_id", filter.rootRowId);
  const { iteration } = filter;
  if (iteration !== undefined && iteration < 0) throw invalidField("iteration", "must be 0 or greater.");
  for (const name of ["output", "text"] as const) {
    if (hasNul(filter[name])) throw invalidField(name, "contains the character U+0000; remove it.");
    if (filter[name].length > maxFilterLength) {
      throw invalidField(name, `must be at most ${maxFilterLength} characters; give a part of the text.`);
    }
  }
}

/** An idempotency key; empty means that the call is not to be remembered. */
export function requireKey(key: string): string {
  if (key.length <= maxKeyLength && !hasNul(key)) return key;
  throw invalidField("idempotency_key", `must be at most ${maxKeyLength} characters, without U+0000.`);
}

/**
 * The last message of a stream says what all of it comes to. A client that
 * cancels just ends its stream, and the news of the cancelling may come after
 * the commit: without this, half a file would pass for a whole one.
 */
export function requireWhole(said: number | undefined, received: number, unit: "bytes" | "rows"): void {
  if (said === received) return;
  const why =
    said === undefined
      ? "is missing: the stream stopped before its last message; send the whole of it again."
      : `says ${said} ${unit}, but ${received} came; count what was sent, and send it again.`;
  throw invalidField("end", why, "stream_incomplete");
}

/** A value as a message shows it: quoted and cut. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}…"`;
}

/** Postgres text cannot hold U+0000. */
export function hasNul(text: string): boolean {
  return text.includes("\u0000");
}
