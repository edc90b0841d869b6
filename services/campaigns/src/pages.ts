/** Page sizes and cursors of listings. Pure. */
import { invalidField, type TutelageError } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";

const defaultPageSize = 100;
const largestPageSize = 1_000;

export function checkedPageSize(pageSize: number): number {
  if (pageSize === 0) return defaultPageSize;
  if (pageSize >= 1 && pageSize <= largestPageSize) return pageSize;
  throw invalidField("page_size", `is ${pageSize}; must be from 1 to ${largestPageSize}.`);
}

export function encodeCursor(parts: string[]): string {
  return Buffer.from(JSON.stringify(parts)).toString("base64url");
}

function decodeCursor(cursor: string): string[] {
  try {
    const parts: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    if (Array.isArray(parts) && parts.every((part) => typeof part === "string") && parts.length > 0) return parts;
  } catch {
    // Falls through: whatever is wrong with it, it is not a cursor of ours.
  }
  throw badCursor();
}

/** The number of the last item of the page before; -1 for the first page. */
export function decodeNumberCursor(cursor: string): number {
  if (cursor === "") return -1;
  const after = Number(decodeCursor(cursor)[0]);
  if (!Number.isSafeInteger(after)) throw badCursor();
  return after;
}

/** Where a campaign stands in a listing. The time is Postgres' own text, to the microsecond. */
export interface CampaignPlace {
  createdAt: string;
  id: string;
}

/** The last campaign of the page before; undefined for the first page. */
export function decodeCampaignCursor(cursor: string): CampaignPlace | undefined {
  if (cursor === "") return undefined;
  const [createdAt, id] = decodeCursor(cursor);
  if (createdAt === undefined || !isTime(createdAt)) throw badCursor();
  if (id === undefined || !isUuid(id)) throw badCursor();
  return { createdAt, id };
}

/** A time as Postgres writes it, on a day that there is: Date takes the 31st of February for one in March. */
function isTime(text: string): boolean {
  const day = /^(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?$/.exec(text)?.[1];
  if (day === undefined) return false;
  const time = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(time.getTime()) && time.toISOString().startsWith(day);
}

function badCursor(): TutelageError {
  return invalidField("cursor", "is not one that this service gave; leave it out to begin at the start.");
}
