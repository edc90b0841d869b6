import { expect, test } from "vitest";
import { askedForm, replyText } from "./candidates.js";
import { Findings, firstDifference } from "./findings.js";

test("what differs is named by its path, and the last bits of a logarithm are no difference", () => {
  expect(firstDifference({ a: [1, { b: 2 }] }, { a: [1, { b: 2 + 1e-12 }] })).toBeUndefined();
  expect(firstDifference({ a: [1, { b: 2 }] }, { a: [1, { b: 3 }] })).toBe(".a[1].b is 2, by the parts 3");
  expect(firstDifference({ a: 1 }, {})).toBe(".a is 1, by the parts not there");
  expect(firstDifference({ a: undefined }, {})).toBeUndefined();
  expect(firstDifference([1], [1, 2])).toBe(": there are 1, by the parts 2");
  expect(firstDifference("1", 1)).toBe(' is "1", by the parts 1');
  expect(firstDifference(undefined, { n: 1 })).toContain("is not there");
});

test("a check stops naming after a few", async () => {
  const found = new Findings();
  await found.run("rows", () => {
    for (let row = 0; row < 100; row += 1) found.differs("rows-00000.jsonl", `row ${row}`);
    return "100 rows";
  });
  expect(found.findings).toHaveLength(10);
  expect(found.checked).toEqual([{ check: "rows", looked_at: "100 rows" }]);
});

test("the model's words are found in either kind of raw reply", () => {
  const body = (choice: object) => JSON.stringify({ choices: [choice], usage: {} });
  expect(replyText(body({ message: { content: "said" } }))).toBe("said");
  expect(replyText(body({ text: " continued" }))).toBe(" continued");
  expect(replyText(body({ message: { content: null } }))).toBe("");
  expect(replyText('{"input": "a row", "output": "x"}')).toBe('{"input": "a row", "output": "x"}');
  expect(replyText("plain words")).toBe("plain words");
});

test("a prompt tells its form, and the words that were put into a base model's mouth", () => {
  expect(askedForm('[{"role":"user","content":"hi"}]')).toEqual({ form: "chat", opening: "" });
  const list = (opening: string) => ({ form: "list_continuation", opening });
  expect(askedForm("A list of questions:\n- one\n- How many")).toEqual(list("How many"));
  expect(askedForm("A list of questions:\n- one\n-")).toEqual(list(""));
  expect(askedForm("A list of poems:\n\n<<<\na\nb\n>>>\n<<<\n- And")).toEqual(list("- And"));
  expect(askedForm("A list of sums with their answers.\n\nQuestion: 1+1\nAnswer: 2\n\nQuestion:")).toEqual(list(""));
});
