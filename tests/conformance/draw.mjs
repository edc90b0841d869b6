/** Seed rows and test rows of a replicate, drawn from ../shared/data. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { heldOutText } from "../../services/platform/dist/heldouttext.js";

const folder = process.env.TUTELAGE_TASK_DATA ?? fileURLToPath(new URL("../../../shared/data", import.meta.url));
/** Rows of train.jsonl that a tuning run tests on, in place of dev.jsonl. */
const tuneRows = 500;

/** Whether the task's data is there. */
export function hasData(task) {
  return existsSync(join(folder, task, "train.jsonl"));
}

/** Where the data is looked for. */
export const dataFolder = folder;

/**
 * Seed rows at random from train.jsonl, another draw for each replicate; test
 * rows all of dev.jsonl, or with `tune` the same 500 rows of train.jsonl for
 * every replicate, from which no seed row is drawn. Texts that repeat are
 * taken once, and a seed text is never a test text.
 */
export function drawRows(task, seedRows, replicate, tune) {
  const train = distinct(read(task, "train"));
  const ranked = (parts) => [...train].sort((a, b) => compare(rank(a, parts), rank(b, parts)));
  const test = tune ? ranked(["tune"]).slice(0, tuneRows) : distinct(read(task, "dev"));
  const tested = new Set(test.map((row) => normal(row.input)));
  const seeds = ranked(["replicate", replicate])
    .filter((row) => !tested.has(normal(row.input)))
    .slice(0, seedRows);
  return [
    ...seeds.map((row) => ({ ...row, split: "train" })),
    ...test.map((row) => ({ input: row.input, output: row.output, split: "test" })),
  ];
}

function read(task, split) {
  return readFileSync(join(folder, task, `${split}.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

function distinct(rows) {
  const seen = new Set();
  return rows.filter(({ input }) => !seen.has(normal(input)) && seen.add(normal(input)));
}

// What a campaign takes for the same text.
const normal = heldOutText;
const rank = (row, parts) =>
  createHash("sha256")
    .update(JSON.stringify([...parts, row.input]))
    .digest("hex");
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
