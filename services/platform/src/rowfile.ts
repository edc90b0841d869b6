/** Rows as JSON Lines: the form in which artifacts and exports hold them, and the student reads them. */
import { type Message, type Row, RowOrigin, type RowSource, Split } from "@tutelage/proto/task/v1/task";
import type { ArtifactStore } from "./artifacts.js";
import { TutelageError } from "./errors.js";

const splitNames = { [Split.TRAIN]: "train", [Split.DEV]: "dev", [Split.TEST]: "test", [Split.UNSPECIFIED]: "" };
const originNames = { [RowOrigin.SEED]: "seed", [RowOrigin.SYNTHETIC]: "synthetic", [RowOrigin.UNSPECIFIED]: "" };

export type SplitName = "train" | "dev" | "test";

export function splitName(split: Split): SplitName | "" {
  return splitNames[split] as SplitName | "";
}

export function splitFromName(name: string): Split {
  return name === "train" ? Split.TRAIN : name === "dev" ? Split.DEV : name === "test" ? Split.TEST : Split.UNSPECIFIED;
}

export function originName(origin: RowOrigin): "seed" | "synthetic" | "" {
  return originNames[origin] as "seed" | "synthetic" | "";
}

export function originFromName(name: string): RowOrigin {
  return name === "seed" ? RowOrigin.SEED : name === "synthetic" ? RowOrigin.SYNTHETIC : RowOrigin.UNSPECIFIED;
}

/** One line, with its newline. Absent fields are left out; the order of keys is fixed, so equal rows are equal bytes. */
export function rowToLine(row: Row): string {
  const line: Record<string, unknown> = { id: row.id };
  if (row.messages.length > 0) line.messages = row.messages.map(({ role, content }) => ({ role, content }));
  else line.input = row.input;
  line.output = row.output;
  line.split = splitName(row.split);
  line.origin = originName(row.origin);
  if (row.rootRowId !== "") line.root_row_id = row.rootRowId;
  if (row.parentRowId !== "") line.parent_row_id = row.parentRowId;
  if (row.iteration !== 0) line.iteration = row.iteration;
  const keys = Object.keys(row.metadata).sort();
  if (keys.length > 0) line.metadata = Object.fromEntries(keys.map((key) => [key, row.metadata[key]]));
  return `${JSON.stringify(line)}\n`;
}

/** The row of one line. Lines are our own, so a malformed one is data loss, not bad input. */
export function rowFromLine(line: string): Row {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new TutelageError("data_loss", "A row of an artifact is not JSON.", { reason: "artifact_malformed", cause });
  }
  return {
    id: String(json.id ?? ""),
    input: String(json.input ?? ""),
    messages: (json.messages as Message[] | undefined) ?? [],
    output: String(json.output ?? ""),
    split: splitFromName(String(json.split ?? "")),
    origin: originFromName(String(json.origin ?? "")),
    rootRowId: String(json.root_row_id ?? ""),
    parentRowId: String(json.parent_row_id ?? ""),
    iteration: Number(json.iteration ?? 0),
    metadata: (json.metadata as Record<string, string> | undefined) ?? {},
  };
}

/** The rows of an artifact that a RowSource selects, in order, in constant memory. */
export async function* readRows(artifacts: ArtifactStore, source: RowSource): AsyncGenerator<Row> {
  const selected = selects(source);
  for await (const line of linesOf(artifacts.read(source.uri, source.sha256))) {
    const row = rowFromLine(line);
    if (selected(row)) yield row;
  }
}

/** Which rows of its artifact a RowSource selects. */
export function selects(
  source: Pick<RowSource, "split" | "rowIds" | "excludeRootRowIds">,
): (row: Pick<Row, "id" | "split" | "rootRowId">) => boolean {
  const only = new Set(source.rowIds);
  const excluded = new Set(source.excludeRootRowIds);
  return (row) =>
    (source.split === Split.UNSPECIFIED || row.split === source.split) &&
    (only.size === 0 || only.has(row.id)) &&
    !excluded.has(row.id) &&
    !excluded.has(row.rootRowId);
}

/** Lines of UTF-8 bytes, without their newlines. */
export async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(10, start); end !== -1; end = bytes.indexOf(10, start)) {
      yield bytes.toString("utf8", start, end);
      start = end + 1;
    }
    rest = bytes.subarray(start);
  }
  if (rest.length > 0) yield rest.toString("utf8");
}
