import { expect, test } from "vitest";
import { parse } from "yaml";
import { guess } from "./guess.js";
import { specText } from "./init.js";
import type { SourceRow } from "./rows.js";
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

test("an extraction is told by its objects, with the fields' types and which may be missing", () => {
  const made = (i: number) => ({ city: `City ${i}`, guests: i, pets: i % 2 === 0, extras: ["cot"] });
  const data = many(12, (i) => {
    const { pets, ...rest } = made(i);
    return { text: `Room ${i}`, json: i < 6 ? { ...rest, pets } : JSON.stringify({ ...rest, pets: null }) };
  });
  const found = guess(rows(data));
  expect(found).toMatchObject({ kind: "extraction", labels: [], conversations: false });
  expect(found.fields).toEqual([
    { name: "city", type: "string", optional: false },
    { name: "guests", type: "number", optional: false },
    { name: "extras", type: "string_list", optional: false },
    { name: "pets", type: "boolean", optional: true },
  ]);
  const spec = parseSpec(specText("rooms.jsonl", "campaign.yaml", found), "campaign.yaml");
  expect(spec.task.fields).toMatchObject([{ name: "city" }, {}, {}, { name: "pets", type: "boolean", optional: true }]);
  // Nested objects and mixed types are no fields that can be declared.
  expect(guess(rows(many(12, (i) => ({ text: `a ${i}`, output: { deep: { i } } })))).kind).toBe("text");
  expect(guess(rows(many(12, (i) => ({ text: `a ${i}`, output: { x: i % 2 ? i : `no ${i}` } })))).kind).toBe("text");
});

test("conversations are told by their messages, the answer in a column or as the last message", () => {
  const user = (i: number) => ({ role: "user", content: `question ${i}` });
  const chat = guess(
    rows(
      many(9, (i) => ({ messages: [user(i), { role: "assistant", content: `answer ${i}, as ever` }], split: "train" })),
    ),
  );
  expect(chat).toMatchObject({ kind: "text", conversations: true, promptTemplate: "" });
  expect(chat.columns).toEqual({ input: "messages", output: "output", split: "split" });
  expect(chat.reasons.columns).toContain("last message");
  const text = specText("chat.jsonl", "campaign.yaml", chat);
  expect(text).not.toMatch(/^ *prompt_template/m);
  expect(parseSpec(text, "campaign.yaml").task.prompt_template).toBeUndefined();

  const labelled = guess(rows(many(12, (i) => ({ messages: [user(i)], label: ["angry", "calm"][i % 2] }))));
  expect(labelled).toMatchObject({ kind: "classification", labels: ["angry", "calm"], conversations: true });
  expect(labelled.columns.output).toBe("label");
  // A column that has an answer's name beside an answer is the user's own business.
  const assistant = { role: "assistant", content: "so be it" };
  const both = guess(rows(many(9, (i) => ({ messages: [user(i), assistant], category: `c${i}` }))));
  expect(both.columns.output).toBe("output");
  const mixed = many(12, (i) =>
    i % 2 ? { messages: [user(i)], output: "so be it" } : { messages: [user(i), assistant] },
  );
  expect(guess(rows(mixed)).columns.output).toBe("output");
  expect(() => guess(rows(many(9, (i) => ({ messages: [user(i)] }))))).toThrow(/"messages" have no answer/);
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
