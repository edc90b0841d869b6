/** Holding rows of a file back as test rows, when there is no test file. Pure. */
import { exitCodes, Stop } from "./exit.js";
import { columnOf, inputOf, placeOf, requireHeader, type SourceFile, type SourceRow } from "./rows.js";

/** One side of a file, in the file's own format: what the server says of a row, it says of the row as it was written. */
export interface HeldBackPart {
  split: "train" | "test";
  body: string;
  /** Line of the file that each line of the body came from. */
  lines: number[];
  rows: number;
}

/** Greatest share that may be held back. */
export const mostShare = 0.9;

/**
 * A file's rows as two files. What the server will have something to say about goes with the train rows. Throws Stop
 * when no row would be held back.
 * @param share of rows to hold back, 0 to 1
 */
export function heldBack(file: SourceFile, inputColumn: string, share: number): [HeldBackPart, HeldBackPart] {
  requireHeader(file);
  const column = columnOf(file, inputColumn);
  const train: SourceRow[] = [];
  const test: SourceRow[] = [];
  let least = 1;
  for (const row of file.rows) {
    const input = row.fields === undefined ? undefined : inputOf(row.fields, column);
    const place = input === undefined ? 1 : placeOf(input);
    least = Math.min(least, place);
    (place < share ? test : train).push(row);
  }
  // Where no row has the column, the server says so of the train rows.
  if (test.length === 0 && least < 1) throw noneHeldBack(file, share, least);
  return [part(file, "train", train), part(file, "test", test)];
}

function noneHeldBack({ path, rows }: SourceFile, share: number, least: number): Stop {
  // Greater than the least place, in hundredths.
  const works = (Math.floor(least * 100) + 1) / 100;
  const fix =
    works <= mostShare
      ? `the least share that works is ${works}`
      : "no share does, so give more rows, or a file of test rows as data.test";
  return new Stop(
    `data.hold_back: ${share} of the ${rows.length} rows of ${path} leaves no test row; ${fix}.`,
    exitCodes.refused,
  );
}

function part({ header }: SourceFile, split: HeldBackPart["split"], rows: readonly SourceRow[]): HeldBackPart {
  const records = [...(header === undefined ? [] : [header]), ...rows];
  return {
    split,
    body: records.map(({ text }) => `${text}\n`).join(""),
    // A quoted field may hold line breaks.
    lines: records.flatMap(({ line, text }) => text.split("\n").map((_, index) => line + index)),
    rows: rows.length,
  };
}
