import { expect, test } from "vitest";
import { inRuns } from "./writing.js";

test("many or large items are cut into several generation runs, in order, none left out", () => {
  const many = Array.from({ length: 12_001 }, (_, index) => index);
  const runs = inRuns("generate", many);
  expect(runs.map(({ step, items }) => [step, items.length])).toEqual([
    ["generate", 5_000],
    ["generate/1", 5_000],
    ["generate/2", 2_001],
  ]);
  expect(runs.flatMap(({ items }) => items)).toEqual(many);
  const large = Array.from({ length: 5 }, (_, index) => ({ index, text: "x".repeat(3_000_000) }));
  expect(inRuns("label", large).map(({ items }) => items.map(({ index }) => index))).toEqual([[0, 1], [2, 3], [4]]);
  expect(inRuns("label", [])).toEqual([]);
});
