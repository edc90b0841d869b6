/** Where a row stands and what it takes: enough to say which rows a page shows before any is read. */
import { sql } from "drizzle-orm";

export interface RowPlace {
  /** The version that added it. */
  versionId: string;
  position: number;
  /** Of its texts. */
  bytes: number;
}

/** Of a row `r`. A text's length is known without reading it; conversations and metadata are read. */
export const placeColumns = sql`r.version_id, r.position, coalesce(octet_length(r.input), 0)
  + coalesce(octet_length(r.messages::text), 0) + octet_length(r.output) + octet_length(r.metadata::text) as bytes`;

export function placeFromRecord(record: Record<string, unknown>): RowPlace {
  return {
    versionId: record.version_id as string,
    position: Number(record.position),
    bytes: Number(record.bytes),
  };
}
