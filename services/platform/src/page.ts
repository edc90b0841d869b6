/** Page sizes and cursors, the same in every listing. Pure. */
import { invalidField } from "./errors.js";

const usualPageSize = 100;
const maxPageSize = 1_000;

/** The size that a request asks for; 0 takes the usual one. Throws invalid_argument. */
export function requirePageSize(pageSize: number): number {
  if (pageSize === 0) return usualPageSize;
  if (pageSize >= 1 && pageSize <= maxPageSize) return pageSize;
  throw invalidField("page_size", `must be from 1 to ${maxPageSize}, or 0 for ${usualPageSize}; not ${pageSize}.`);
}

/**
 * What the items of a page may take, in bytes of their texts: well below what
 * one message may have (grpc.ts), as texts are longer in it, and in JSON.
 */
export const maxPageBytes = 16 * 1024 * 1024;

/**
 * How many of these items one page shows: at least one, and then as many as
 * are asked for and fit.
 * @param bytes of each, in order
 */
export function fitting(bytes: readonly number[], pageSize: number, mostBytes = maxPageBytes): number {
  let sum = 0;
  let count = 0;
  for (const own of bytes.slice(0, pageSize)) {
    sum += own;
    if (count > 0 && sum > mostBytes) break;
    count += 1;
  }
  return count;
}

/**
 * A cursor names the listing it belongs to and the place of the last item given
 * out, so that items added meanwhile neither repeat nor shift a page. Empty when there are no more.
 */
export function nextCursor(listing: string, hasMore: boolean, place: unknown): string {
  return hasMore && place !== undefined ? Buffer.from(JSON.stringify([listing, place])).toString("base64url") : "";
}

/**
 * The place of the last item of the page before; undefined for the first page.
 * Throws invalid_argument for what is no cursor of this listing.
 */
export function readCursor<Place>(
  cursor: string,
  listing: string,
  isPlace: (place: unknown) => place is Place,
): Place | undefined {
  if (cursor === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"));
    if (Array.isArray(parsed) && parsed.length === 2 && parsed[0] === listing && isPlace(parsed[1])) return parsed[1];
  } catch {
    // Not one of ours; said below.
  }
  throw invalidField("cursor", "is not from a page of this listing; start again without one.", "cursor_invalid");
}

/** A place that is an ordinal, a position or the like. */
export function isNumber(place: unknown): place is number {
  return Number.isSafeInteger(place);
}
