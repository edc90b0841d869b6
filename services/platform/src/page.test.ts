import { expect, test } from "vitest";
import { fitting, isNumber, nextCursor, readCursor, requirePageSize } from "./page.js";

test("a page size is from 1 to 1000, and 0 takes the usual one", () => {
  expect([0, 1, 1_000].map(requirePageSize)).toEqual([100, 1, 1_000]);
  for (const wrong of [-1, 1_001]) expect(() => requirePageSize(wrong)).toThrow(`not ${wrong}`);
});

test("a cursor gives its place back, to its own listing only", () => {
  const cursor = nextCursor("rows 1", true, 7);
  expect(readCursor(cursor, "rows 1", isNumber)).toBe(7);
  expect(readCursor("", "rows 1", isNumber)).toBeUndefined();
  for (const wrong of [cursor.slice(1), "rubbish", nextCursor("rows 2", true, 7), nextCursor("rows 1", true, "7")]) {
    expect(() => readCursor(wrong, "rows 1", isNumber), wrong).toThrow(/not from a page of this listing/);
  }
});

test("there is no cursor after the last page, nor after an empty one", () => {
  expect(nextCursor("rows 1", false, 7)).toBe("");
  expect(nextCursor("rows 1", true, undefined)).toBe("");
});

test.each([
  [[], 10, 0],
  [[5, 5, 5], 2, 2],
  [[5, 5, 5], 10, 2],
  [[11, 1], 10, 1],
  [[1, 11, 1], 10, 1],
])("of items of %j bytes a page of %i that may take 10 shows %i", (bytes, size, shown) => {
  expect(fitting(bytes, size, 10)).toBe(shown);
});
