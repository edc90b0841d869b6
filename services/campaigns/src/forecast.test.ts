import { Arm, type Forecast, Mining, SeedAudit, Selection, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { Recipe } from "@tutelage/proto/student/v1/student";
import { Row, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { type ForecastBasis, forecast } from "./forecast.js";
import { defaultSettings } from "./settings.js";

const recipe = Recipe.fromPartial({ epochs: 5, minSteps: 60, batchRows: 8 });
const seedRows = Array.from({ length: 60 }, (_, index) =>
  Row.fromPartial({ id: `${index}`, input: "x".repeat(40 - 4), output: "abcd" }),
);
const basis: ForecastBasis = {
  settings: { ...defaultSettings, rowsPerSeedRow: 2, recipe },
  task: Task.fromPartial({ kind: TaskKind.CLASSIFICATION, labels: [{ name: "a" }, { name: "b" }] }),
  seedRows,
  devRows: 0,
  testRows: 100,
  teacher: TeacherProfile.fromPartial({
    name: "t",
    provider: "openai-compatible",
    promptMicroUsdPerMillionTokens: 1_000_000,
    completionMicroUsdPerMillionTokens: 2_000_000,
  }),
  earlier: undefined,
};

function find(forecasts: Forecast[], name: string): Forecast {
  const found = forecasts.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no forecast of ${name}`);
  return found;
}

test("calls are the pre-flight, the record on the seed rows, and one or two for each wanted row", () => {
  const calls = find(forecast(basis), "teacher_calls");
  // 16 writes and 16 labels of the pre-flight, 60 labels of seed rows, 120 rows an iteration with at most a label each.
  expect(calls.low).toBe(16 + 16 + 60 + 120);
  expect(calls.high).toBe(16 + 16 + 60 + 3 * (240 + 120));
  expect(calls.likely).toBeGreaterThan(16 + 16 + 60 + 3 * 180);
  expect(calls.likely).toBeLessThan(16 + 16 + 60 + 3 * 200);
});

test("without checks and pre-flight only writing is left; the paper's schedule may need none", () => {
  const settings = { ...basis.settings, preflight: Switch.OFF, checkTeacher: Switch.OFF };
  expect(find(forecast({ ...basis, settings }), "teacher_calls").low).toBe(120);
  const paper = { ...settings, selection: Selection.ERRORS_ONLY, mining: Mining.IN_SAMPLE };
  const calls = find(forecast({ ...basis, settings: paper }), "teacher_calls");
  expect(calls).toMatchObject({ low: 0, high: 3 * 60 * 2 });
  expect(calls.basis).toContain("known only after training");
});

test("arms add the calls that they make and the students that they train", () => {
  const settings = { ...basis.settings, arms: [Arm.TEACHER, Arm.RANDOM, Arm.AUGGPT] };
  const [before, after] = [forecast(basis), forecast({ ...basis, settings })];
  // At least 120 rows are written: once more for each of two arms, checked at most in one of them; 60 gold and 100 test rows.
  expect(find(after, "teacher_calls").low).toBe(find(before, "teacher_calls").low + 120 + 120 + 60 + 100);
  expect(find(after, "teacher_calls").basis).toContain("of the arms");
  expect(find(after, "optimizer_steps").low).toBe(find(before, "optimizer_steps").low + 2 * 68);
});

test("caps bound what is forecast", () => {
  const settings = { ...basis.settings, maxTeacherCalls: 200, maxCostMicroUsd: 5 };
  const forecasts = forecast({ ...basis, settings });
  expect(find(forecasts, "teacher_calls")).toMatchObject({ likely: 200, high: 200 });
  expect(find(forecasts, "cost_micro_usd")).toMatchObject({ likely: 5, high: 5 });
});

test("money follows from tokens and prices, and a teacher without prices says so", () => {
  const forecasts = forecast(basis);
  const [prompt, completion, cost] = ["prompt_tokens", "completion_tokens", "cost_micro_usd"].map((name) =>
    find(forecasts, name),
  );
  expect(cost?.likely).toBe((prompt?.likely ?? 0) + 2 * (completion?.likely ?? 0));
  const embedded = TeacherProfile.fromPartial({ name: "e", provider: "embedded" });
  expect(find(forecast({ ...basis, teacher: embedded }), "cost_micro_usd")).toMatchObject({
    high: 0,
    basis: expect.stringContaining("no prices"),
  });
});

test("steps follow the recipe and the folds; time follows an earlier campaign, or is left out", () => {
  const forecasts = forecast(basis);
  // One iteration and one more: each cross-fits three times 60 steps; one student of its own; one more plain try.
  // At the low end 48 of 120 rows become rows: 108 rows are 68 steps, 72 of them 45, so 60.
  expect(find(forecasts, "optimizer_steps").low).toBe(60 + 2 * 3 * 60 + 68);
  expect(forecasts.some(({ name }) => name === "wall_seconds")).toBe(false);
  const trainRows = [60, 144, 228, 312];
  const earlier = { id: "before", settings: basis.settings, trainRows, devRows: 0 };
  const timed = forecast({
    ...basis,
    earlier: { ...earlier, wallSeconds: 900, teacherSeconds: 400, teacherCalls: 650 },
  });
  // It took what this one will likely take: 84 of 120 rows accepted in each iteration.
  const wall = find(timed, "wall_seconds");
  expect(wall.likely).toBeGreaterThan(880);
  expect(wall.likely).toBeLessThan(960);
});

test("an audit costs nothing where the check of labels has asked for all seed rows, else a record and the suspects", () => {
  const calls = (settings: object) => {
    const { low, likely, high } = find(
      forecast({ ...basis, settings: { ...basis.settings, ...settings } }),
      "teacher_calls",
    );
    return { low, likely, high };
  };
  const checked = calls({});
  expect(calls({ seedAudit: SeedAudit.ASIDE })).toEqual(checked);
  const bare = calls({ checkTeacher: Switch.OFF });
  const audited = calls({ checkTeacher: Switch.OFF, seedAudit: SeedAudit.WAIT });
  expect(audited).toEqual({ low: bare.low, likely: bare.likely + 48 + 15, high: bare.high + 48 + 60 });
});
