import { stateOf } from "@tutelage/platform/seedrowstate";
import { SeedRowState } from "@tutelage/proto/campaigns/v1/campaigns";
import { expect, test } from "vitest";

test.each<[string, SeedRowState]>([
  ["", SeedRowState.UNSPECIFIED],
  ["+", SeedRowState.KNOWN],
  ["-", SeedRowState.STUBBORN],
  ["+++", SeedRowState.KNOWN],
  ["---", SeedRowState.STUBBORN],
  ["-++", SeedRowState.LEARNED],
  ["+-+", SeedRowState.LEARNED],
  ["-+-", SeedRowState.FORGOTTEN],
  ["+--", SeedRowState.REGRESSED],
  ["++-", SeedRowState.REGRESSED],
])("answers that went %j are %s", (answers, state) => {
  expect(stateOf([...answers].map((one) => ({ correct: one === "+" })))).toBe(state);
});
