import { type Row, Task } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { fewShotRows, fewShotTask } from "./fewshot.js";

const task = Task.fromPartial({ promptTemplate: "Q: {input}\nA:" });
const row = (id: string, input: string, output: string): Row =>
  ({ id, input, output, messages: [] as Row["messages"] }) as Row;

test("every output has its turn before one has a second", () => {
  const rows = [..."abcdefghijklmnop"].map((id, index) => row(id, `text ${id}`, index < 13 ? "common" : `rare ${id}`));
  const shown = fewShotRows(rows, task, [1, "few_shot", 0]);
  expect(shown).toHaveLength(12);
  expect(new Set(shown.slice(0, 4).map(({ output }) => output)).size).toBe(4);
  expect(fewShotRows(rows, task, [1, "few_shot", 0])).toEqual(shown);
  expect(fewShotRows(rows, task, [1, "few_shot", 1])).not.toEqual(shown);
});

test("what cannot be shown is left out: conversations, the input's place, what is too long", () => {
  const turns = { ...row("turns", "", "x"), messages: [{ role: "user", content: "hello" }] };
  const rows = [turns, row("place", "why {input}?", "x"), row("long", "l".repeat(9_000), "x"), row("good", "g", "x")];
  expect(fewShotRows(rows, task, [1]).map(({ id }) => id)).toEqual(["good"]);
  expect(fewShotRows(rows, Task.fromPartial({ promptTemplate: "" }), [1])).toEqual([]);
});

test("a row is shown as a student is trained on it, and the input keeps its one place", () => {
  const shown = fewShotTask(task, [row("1", "what is $& worth?", " money ")]);
  expect(shown.promptTemplate).toBe("Q: what is $& worth?\nA: money\n\nQ: {input}\nA:");
});
