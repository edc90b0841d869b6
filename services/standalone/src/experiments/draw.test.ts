import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { heldOutText } from "@tutelage/platform/heldouttext";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Draw, defaultDataFolder, drawRows, hasData, unusedRows } from "./draw.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-draw-"));
  const lines = (rows: { input: string; output: string }[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const train = Array.from({ length: 700 }, (_, index) => ({ input: `What is ${index} ?`, output: `${index % 3}` }));
  // A text that is there twice, and one that is in dev.jsonl too.
  await writeFile(join(folder, "train.jsonl"), lines([...train, { input: "what is 5?", output: "9" }]));
  await writeFile(
    join(folder, "dev.jsonl"),
    lines(Array.from({ length: 40 }, (_, index) => ({ input: `What is ${index + 690} ?`, output: "1" }))),
  );
  await mkdir(join(folder, "empty"));
});
afterAll(async () => await rm(folder, { recursive: true, force: true }));

const texts = (rows: readonly { input: string; split?: string }[], split?: string) =>
  rows.filter((row) => split === undefined || row.split === split).map(({ input }) => heldOutText(input));

const drawOf = (more: Partial<Draw> = {}): Draw => ({ folder, seedRows: 60, tune: false, ...more });

test("a replicate has other seed rows and the same test rows; none is both, and the same replicate is the same", () => {
  const [first, second] = [1, 2].map((replicate) => drawRows(drawOf(), replicate));
  if (first === undefined || second === undefined) throw new Error("no draw");
  expect(texts(first, "train")).toHaveLength(60);
  expect(texts(first, "train")).not.toEqual(texts(second, "train"));
  expect(texts(first, "test")).toEqual(texts(second, "test"));
  expect(texts(first, "test")).toHaveLength(40);
  const tested = new Set(texts(first, "test"));
  for (const text of [...texts(first, "train"), ...texts(second, "train")]) expect(tested.has(text)).toBe(false);
  expect(drawRows(drawOf(), 1)).toEqual(first);
});

test("tuning takes its test rows from train.jsonl and never reads dev.jsonl", async () => {
  const alone = join(folder, "alone");
  await mkdir(alone);
  const train = Array.from({ length: 600 }, (_, index) => `{"input": "row ${index}", "output": "a"}\n`).join("");
  await writeFile(join(alone, "train.jsonl"), train);
  const rows = drawRows(drawOf({ folder: alone, tune: true }), 1);
  expect(rows.filter(({ split }) => split === "test")).toHaveLength(500);
  expect(new Set(texts(rows)).size).toBe(560);
  expect(() => drawRows(drawOf({ folder: alone }), 1)).toThrow(/ENOENT/);
});

test("fewer test rows are the same for every replicate; what no replicate uses is left for the oracle", () => {
  const draw = drawOf({ testRows: 10 });
  expect(texts(drawRows(draw, 1), "test")).toEqual(texts(drawRows(draw, 2), "test"));
  const unused = new Set(texts(unusedRows(draw, 2)));
  for (const replicate of [1, 2])
    for (const text of texts(drawRows(draw, replicate))) expect(unused.has(text)).toBe(false);
  expect(unused.size).toBeGreaterThan(500);
  expect(hasData(folder)).toBe(true);
  expect(hasData(join(folder, "empty"))).toBe(false);
});

const trec = join(defaultDataFolder, "trec");
test.runIf(hasData(trec))("TREC, whose rows repeat, is drawn without repeats", () => {
  const rows = drawRows({ folder: trec, seedRows: 60, tune: false }, 1);
  expect(new Set(texts(rows)).size).toBe(rows.length);
  expect(rows.filter(({ split }) => split === "train")).toHaveLength(60);
});
