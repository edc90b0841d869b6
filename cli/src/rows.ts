/** Rows of a user's file: JSON Lines or CSV, read whole, as the campaigns they feed are small. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { heldOutText } from "@tutelage/platform/heldouttext";
import { csvColumns, csvFields, fieldCountProblem, readRecords } from "@tutelage/platform/records";
import { exitCodes, Stop } from "./exit.js";

/** A record as it stands, and its fields by name; none where the server has something to say about it. */
export interface SourceRow {
  line: number;
  fields: Record<string, unknown> | undefined;
  text: string;
}

export interface SourceFile {
  path: string;
  format: "jsonl" | "csv";
  /** The file's bytes: what is no UTF-8 in them is the server's to name. */
  content: Buffer<ArrayBuffer>;
  /** A CSV file's first record, where it can be read. */
  header?: { line: number; text: string };
  rows: SourceRow[];
  /** Records that cannot be cut out of the file, in the server's words. */
  unreadable: { line: number; message: string }[];
}

const chunkBytes = 256 * 1024;

/** Reads a file; the ending says the format. Throws Stop when there is no file. */
export async function readSource(path: string): Promise<SourceFile> {
  const content = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Stop(
      error.code === "ENOENT" ? `There is no file ${path}.` : `Cannot read ${path}: ${error.message}`,
      exitCodes.noInput,
    );
  });
  return await sourceOf(path, content);
}

/** A file's bytes, cut as the server cuts them. */
export async function sourceOf(path: string, content: Buffer<ArrayBuffer>): Promise<SourceFile> {
  const format = /\.csv$/i.test(path) ? "csv" : "jsonl";
  const file: SourceFile = { path, format, content, rows: [], unreadable: [] };
  let columns: string[] | undefined;
  for await (const records of readRecords(chunksOf(content), format)) {
    for (const record of records) {
      const { line } = record;
      if ("problem" in record) file.unreadable.push({ line, message: record.problem.message });
      else if (format === "jsonl") file.rows.push({ line, fields: asObject(record.text), text: record.text });
      // The first record is the header, or nothing is: then no row can be told from another.
      else if (file.header === undefined) {
        if (file.unreadable.length > 0) return file;
        file.header = { line, text: record.text };
        columns = csvColumns(record.text);
      } else file.rows.push({ line, fields: csvObject(record.text, columns ?? []), text: record.text });
    }
  }
  return file;
}

/** A column as it is asked for, by the name that it has in the rows: in CSV white space around it does not count. */
export function columnOf({ format }: SourceFile, asked: string): string {
  return format === "csv" ? asked.trim() : asked;
}

/** Throws Stop when a CSV file's header cannot be read: no row of it can be, then. */
export function requireHeader({ path, format, header, unreadable }: SourceFile): void {
  if (format !== "csv" || header !== undefined) return;
  const [first] = unreadable;
  const why =
    first === undefined
      ? `${path} is empty; give a header row and rows.`
      : `${path}:${first.line}: the header row cannot be read. ${first.message}`;
  throw new Stop(why, exitCodes.refused);
}

async function* chunksOf(content: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < content.byteLength; at += chunkBytes) yield content.subarray(at, at + chunkBytes);
}

function csvObject(text: string, columns: readonly string[]): Record<string, unknown> | undefined {
  const fields = csvFields(text);
  if (fieldCountProblem(fields, columns) !== undefined) return undefined;
  return Object.fromEntries(columns.map((column, index) => [column, fields[index]]));
}

function asObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** What a user says in a row: its input, or all that the user says in a conversation. */
export function inputOf(fields: Record<string, unknown>, inputColumn: string): string | undefined {
  const turns = messagesOf(fields);
  if (turns !== undefined) {
    return turns
      .filter(({ role }) => role === "user")
      .map(({ content }) => content)
      .join("\n");
  }
  const input = fields[inputColumn];
  return typeof input === "string" ? input : undefined;
}

/** The messages of a row that is a conversation; undefined when it is none. */
export function messagesOf(fields: Record<string, unknown>): { role: string; content: string }[] | undefined {
  const { messages } = fields;
  if (!Array.isArray(messages) || messages.length === 0) return undefined;
  const isTurn = (one: unknown) =>
    typeof (one as { role?: unknown })?.role === "string" && typeof (one as { content?: unknown }).content === "string";
  return messages.every(isTurn) ? messages : undefined;
}

/**
 * Where a row stands between 0 and 1, by its input alone: it is held back where
 * the share is greater. The same text is on the same side in every run and on
 * every machine, however the file grows; and texts that the server takes for
 * the same are on one side.
 */
export function placeOf(input: string): number {
  const digest = createHash("sha256").update(heldOutText(input)).digest();
  return digest.readUInt32BE(0) / 2 ** 32;
}
