import { expect, test } from "vitest";
import { nearest } from "./suggestion.js";

test.each([
  ["iteratons", "iterations"],
  ["Folds", "folds"],
  ["flods", "folds"],
  ["check_techer", "check_teacher"],
  ["luck", undefined],
  ["seeds", "seed"],
  ["x", undefined],
  ["", undefined],
])("%j may have meant %j", (given, meant) => {
  const known = ["iterations", "folds", "check_students", "check_teacher", "seed", "mining"];
  expect(nearest(given, known)).toBe(meant);
});
