/** Checks of request fields, each with the fix in its message. Pure. */
import { invalidField } from "@tutelage/platform/errors";

const namePattern = /^[A-Za-z0-9._-]{1,100}$/;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const maxKeyLength = 200;
const maxPageSize = 1_000;

export function requireName(name: string): string {
  if (namePattern.test(name)) return name;
  throw invalidField("name", 'must be 1 to 100 letters, digits, ".", "_" or "-", e.g. "support-intents".');
}

export function requireUuid(field: string, value: string): string {
  if (uuidPattern.test(value)) return value.toLowerCase();
  throw invalidField(field, `must be a UUID, not ${shown(value)}.`);
}

/** An idempotency key; empty means that the call is not to be remembered. */
export function requireKey(key: string): string {
  if (key.length <= maxKeyLength && !hasNul(key)) return key;
  throw invalidField("idempotency_key", `must be at most ${maxKeyLength} characters, without U+0000.`);
}

export function requirePageSize(pageSize: number): number {
  if (pageSize === 0) return 100;
  if (pageSize >= 1 && pageSize <= maxPageSize) return pageSize;
  throw invalidField("page_size", `must be from 1 to ${maxPageSize}, or 0 for 100; not ${pageSize}.`);
}

/**
 * A cursor names the listing it belongs to and the last ordinal or position
 * given out, so that rows added meanwhile neither repeat nor shift a page.
 */
export function writeCursor(listing: string, last: number): string {
  return Buffer.from(JSON.stringify([listing, last])).toString("base64url");
}

/** The last ordinal or position of the page before; undefined for the first page. */
export function readCursor(cursor: string, listing: string): number | undefined {
  if (cursor === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"));
    if (Array.isArray(parsed) && parsed.length === 2 && parsed[0] === listing && Number.isSafeInteger(parsed[1])) {
      return parsed[1];
    }
  } catch {
    // Not one of ours; said below.
  }
  throw invalidField("cursor", "is not from a page of this listing; start again without one.", "cursor_invalid");
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
