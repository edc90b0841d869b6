import { publicTasks, snipsLabels, sst2Labels, trecLabels } from "@tutelage/platform/publictasks";
import { requireTask } from "@tutelage/platform/task";
import { TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { presets } from "./presets.js";

test("every kind of task has a preset", () => {
  const kinds = new Set([...presets.values()].map(({ task }) => task.kind));
  for (const kind of Object.values(TaskKind)) expect(kinds.has(kind), kind).toBe(kind !== TaskKind.UNSPECIFIED);
});

test.each([...presets])("%s is a task that a campaign could start with, and says what its rows are", (name, preset) => {
  const { task, description } = preset;
  expect(requireTask(task)).toBe(task);
  expect(task.name).toBe(name);
  expect(name).toMatch(/^[A-Za-z0-9._-]{1,100}$/);
  expect(description).not.toBe("");
  expect(task.teacherInstructions.length).toBeGreaterThan(50);
  // Without a space at its end: the answer follows after one.
  expect(task.promptTemplate).toMatch(/\S$/);
  for (const label of task.labels) expect(label.description.startsWith(task.rowNoun)).toBe(true);
});

test.each([...publicTasks])("%s shows a teacher one wrong example and what comes of it", (name) => {
  const { task } = presets.get(name) ?? {};
  expect(task?.workedExample).toMatchObject({ wrongAnswer: expect.stringMatching(/\S/) });
});

test("labels are those of the public data, in its order", () => {
  const namesOf = (name: string) => presets.get(name)?.task.labels.map((label) => label.name);
  expect(namesOf("trec")).toEqual([...trecLabels]);
  expect(namesOf("sst2")).toEqual([...sst2Labels]);
  expect(namesOf("snips")).toEqual([...snipsLabels]);
  expect(presets.get("trec")?.task.labels).toEqual(presets.get("question-type")?.task.labels);
});
