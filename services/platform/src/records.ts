/**
 * Cuts the bytes of a file into records: lines (JSONL is made of them), or RFC 4180 records,
 * whose quoted fields may hold newlines. On bytes, and not by csv-parse (which
 * the tests compare with), because of what a bad record must not do: a record that is malformed, too large or not
 * UTF-8 is reported at its first line, and reading resumes at the line after
 * that, so one forgotten quote does not swallow the rest of the file. Memory is
 * one chunk and one record. Here, because who splits a file before it is sent
 * (the command line holds rows back) must see the records that an import sees.
 */
import { isUtf8 } from "node:buffer";

/** Greatest size of a row, as a line of a file and as JSON. */
export const maxRowBytes = 1024 * 1024;

export type FileKind = "jsonl" | "lines" | "csv";

export interface RecordProblem {
  code: "malformed_csv" | "too_large" | "invalid_utf8";
  message: string;
}

/** One record, or why there is none. `line` is the line on which it begins, from 1. */
export type FileRecord = { line: number; text: string } | { line: number; problem: RecordProblem };

/** Where a record ends: `end` without its newline, `next` the byte after that. */
type Scan = { end: number; next: number; lines: number } | { problem: RecordProblem };

const newline = 0x0a;
const carriageReturn = 0x0d;
const quote = 0x22;
const comma = 0x2c;

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);
const noBytes = Buffer.alloc(0);

const tooLarge: RecordProblem = {
  code: "too_large",
  message: "The row is longer than 1 MiB; shorten or split it.",
};
const quoteNotClosed: RecordProblem = {
  code: "malformed_csv",
  message: 'A field opens with a quote that is not closed; close it, and write quotes inside it twice ("").',
};
const quoteInside: RecordProblem = {
  code: "malformed_csv",
  message:
    'A quote stands in a field that does not begin with one; write the field as "…" with inner quotes twice ("").',
};
const textAfterQuote: RecordProblem = {
  code: "malformed_csv",
  message: 'Text follows a closing quote; write quotes inside a field twice ("") and put a comma after the field.',
};
const notUtf8: RecordProblem = {
  code: "invalid_utf8",
  message: "The row is not UTF-8; save the file as UTF-8.",
};

/**
 * The records of a file, in batches of what one chunk completes. Blank ones are left out.
 * @param isLatin1 what is not UTF-8 is read as ISO 8859-1, not refused
 */
export async function* readRecords(
  chunks: AsyncIterable<Buffer>,
  kind: FileKind,
  { isLatin1 = false } = {},
): AsyncGenerator<FileRecord[]> {
  const cutter = new RecordCutter(kind, isLatin1);
  for await (const chunk of chunks) yield cutter.cut(chunk, false);
  yield cutter.cut(noBytes, true);
}

class RecordCutter {
  private rest: Buffer = noBytes;
  private line = 1;
  private atStart = true;
  /** After a bad record: drop the rest of its first line. */
  private skipping = false;

  constructor(
    private readonly kind: FileKind,
    private readonly isLatin1: boolean,
  ) {}

  cut(chunk: Buffer, final: boolean): FileRecord[] {
    const bytes = this.rest.byteLength === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    const records: FileRecord[] = [];
    let start = 0;
    if (this.atStart) {
      if (bytes.byteLength < byteOrderMark.byteLength && !final) {
        this.rest = bytes;
        return records;
      }
      if (bytes.subarray(0, byteOrderMark.byteLength).equals(byteOrderMark)) start = byteOrderMark.byteLength;
      this.atStart = false;
    }
    while (start < bytes.byteLength) {
      if (this.skipping) {
        const end = bytes.indexOf(newline, start);
        if (end === -1) {
          start = bytes.byteLength;
          break;
        }
        start = end + 1;
        this.line++;
        this.skipping = false;
        continue;
      }
      const scan = this.kind === "csv" ? scanCsv(bytes, start, final) : scanLine(bytes, start, final);
      if (scan === undefined) {
        if (bytes.byteLength - start <= maxRowBytes) break;
        this.refuse(records, this.sizeProblem(bytes, start));
      } else if ("problem" in scan) {
        this.refuse(records, scan.problem);
      } else {
        const end = scan.end > start && bytes[scan.end - 1] === carriageReturn ? scan.end - 1 : scan.end;
        if (end - start > maxRowBytes) {
          this.refuse(records, this.sizeProblem(bytes.subarray(0, end), start));
          continue;
        }
        const record = bytes.subarray(start, end);
        const encoding = isUtf8(record) ? "utf8" : this.isLatin1 ? "latin1" : undefined;
        if (encoding === undefined) records.push({ line: this.line, problem: notUtf8 });
        else {
          const text = record.toString(encoding);
          if (text.trim() !== "") records.push({ line: this.line, text });
        }
        start = scan.next;
        this.line += scan.lines;
      }
    }
    this.rest = bytes.subarray(start);
    return records;
  }

  private refuse(records: FileRecord[], problem: RecordProblem): void {
    records.push({ line: this.line, problem });
    this.skipping = true;
  }

  /** A CSV record of many lines that does not end is a quote that was not closed. */
  private sizeProblem(bytes: Buffer, start: number): RecordProblem {
    return this.kind === "csv" && bytes.indexOf(newline, start) !== -1 ? quoteNotClosed : tooLarge;
  }
}

/** undefined: more bytes are needed. */
function scanLine(bytes: Buffer, start: number, final: boolean): Scan | undefined {
  const end = bytes.indexOf(newline, start);
  if (end !== -1) return { end, next: end + 1, lines: 1 };
  return final ? { end: bytes.byteLength, next: bytes.byteLength, lines: 1 } : undefined;
}

enum Place {
  FieldStart,
  Plain,
  Quoted,
  /** After a quote in a quoted field: it closes the field, or is the first of two. */
  QuoteSeen,
  /** After a carriage return behind a closing quote. */
  ReturnSeen,
}

/** undefined: more bytes are needed. */
function scanCsv(bytes: Buffer, start: number, final: boolean): Scan | undefined {
  let place: Place = Place.FieldStart;
  let lines = 1;
  for (let at = start; at < bytes.byteLength; at++) {
    const byte = bytes[at];
    if (place === Place.Quoted) {
      if (byte === quote) place = Place.QuoteSeen;
      else if (byte === newline) lines++;
    } else if (byte === newline) {
      return { end: at, next: at + 1, lines };
    } else if (byte === comma && place !== Place.ReturnSeen) {
      place = Place.FieldStart;
    } else if (place === Place.FieldStart) {
      place = byte === quote ? Place.Quoted : Place.Plain;
    } else if (place === Place.Plain) {
      if (byte === quote) return { problem: quoteInside };
    } else if (place === Place.QuoteSeen && byte === quote) {
      place = Place.Quoted;
    } else if (place === Place.QuoteSeen && byte === carriageReturn) {
      place = Place.ReturnSeen;
    } else {
      return { problem: textAfterQuote };
    }
  }
  if (!final) return undefined;
  if (place === Place.Quoted) return { problem: quoteNotClosed };
  return { end: bytes.byteLength, next: bytes.byteLength, lines };
}

/** The fields of one CSV record; it is well formed, as readRecords has made sure. */
export function csvFields(text: string): string[] {
  const fields: string[] = [];
  let at = 0;
  for (;;) {
    if (text[at] === '"') {
      let end = text.indexOf('"', at + 1);
      while (text[end + 1] === '"') end = text.indexOf('"', end + 2);
      fields.push(text.slice(at + 1, end).replaceAll('""', '"'));
      at = end + 1;
    } else {
      const end = text.indexOf(",", at);
      fields.push(text.slice(at, end === -1 ? text.length : end));
      at = end === -1 ? text.length : end;
    }
    if (at >= text.length) return fields;
    at++;
  }
}

/** The columns that a CSV file's header record names; white space around a name is not part of it. */
export function csvColumns(header: string): string[] {
  return csvFields(header).map((name) => name.trim());
}

/** Why a CSV record that is well formed is not one of the header's; undefined when it is. */
export function fieldCountProblem(fields: readonly string[], columns: readonly string[]): RecordProblem | undefined {
  if (fields.length === columns.length) return undefined;
  const message = `The record has ${fields.length} fields where the header has ${columns.length}; quote fields that hold commas.`;
  return { code: "malformed_csv", message };
}
