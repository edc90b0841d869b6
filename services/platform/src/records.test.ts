import { parse } from "csv-parse/sync";
import { describe, expect, test } from "vitest";
import { csvFields, type FileKind, type FileRecord, readRecords } from "./records.js";

async function records(
  file: string | Buffer,
  kind: FileKind,
  chunkBytes = 1024 * 1024,
  options?: { isLatin1: boolean },
): Promise<FileRecord[]> {
  const bytes = Buffer.from(file);
  async function* chunks() {
    for (let at = 0; at < bytes.byteLength; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const all: FileRecord[] = [];
  for await (const batch of readRecords(chunks(), kind, options)) all.push(...batch);
  return all;
}

/** [line, text or code] of each. */
function short(all: FileRecord[]): [number, string][] {
  return all.map((record) => [record.line, "text" in record ? record.text : record.problem.code]);
}

const mebibyte = 1024 * 1024;

describe("JSONL", () => {
  test("lines are numbered from 1, blank ones counted and left out, the last needs no newline", async () => {
    expect(short(await records("a\n\n  \nb\r\nc", "jsonl"))).toEqual([
      [1, "a"],
      [4, "b"],
      [5, "c"],
    ]);
  });

  test("a byte order mark is not part of the first line", async () => {
    expect(short(await records("\ufeffa\nb", "jsonl", 1))).toEqual([
      [1, "a"],
      [2, "b"],
    ]);
  });

  test("a line may be 1 MiB long and no longer; the next one is read", async () => {
    const file = `${"x".repeat(mebibyte)}\n${"y".repeat(mebibyte + 1)}\nz\n${"w".repeat(3 * mebibyte)}`;
    for (const chunkBytes of [65_536, 10 * mebibyte]) {
      const all = short(await records(file, "jsonl", chunkBytes));
      expect(all.map(([line, text]) => [line, text.slice(0, 9)])).toEqual([
        [1, "xxxxxxxxx"],
        [2, "too_large"],
        [3, "z"],
        [4, "too_large"],
      ]);
    }
  });

  test("a line that is not UTF-8 is refused alone", async () => {
    const file = Buffer.concat([Buffer.from("a\n"), Buffer.from([0xc3, 0x28, 0x0a]), Buffer.from("é\n")]);
    expect(short(await records(file, "jsonl", 3))).toEqual([
      [1, "a"],
      [2, "invalid_utf8"],
      [3, "é"],
    ]);
  });

  test("or read as ISO 8859-1, where that is asked for", async () => {
    const file = Buffer.concat([Buffer.from("é\n"), Buffer.from([0xe9, 0x0a])]);
    expect(short(await records(file, "lines", 1, { isLatin1: true }))).toEqual([
      [1, "é"],
      [2, "é"],
    ]);
  });

  test("an empty file has no records", async () => {
    expect(await records("", "jsonl")).toEqual([]);
  });
});

describe("CSV", () => {
  test("quoted fields hold commas, quotes and newlines; a record has the line on which it begins", async () => {
    const file = 'input,output\r\n"a, ""b""\r\nc",x\r\n\r\nd,"y"\r\n';
    for (const chunkBytes of [1, 2, 3, 7, 1000]) {
      const all = await records(file, "csv", chunkBytes);
      expect(short(all).map(([line]) => line)).toEqual([1, 2, 5]);
      expect(short(all).map(([, text]) => csvFields(text))).toEqual([
        ["input", "output"],
        ['a, "b"\r\nc', "x"],
        ["d", "y"],
      ]);
    }
  });

  test("a malformed record is refused at its first line and the next line is read", async () => {
    const file = 'a,b\n"x"y,1\nok,2\n5" pipe,3\nok,4\n"never closed,5\nok,6\n';
    for (const chunkBytes of [1, 5, 1000]) {
      expect(short(await records(file, "csv", chunkBytes))).toEqual([
        [1, "a,b"],
        [2, "malformed_csv"],
        [3, "ok,2"],
        [4, "malformed_csv"],
        [5, "ok,4"],
        [6, "malformed_csv"],
        [7, "ok,6"],
      ]);
    }
  });

  test("a quote that stays open for 1 MiB costs its line, not the file", async () => {
    const lines = Array.from({ length: 30_000 }, (_, index) => `this is the text of row number ${index},label`);
    const all = short(await records(`a,b\n"open,1\n${lines.join("\n")}\n`, "csv", 65_536));
    expect(all).toHaveLength(30_002);
    expect(all.filter(([, text]) => text === "malformed_csv")).toEqual([[2, "malformed_csv"]]);
    expect(all.at(-1)).toEqual([30_002, lines.at(-1)]);
  });

  test("one field of more than 1 MiB is too large", async () => {
    const all = short(await records(`a,b\n${"x".repeat(2 * mebibyte)},1\nok,2`, "csv", 65_536));
    expect(all).toEqual([
      [1, "a,b"],
      [2, "too_large"],
      [3, "ok,2"],
    ]);
  });

  test("random tables read as csv-parse reads them, whatever the chunks", async () => {
    let state = 9;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 4294967296) * below);
    };
    const pieces = ["a", "é", " ", ",", '"', "\n", "\r\n", "x1", "😀", ""];
    for (let round = 0; round < 300; round++) {
      const newline = random(2) === 0 ? "\n" : "\r\n";
      const table = Array.from({ length: 1 + random(6) }, () =>
        Array.from({ length: 3 }, () => {
          const text = Array.from({ length: random(5) }, () => pieces[random(pieces.length)]).join("");
          return /[",\n\r]/.test(text) || random(3) === 0 ? `"${text.replaceAll('"', '""')}"` : text;
        }).join(","),
      );
      const file = table.join(newline) + (random(2) === 0 ? newline : "");
      const all = await records(file, "csv", 1 + random(20));
      const expected = parse(file, { record_delimiter: newline });
      expect(all.map((record) => ("text" in record ? csvFields(record.text) : record))).toEqual(expected);
    }
  });
});
