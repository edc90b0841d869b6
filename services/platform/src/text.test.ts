import { expect, test } from "vitest";
import { requireStorable, textMistake } from "./text.js";

test.each([
  ["", undefined],
  ["plain, 日本, 👍🏽, \u2028", undefined],
  ["a\u0000b", /U\+0000/],
  ["\ud83d", /lone surrogate/],
  ["a \udc4d b", /lone surrogate/],
  ["\udc4d\ud83d", /lone surrogate/],
])("%j", (text, mistake) => {
  if (mistake === undefined) expect(textMistake(text)).toBeUndefined();
  else expect(textMistake(text)).toMatch(mistake);
});

const bad = "x\u0000";
test.each([
  [{ name: bad }, "", "name"],
  [{ task: { promptTemplate: bad } }, "", "task.prompt_template"],
  [{ labels: [{ name: "a" }, { name: "b", description: bad }] }, "task", "task.labels[1].description"],
  [{ work: { $case: "write", value: { orders: [{ wrongAnswer: bad }] } } }, "", "write.orders[0].wrong_answer"],
  [{ metadata: { [bad]: "a" } }, "row", "row.metadata"],
  [bad, "query", "query"],
])("the first text that cannot be stored is named: %j", (value, field, named) => {
  expect(() => requireStorable(value, field)).toThrow(
    expect.objectContaining({ fields: [expect.objectContaining({ field: named })] }),
  );
});

test("numbers, dates, bytes and nothing are no texts", () => {
  requireStorable({ a: 1, b: null, c: undefined, d: new Date(), e: new Uint8Array([0]), f: [true, "fine"] }, "");
});
