import { thinned } from "@tutelage/platform/losscurve";
import { Iteration, Outcome } from "@tutelage/proto/campaigns/v1/campaigns";
import { TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { advise } from "./advice.js";

const settings = { iterations: 3 };
const proportion = (value: number) => ({ value, n: 100, successes: value * 100, ci95Low: value, ci95High: value });
const sure = { gain: 0.1, ci95Low: 0.05, ci95High: 0.15, n: 200, onlyFinalRight: 30, onlyBaselineRight: 10 };
const iterations = [Iteration.fromPartial({ trainRows: 60, errors: 30, candidates: 100, accepted: 80 })];

test("a clear gain with room left asks for one more iteration and nothing else", () => {
  const outcome = Outcome.fromPartial({ gain: sure, chosenIteration: 3, stopReason: "iterations" });
  expect(advise(outcome, iterations, settings)).toEqual([expect.stringContaining("raise iterations above 3")]);
});

test("without test rows they come first; a gain that may be zero says what its interval is", () => {
  expect(advise(Outcome.fromPartial({ chosenIteration: 1 }), iterations, settings)[0]).toContain('split "test"');
  const unsure = { ...sure, ci95Low: -0.01, ci95High: 0.09 };
  expect(advise(Outcome.fromPartial({ gain: unsure, chosenIteration: 1 }), iterations, settings)[0]).toContain("±5.0");
});

test("a teacher whose rows are mostly rejected, few errors, and more seed rows that do better are named", () => {
  const poor = [
    Iteration.fromPartial({ trainRows: 60, errors: 2, candidates: 100, accepted: 10, rejected: { label_doubted: 90 } }),
  ];
  const outcome = Outcome.fromPartial({
    gain: sure,
    chosenIteration: 1,
    final: { testAccuracy: proportion(0.7) },
    otherArms: [{ name: "none_all", testAccuracy: proportion(0.8) }],
  });
  const advice = advise(outcome, poor, settings).join("\n");
  expect(advice).toContain("label_doubted, 90");
  expect(advice).toContain("nearly all seed rows right");
  expect(advice).toContain("80.0 % against 70.0 %");
});

test("what is to be described more plainly depends on the kind of task", () => {
  const poor = [Iteration.fromPartial({ trainRows: 60, errors: 30, candidates: 100, accepted: 10 })];
  const outcome = Outcome.fromPartial({ gain: sure, chosenIteration: 1 });
  const told = (kind: TaskKind) => advise(outcome, poor, settings, kind).join("\n");
  expect(told(TaskKind.CLASSIFICATION)).toContain("task.labels");
  expect(told(TaskKind.EXTRACTION)).toContain("task.fields");
  expect(told(TaskKind.TEXT)).toContain("task.teacher_instructions");
});

test("a loss curve is thinned to means that cover every step", () => {
  const curve = thinned(
    "plain",
    Array.from({ length: 250 }, (_, index) => index),
  );
  expect(curve.steps.length).toBeLessThanOrEqual(120);
  expect(curve.steps.at(-1)).toBe(250);
  expect(curve.losses[0]).toBe(1);
});
