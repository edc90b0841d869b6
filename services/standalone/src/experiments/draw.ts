/** Seed rows and test rows of a replicate, drawn from a task's train.jsonl and dev.jsonl. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { heldOutText } from "@tutelage/platform/heldouttext";
import type { LabelledRow } from "../trial.js";

/** Where the tasks' data lies unless somebody says otherwise: beside the checkout. */
export const defaultDataFolder =
  process.env.TUTELAGE_TASK_DATA ?? fileURLToPath(new URL("../../../../../shared/data", import.meta.url));

/** Rows of train.jsonl that a tuning run tests on, in place of dev.jsonl. */
const tuneRows = 500;

export interface Draw {
  /** The folder of the task: it holds train.jsonl and dev.jsonl. */
  folder: string;
  seedRows: number;
  /** Test rows, at random; all of them when undefined. */
  testRows?: number | undefined;
  /** Test on rows of train.jsonl, and leave dev.jsonl unread. */
  tune: boolean;
}

interface PlainRow {
  input: string;
  output: string;
}

/** Whether a task's data is there. */
export function hasData(folder: string): boolean {
  return existsSync(join(folder, "train.jsonl"));
}

/**
 * Seed rows at random, another draw for each replicate; test rows all of
 * dev.jsonl (or the same testRows of it), or with `tune` the same 500 rows of
 * train.jsonl for every replicate, from which no seed row is drawn. Texts that
 * repeat are taken once, and a seed text is never a test text.
 */
export function drawRows(draw: Draw, replicate: number): LabelledRow[] {
  const test = testRowsOf(draw);
  const seeds = seedRowsOf(draw, test, replicate);
  return [
    ...seeds.map((row): LabelledRow => ({ ...row, split: "train" })),
    ...test.map((row): LabelledRow => ({ ...row, split: "test" })),
  ];
}

/** Rows that no replicate trains or tests on. */
export function unusedRows(draw: Draw, replicates: number): PlainRow[] {
  const test = testRowsOf(draw);
  const used = new Set(test.map(({ input }) => heldOutText(input)));
  for (let replicate = 1; replicate <= replicates; replicate += 1) {
    for (const { input } of seedRowsOf(draw, test, replicate)) used.add(heldOutText(input));
  }
  return distinct(read(draw.folder, "train")).filter(({ input }) => !used.has(heldOutText(input)));
}

function testRowsOf({ folder, testRows, tune }: Draw): PlainRow[] {
  if (tune) return ranked(distinct(read(folder, "train")), ["tune"]).slice(0, testRows ?? tuneRows);
  const dev = distinct(read(folder, "dev"));
  return testRows === undefined ? dev : ranked(dev, ["test"]).slice(0, testRows);
}

function seedRowsOf({ folder, seedRows }: Draw, test: readonly PlainRow[], replicate: number): PlainRow[] {
  const tested = new Set(test.map(({ input }) => heldOutText(input)));
  return ranked(distinct(read(folder, "train")), ["replicate", replicate])
    .filter(({ input }) => !tested.has(heldOutText(input)))
    .slice(0, seedRows);
}

function read(folder: string, split: "train" | "dev"): PlainRow[] {
  return readFileSync(join(folder, `${split}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const { input, output } = JSON.parse(line) as PlainRow;
      return { input, output };
    });
}

/** One row of each text, as a campaign tells texts apart. */
function distinct(rows: readonly PlainRow[]): PlainRow[] {
  const seen = new Set<string>();
  return rows.filter(({ input }) => !seen.has(heldOutText(input)) && seen.add(heldOutText(input)));
}

/** In a random order that depends on the parts and each row's text alone. */
function ranked(rows: readonly PlainRow[], parts: readonly (string | number)[]): PlainRow[] {
  const rank = ({ input }: PlainRow) =>
    createHash("sha256")
      .update(JSON.stringify([...parts, input]))
      .digest("hex");
  return rows
    .map((row) => ({ row, rank: rank(row) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : 0))
    .map(({ row }) => row);
}
