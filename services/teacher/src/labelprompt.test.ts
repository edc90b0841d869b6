import { TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import {
  type LabelPlan,
  labelAsk,
  labelExamples,
  labelMethod,
  labelReferences,
  labelWord,
  readLabel,
} from "./labelprompt.js";
import { row, seedRows, task } from "./service.fixture.js";

const reply = { text: "", finish: "stop" as const, promptTokens: 1, completionTokens: 1 };
const sampling = { temperature: 1, topP: 1, topK: 0, maxTokens: 16 };
const fresh = row("n", "any rain today?", "weather");
const planOf = (more: Partial<LabelPlan> = {}): LabelPlan => {
  const examples = labelExamples(task, fresh, seedRows, 0);
  return { task, row: fresh, examples, references: [], method: "say", form: "chat", ...more };
};
const many = Array.from({ length: 30 }, (_, i) => row(`r${i}`, `text ${i}`, task.labels[i % 3]?.name ?? ""));

test("a row is never among its own examples, every label is shown equally often, and two sets serve all rows", () => {
  const sets = new Set<string>();
  for (const asked of [fresh, ...many]) {
    const examples = labelExamples(task, asked, many, 0);
    expect(examples.map(({ id }) => id)).not.toContain(asked.id);
    for (const { name } of task.labels) expect(examples.filter(({ output }) => output === name)).toHaveLength(4);
    sets.add(examples.map(({ id }) => id).join());
  }
  expect(sets.size).toBe(2);
  const twin = row("twin", "text 0", "weather");
  expect(labelExamples(task, twin, many, 0).map(({ input }) => input)).not.toContain("text 0");
});

test("references are examples that are not shown, and few", () => {
  const examples = labelExamples(task, fresh, many, 0);
  const references = labelReferences(examples, many, 0);
  expect(references).toHaveLength(16);
  expect(references.some((reference) => examples.includes(reference))).toBe(false);
  // A row that is its own only reference would come out as likely under every label.
  expect(labelReferences(labelExamples(task, fresh, seedRows, 0), seedRows, 0)).toEqual([]);
});

test("the method is what the teacher can do", () => {
  expect(labelMethod(task, "embedded", true)).toBe("score");
  expect(labelMethod(task, "openai-compatible", true)).toBe("choice");
  expect(labelMethod(task, "openai-compatible", false)).toBe("say");
  expect(labelMethod({ ...task, kind: TaskKind.TEXT }, "embedded", true)).toBe("say");
  const labels = Array.from({ length: 30 }, (_, i) => ({ name: `l${i}`, description: "" }));
  expect(labelMethod({ ...task, labels }, "openai-compatible", true)).toBe("say");
});

test("what a model favours anyway is taken off, and likelihoods are normalised", () => {
  const plan = planOf({ method: "score" });
  const scored = { ...reply, scores: [[-1, -2, -3]], referenceScores: [[-0.5, -1, -3]] };
  const outcome = readLabel(plan, scored);
  expect(outcome).toMatchObject({ $case: "labeling", value: { label: "weather" } });
  const likelihoods = outcome.$case === "labeling" ? outcome.value.likelihoods : [];
  expect(likelihoods.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0)).toBeCloseTo(1, 9);
  expect(readLabel(plan, { ...reply, scores: [[-1, -2, Number.NEGATIVE_INFINITY]] })).toMatchObject({
    value: { label: "book_flight" },
  });
});

test("a base model is asked in the task's own template, whatever signs the text holds", () => {
  const ask = labelAsk(planOf({ method: "score", row: row("d", "costs $& or $1?", "weather") }), sampling);
  if (ask.kind !== "score") throw new Error("not score");
  expect(ask.items[0]?.prefix).toBe("Message: costs $& or $1?\nIntent:");
  expect(ask.items[0]?.shared).toMatch(/^Message: .*\nIntent: (book flight|cancel|weather)\n\n/);
  expect(ask.items[0]?.continuations).toEqual([" book flight\n", " cancel\n", " weather\n"]);
});

test("abbreviations are called by the words of their descriptions, where these differ", () => {
  const labels = [
    { name: "HUM", description: "questions that ask for a person, a group or a company" },
    { name: "LOC", description: "questions that ask for a place: a city" },
  ];
  expect(labels.map(({ name }) => labelWord({ ...task, labels }, name))).toEqual(["person", "place"]);
  const same = labels.map((label) => ({ ...label, description: "a thing" }));
  expect(labelWord({ ...task, labels: same }, "HUM")).toBe("HUM");
  expect(labelWord(task, "book_flight")).toBe("book flight");
});

test.each([
  ["weather", "weather"],
  [" Weather.\n", "weather"],
  ["book flight", "book_flight"],
  ["The label is: weather", "weather"],
  ["weather\n\nText: more", "weather"],
])("the reply %j names %s", (text, label) => {
  expect(readLabel(planOf(), { ...reply, text })).toEqual({ $case: "labeling", value: { label, likelihoods: [] } });
});

test.each([
  ["weather or cancel", "unknown_label"],
  ["hotel", "unknown_label"],
  [" ", "empty_reply"],
])("the reply %j is rejected as %s", (text, code) => {
  expect(readLabel(planOf(), { ...reply, text })).toMatchObject({ $case: "rejection", value: { code } });
});

test("a letter without log-probabilities names a label, and one beyond the set none", () => {
  const plan = planOf({ method: "choice" });
  expect(readLabel(plan, { ...reply, text: "B." })).toMatchObject({ value: { label: "cancel" } });
  expect(readLabel(plan, { ...reply, text: "Z" })).toMatchObject({ value: { code: "unknown_label" } });
});

test("without labels the teacher's answer is the label, read like any answer", () => {
  const math = { ...task, kind: TaskKind.MATH, labels: [] };
  const plan = planOf({ task: math });
  expect(readLabel(plan, { ...reply, text: "2 + 2 = 4" })).toMatchObject({ value: { label: "2 + 2 = 4" } });
  expect(readLabel(plan, { ...reply, text: "four" })).toMatchObject({ value: { code: "no_answer" } });
  expect(readLabel(plan, { ...reply, text: "2 + 2", finish: "length" })).toMatchObject({
    value: { code: "truncated" },
  });
});
