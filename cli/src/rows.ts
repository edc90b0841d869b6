/** Rows of a user's file: JSON Lines or CSV, read whole, as the campaigns they feed are small. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { parse } from "csv-parse/sync";
import { exitCodes, Stop } from "./exit.js";

/** A line's fields by name; a bad JSON line is left to the server, which says what is wrong with it. */
export interface SourceRow {
  line: number;
  fields: Record<string, unknown> | undefined;
  text: string;
}

export interface SourceFile {
  path: string;
  format: "jsonl" | "csv";
  content: string;
  rows: SourceRow[];
}

/** Reads a file; the ending says the format. Throws Stop when it cannot be read. */
export async function readSource(path: string): Promise<SourceFile> {
  const content = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new Stop(
      error.code === "ENOENT" ? `There is no file ${path}.` : `Cannot read ${path}: ${error.message}`,
      exitCodes.noInput,
    );
  });
  if (/\.csv$/i.test(path)) return { path, format: "csv", content, rows: csvRows(path, content) };
  const lines = content.split("\n");
  const rows = lines.flatMap((text, index): SourceRow[] =>
    text.trim() === "" ? [] : [{ line: index + 1, fields: asObject(text), text }],
  );
  return { path, format: "jsonl", content, rows };
}

function csvRows(path: string, content: string): SourceRow[] {
  try {
    const records = parse(content, { columns: true, bom: true, info: true, relax_column_count: true }) as {
      record: Record<string, string>;
      info: { lines: number };
    }[];
    return records.map(({ record, info }) => ({ line: info.lines, fields: record, text: JSON.stringify(record) }));
  } catch (error) {
    throw new Stop(`${path} is not CSV: ${(error as Error).message}`, exitCodes.refused);
  }
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
 * Whether a row is held back, decided by its input alone: the same text is on
 * the same side in every run and on every machine, however the file grows.
 * @param share of rows to hold back, 0 to 1
 */
export function isHeldBack(input: string, share: number): boolean {
  const digest = createHash("sha256").update(input.normalize("NFKC").trim().toLowerCase()).digest();
  return digest.readUInt32BE(0) / 2 ** 32 < share;
}
