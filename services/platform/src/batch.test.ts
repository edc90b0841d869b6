import { expect, test } from "vitest";
import { inBatches } from "./batch.js";

test.each([
  [[], []],
  [[1, 2, 3], [[1, 2, 3]]],
  [
    [1, 1, 1, 1, 1],
    [[1, 1, 1, 1], [1]],
  ],
  [
    [6, 4, 1],
    [[6, 4], [1]],
  ],
  [
    [9, 2, 11, 1],
    [[9], [2], [11], [1]],
  ],
])("%j", (sizes, batches) => {
  expect(inBatches(sizes, (size) => size, { mostItems: 4, mostSize: 10 })).toEqual(batches);
});
