import { expect, test } from "vitest";
import { passedMarks, restMessage, shortfalls } from "./shortfall.js";

const caps = { maxTeacherCalls: 100, maxTeacherTokens: 0, maxCostMicroUsd: 5_000, maxTrainingSeconds: 60 };
const used = { teacher_calls: 100, teacher_tokens: 9_000, cost_micro_usd: 1_000, training_seconds: 20 };
const untrained = { seconds: 0, steps: 0 };
const whole = [
  { name: "teacher_calls", low: 90, likely: 240, high: 400, basis: "a pre-flight" },
  { name: "prompt_tokens", low: 5_000, likely: 20_000, high: 30_000, basis: "the mean length" },
  { name: "completion_tokens", low: 1_000, likely: 4_000, high: 6_000, basis: "" },
  { name: "cost_micro_usd", low: 1_000, likely: 3_000, high: 4_000, basis: "prices" },
];

test("what is missing is the forecast beyond the cap, at least one where the cap is met", () => {
  const missing = shortfalls("run_teacher_calls", caps, used, [], whole, untrained);
  expect(missing).toEqual([
    {
      name: "teacher_calls",
      scope: "campaign",
      used: 100,
      cap: 100,
      missing: { name: "missing", low: 1, likely: 140, high: 300, basis: "a pre-flight" },
    },
  ]);
  expect(restMessage(missing)).toBe(
    "100 of 100 teacher_calls are used: raise max_teacher_calls by about 140 (1 to 300).",
  );
});

test("of a project's month only what others left of it is there", () => {
  const month = [{ name: "teacher_tokens", used: 30_000, cap: 31_000 }];
  const [missing] = shortfalls(
    "project_teacher_tokens",
    { ...caps, maxTeacherCalls: 0 },
    used,
    month,
    whole,
    untrained,
  );
  // 9,000 of the 30,000 are this campaign's: it may use 10,000 in all, and takes 24,000.
  expect(missing).toMatchObject({ name: "teacher_tokens", scope: "project", missing: { low: 1, likely: 14_000 } });
});

test("by how much to raise is not said where nobody knows: nothing was trained, or use has outrun the forecast", () => {
  const [, seconds] = shortfalls("run_training_seconds", caps, used, [], whole, untrained);
  expect(seconds).toEqual({ name: "training_seconds", scope: "campaign", used: 20, cap: 60, missing: undefined });
  const outrun = { ...caps, maxTeacherCalls: 300 };
  const [calls] = shortfalls("run_teacher_calls", outrun, { ...used, teacher_calls: 300 }, [], whole, untrained);
  expect(calls).toMatchObject({ name: "teacher_calls", missing: undefined });
  expect(restMessage(calls ? [calls] : [])).toBe(
    "300 of 300 teacher_calls are used: raise max_teacher_calls; by how much is not known.",
  );
});

test("the seconds of training that are missing are those of the steps that are left, at the pace so far", () => {
  const steps = { name: "optimizer_steps", low: 40, likely: 100, high: 200, basis: "the recipe." };
  const trained = { seconds: 50, steps: 50 };
  const near = { ...used, training_seconds: 55 };
  const found = shortfalls("run_training_seconds", caps, near, [], [...whole, steps], trained);
  // 55 s were used, 5 of them by a run that has not ended; 50 steps are left, at 1 s each.
  expect(found.find(({ name }) => name === "training_seconds")?.missing).toMatchObject({
    low: 1,
    likely: 45,
    high: 145,
    basis: "1.00 s an optimizer step so far. the recipe.",
  });
});

test("marks are passed at their share of a cap, and not without one", () => {
  const passed = passedMarks(caps, { ...used, teacher_calls: 80, training_seconds: 57 });
  expect(passed.map(({ name, percent }) => [name, percent])).toEqual([
    ["teacher_calls", 50],
    ["teacher_calls", 80],
    ["training_seconds", 50],
    ["training_seconds", 80],
    ["training_seconds", 95],
  ]);
});
