/** Rows in the text format of Postgres' COPY, and back from a query. Pure. */
import { originFromName, originName, splitFromName, splitName } from "@tutelage/platform/rowfile";
import type { Message, Row } from "@tutelage/proto/task/v1/task";

/** The columns of `rows` in the order in which copyLine writes them. */
export const copyColumns =
  "project_id, version_id, position, id, input, messages, output, split, origin, root_row_id, parent_row_id, iteration, metadata";

const nothing = "\\N";

export function copyLine(projectId: string, versionId: string, position: number, row: Row): string {
  const isConversation = row.messages.length > 0;
  const fields = [
    projectId,
    versionId,
    position,
    row.id,
    isConversation ? nothing : escaped(row.input),
    isConversation ? escaped(JSON.stringify(row.messages)) : nothing,
    escaped(row.output),
    splitName(row.split),
    originName(row.origin),
    row.rootRowId === "" ? nothing : row.rootRowId,
    row.parentRowId === "" ? nothing : row.parentRowId,
    row.iteration,
    escaped(JSON.stringify(row.metadata)),
  ];
  return `${fields.join("\t")}\n`;
}

const escapes: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escaped(text: string): string {
  return text.replace(/[\\\n\r\t]/g, (character) => escapes[character] ?? character);
}

export function rowFromRecord(record: Record<string, unknown>): Row {
  return {
    id: record.id as string,
    input: (record.input as string | null) ?? "",
    messages: (record.messages as Message[] | null) ?? [],
    output: record.output as string,
    split: splitFromName(record.split as string),
    origin: originFromName(record.origin as string),
    rootRowId: (record.root_row_id as string | null) ?? "",
    parentRowId: (record.parent_row_id as string | null) ?? "",
    iteration: record.iteration as number,
    metadata: record.metadata as Record<string, string>,
  };
}
