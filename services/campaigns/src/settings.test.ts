import { Mining, SeedAudit, type Settings, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { Grader, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { defaultSettings, needsCrossFit, resolveSettings } from "./settings.js";

const task: Task = {
  name: "t",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "Question: {input}\nClass:",
  labels: [
    { name: "a", description: "" },
    { name: "b", description: "" },
  ],
  grader: Grader.LABEL,
  teacherInstructions: "",
  maxAnswerTokens: 0,
  rowNoun: "",
  fields: [],
  rougeLThreshold: 0,
  workedExample: undefined,
};
const given = (settings: Partial<Settings>) => ({ ...defaultSettings, ...settings });

test("zero and unspecified take the default, anything else stays", () => {
  const resolved = resolveSettings(given({ iterations: 0, folds: 5 }), task);
  expect(resolved).toMatchObject({ iterations: defaultSettings.iterations, folds: 5 });
});

test("every wrong setting is named with its bounds", () => {
  const wrong = () => resolveSettings(given({ iterations: 99, acceptProbability: 2, folds: 2.5 }), task);
  expect(wrong).toThrow(/settings.iterations is 99; must be from 1 to 20/);
  expect(wrong).toThrow(/settings.accept_probability is 2/);
  expect(wrong).toThrow(/settings.folds is 2.5; must be a whole number/);
});

test("label checks are off where there are no labels to doubt", () => {
  const text = { ...task, kind: TaskKind.TEXT, labels: [] };
  expect(resolveSettings(undefined, text)).toMatchObject({ checkStudents: Switch.OFF, checkTeacher: Switch.OFF });
});

test("an audit of seed rows has students cross-fitted, whatever else would", () => {
  const bare = given({ mining: Mining.IN_SAMPLE, checkStudents: Switch.OFF });
  expect(needsCrossFit(bare, task)).toBe(false);
  expect(needsCrossFit({ ...bare, seedAudit: SeedAudit.ASIDE }, task)).toBe(true);
  expect(needsCrossFit({ ...bare, seedAudit: SeedAudit.ASIDE }, { ...task, kind: TaskKind.MATH })).toBe(false);
});
