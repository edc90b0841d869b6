import { expect, test } from "vitest";
import { parse } from "yaml";
import { guess } from "./guess.js";
import { specText } from "./init.js";
import { isHeldBack, type SourceRow } from "./rows.js";
import { heldBack } from "./run.js";
import { parseSpec } from "./spec.js";

const rows = (fields: Record<string, unknown>[]): SourceRow[] =>
  fields.map((one, index) => ({ line: index + 1, fields: one, text: JSON.stringify(one) }));
const many = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

test("columns are known by their names, a closed set by values that come again", () => {
  const found = guess(
    rows(
      many(30, (i) => ({
        id: `${i}`,
        text: `message ${i} about something`,
        intent: ["refund", "theft"][i % 2],
        split: "train",
      })),
    ),
  );
  expect(found.columns).toEqual({ input: "text", output: "intent", split: "split" });
  expect(found).toMatchObject({ kind: "classification", labels: ["refund", "theft"] });
  expect(found.reasons.kind).toContain("2 outputs");
});

test("columns without telling names are told by length and variety", () => {
  const found = guess(rows(many(20, (i) => ({ a: `a rather long utterance number ${i}`, b: ["x", "y"][i % 2] }))));
  expect(found.columns).toMatchObject({ input: "a", output: "b", split: undefined });
  expect(found.reasons.columns).toContain("longest texts");
});

test.each([
  ["math", many(12, (i) => ({ question: `How many is ${i} and 2?`, answer: `${i} plus 2 is\n#### ${i + 2}` }))],
  ["multiple_choice", many(12, (i) => ({ question: `Which one? A) this ${i} B) that`, answer: "AB"[i % 2] }))],
  ["text", many(12, (i) => ({ question: `Say something on ${i}.`, answer: `Well, number ${i} is fine by me.` }))],
] as const)("%s is told from what outputs look like", (kind, data) => {
  expect(guess(rows([...data])).kind).toBe(kind);
});

test("a file with one column, or with no object in it, is refused with what it has", () => {
  expect(() => guess(rows([{ only: "a" }]))).toThrow(/two columns.*only/);
  expect(() => guess([{ line: 1, fields: undefined, text: "nonsense" }])).toThrow(/no row/);
});

test("the file that init writes is a campaign that can be read, whatever the labels are", () => {
  const labels = ['say "hi": #1', "- dash", "no"];
  const found = guess(rows(many(90, (i) => ({ text: `${i} is it so?`, label: labels[i % 3] }))));
  const text = specText("data/my file.jsonl", "campaign.yaml", found);
  const spec = parseSpec(text, "campaign.yaml");
  const task = spec.task as Exclude<typeof spec.task, string>;
  expect(task.labels?.map((label) => (typeof label === "string" ? label : label.name)).sort()).toEqual(
    [...labels].sort(),
  );
  expect(spec.data).toMatchObject({ train: "data/my file.jsonl", hold_back: 0.4 });
  expect(parse(text).settings).toEqual({ iterations: 3 });
});

test("mistakes in a campaign are named with their line", () => {
  const text =
    "name: a\ndata:\n  train: x.jsonl\n  trian: y.jsonl\ntask:\n  kind: sorting\n  prompt_template: '{input}'\n";
  expect(() => parseSpec(text, "c.yaml")).toThrow(/c\.yaml:4: data\.trian is not a known field/);
  expect(() => parseSpec(text, "c.yaml")).toThrow(/c\.yaml:6: task\.kind/);
  const spec = (task: string) => `name: x\ndata: {train: a}\ntask: ${task}`;
  expect(parseSpec(spec("sentiment"), "c.yaml").task).toBe("sentiment");
  expect(() => parseSpec(spec("two words"), "c.yaml")).toThrow(/c\.yaml:3: task: .*1 to 100 letters/);
  expect(() => parseSpec(spec("{kind: text}"), "c.yaml")).toThrow(/c\.yaml:3: task\.prompt_template/);
  expect(() => parseSpec("name: [", "c.yaml")).toThrow(/^c\.yaml:1: /);
});

test("a row that is left out is named by its line in the user's file, held back or not", () => {
  const source = rows(many(50, (i) => ({ input: `text number ${i}`, output: "a" }))).map((one) => ({
    ...one,
    line: one.line * 2,
  }));
  const uploads = heldBack({ path: "f.jsonl", format: "jsonl", content: "", rows: source }, "input", 0.4);
  for (const { body, lines } of uploads) {
    const sent = body.trim().split("\n");
    expect(sent.map((text) => source.find((one) => one.text === text)?.line)).toEqual(lines);
  }
  expect(uploads.flatMap(({ lines }) => lines ?? [])).toHaveLength(50);
});

test("about the asked share is held back, and the same text always lies on the same side", () => {
  const texts = many(2_000, (i) => `text number ${i}`);
  const held = texts.filter((text) => isHeldBack(text, 0.4)).length / texts.length;
  expect(held).toBeGreaterThan(0.36);
  expect(held).toBeLessThan(0.44);
  expect(isHeldBack(" Text Number 7", 0.4)).toBe(isHeldBack("text number 7 ", 0.4));
});
