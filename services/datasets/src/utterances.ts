/**
 * Cuts a SNIPS document, {"AddToPlaylist": [{"data": […]}, …]}, into its
 * utterances. It is one JSON value over many lines, so it is read whole, up to
 * a size that its public files stay far below; each utterance keeps its line.
 */
import { isUtf8 } from "node:buffer";
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { type FileRecord, maxRowBytes } from "@tutelage/platform/records";

const maxDocumentBytes = 16 * 1024 ** 2;
const batchRecords = 1_000;

/** One record an utterance: the JSON of [intent, utterance]. Throws invalid_argument where the file is no such document. */
export async function* readUtterances(chunks: AsyncIterable<Buffer>): AsyncGenerator<FileRecord[]> {
  const json = decoded(await whole(chunks));
  requireDocument(json);
  let batch: FileRecord[] = [];
  for (const record of utterancesOf(json)) {
    batch.push(record);
    if (batch.length < batchRecords) continue;
    yield batch;
    batch = [];
  }
  yield batch;
}

async function whole(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.byteLength;
    if (bytes > maxDocumentBytes) {
      throw new TutelageError(
        "resource_exhausted",
        "A SNIPS document may have at most 16 MiB; split it into files of fewer utterances, and append them.",
        { reason: "file_too_large" },
      );
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

/** Line by line: some of the public files are UTF-8 but for a few lines in ISO 8859-1. */
function decoded(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString("utf8").replace(/^\ufeff/, "");
  const lines: string[] = [];
  for (let start = 0; start <= bytes.byteLength; ) {
    const newline = bytes.indexOf("\n", start);
    const end = newline === -1 ? bytes.byteLength : newline;
    const line = bytes.subarray(start, end);
    lines.push(line.toString(isUtf8(line) ? "utf8" : "latin1"));
    start = end + 1;
  }
  return lines.join("\n");
}

function requireDocument(json: string): void {
  const form = 'it must be one JSON document, {"AddToPlaylist": [{"data": [{"text": "…"}]}, …]}.';
  let document: unknown;
  try {
    document = JSON.parse(json);
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/\s+/g, " ").slice(0, 120) : "";
    throw invalidField("file", `is not JSON (${why}); ${form}`, "malformed_json");
  }
  const isDocument =
    document !== null && typeof document === "object" && !Array.isArray(document) && lists(Object.values(document));
  if (!isDocument) throw invalidField("file", `is not of the layout snips; ${form}`, "layout_mismatch");
}

function lists(values: readonly unknown[]): boolean {
  return values.every((value) => Array.isArray(value));
}

/**
 * The elements of the document's lists with the line on which each begins;
 * JSON.parse does not tell lines, nor keys that come twice.
 * @param json an object of lists, as requireDocument has made sure
 */
function* utterancesOf(json: string): Generator<FileRecord> {
  let depth = 0;
  let line = 1;
  let intent = "";
  let begun: { at: number; line: number } | undefined;
  for (let at = 0; at < json.length; at++) {
    const character = json[at];
    if (character === "\n") line++;
    else if (character === "," || character === "]") {
      if (depth === 2 && begun !== undefined) yield recordOf(intent, json.slice(begun.at, at), begun.line);
      if (depth === 2) begun = undefined;
      if (character === "]") depth--;
    } else if (character !== " " && character !== "\t" && character !== "\r") {
      if (depth === 2) begun ??= { at, line };
      if (character === '"') {
        const end = textEnd(json, at);
        // All texts at this depth are keys: the values are lists.
        if (depth === 1) intent = JSON.parse(json.slice(at, end + 1));
        at = end;
      } else if (character === "{" || character === "[") depth++;
      else if (character === "}") depth--;
    }
  }
}

/** Where the closing quote of a text is. */
function textEnd(json: string, start: number): number {
  let at = start + 1;
  while (json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
  return at;
}

function recordOf(intent: string, utterance: string, line: number): FileRecord {
  if (utterance.length <= maxRowBytes) return { line, text: `[${JSON.stringify(intent)},${utterance}]` };
  return { line, problem: { code: "too_large", message: "The utterance is longer than 1 MiB; shorten it." } };
}
