import { Mining, Schedule, Selection, type Settings, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { departures, paperSettings } from "./paper.js";
import { defaultSettings, resolveSettings } from "./settings.js";

const task = Task.fromPartial({
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "{input}",
  labels: [{ name: "a" }, { name: "b" }],
});
const models = { student: "smollm2-135m", teacher: "gemma3-270m" };
/** As a request leaves open what it does not say. */
const open = Object.fromEntries(
  Object.entries(defaultSettings).map(([name, value]) => [name, typeof value === "number" ? 0 : undefined]),
) as unknown as Settings;

test("the paper's schedule resolves to the paper's settings and leaves the others as they are", () => {
  const resolved = resolveSettings({ ...open, schedule: Schedule.PAPER }, task);
  expect(resolved).toMatchObject(paperSettings);
  expect(resolved).toMatchObject({ folds: defaultSettings.folds, attemptsPerRow: defaultSettings.attemptsPerRow });
  expect(departures(resolved, models)).toHaveLength(4);
  // Postgres gives the keys of a stored object in an order of its own.
  const { scoreLabels, temperature, topP, maxNewTokens, stop, seed } = paperSettings.decoding;
  const stored = { ...resolved, decoding: { seed, stop, topP, scoreLabels, temperature, maxNewTokens } };
  expect(departures(stored, models)).toHaveLength(4);
});

test("what a request sets goes before the schedule, and the report says so", () => {
  const resolved = resolveSettings(
    { ...open, schedule: Schedule.PAPER, mining: Mining.CROSS_FIT, iterations: 3, checkTeacher: Switch.ON },
    task,
  );
  expect(resolved).toMatchObject({ mining: Mining.CROSS_FIT, iterations: 3, selection: Selection.ERRORS_ONLY });
  expect(departures(resolved, models)).toEqual(
    expect.arrayContaining([
      "mining is cross_fit, the paper's in_sample.",
      "iterations is 3, the paper's 10.",
      "check_teacher is on, the paper's off.",
      expect.stringContaining("smollm2-135m"),
    ]),
  );
});

test("another schedule departs from nothing", () => {
  expect(departures(resolveSettings(open, task), models)).toEqual([]);
});
