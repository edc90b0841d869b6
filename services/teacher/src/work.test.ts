import { candidate, type Outcome, rejection } from "@tutelage/platform/teacheroutcome";
import { expect, test } from "vitest";
import { nextAttempts } from "./work.js";

const job = { count: 3, maxAttempts: 6, firstAttempt: 10 };
const good = candidate("a", "b");
const bad = rejection("unparseable", "", "");
const next = (made: [number, Outcome][]) => nextAttempts(job, new Map(made));

test("first as many attempts as rows are wanted, then as many as are missing, within the bound", () => {
  expect(next([])).toEqual([10, 11, 12]);
  expect(
    next([
      [10, good],
      [11, bad],
      [12, bad],
    ]),
  ).toEqual([13, 14]);
  expect(
    next([
      [10, good],
      [11, bad],
      [12, bad],
      [13, good],
      [14, good],
    ]),
  ).toEqual([]);
  expect(
    next([
      [10, bad],
      [11, bad],
      [12, bad],
      [13, bad],
      [14, bad],
      [15, bad],
    ]),
  ).toEqual([]);
  expect(
    next([
      [10, good],
      [11, good],
      [12, good],
    ]),
  ).toEqual([]);
});

test("after a restart in the middle of a wave only its missing attempts are made", () => {
  expect(
    next([
      [10, good],
      [12, bad],
    ]),
  ).toEqual([11]);
});
