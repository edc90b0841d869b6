import { expect, test } from "vitest";
import { jsonMistake, parseJsonBody } from "./jsonbody.js";

test.each([
  ['{"a": 1,}', 8],
  ['{"a" 1}', 5],
  ["{'a': 1}", 1],
  ['{"a": tru}', 6],
  ['{"a": 01}', 6],
  ['{"a": "x\n"}', 6],
  ["[1, 2", 5],
  ["[1 2]", 3],
  ['{"a": 1} x', 9],
  ['{"a": {"b": [1, {"c": }]}}', 22],
  ["nothing", 0],
])("%j goes wrong at %i", (text, offset) => {
  expect(() => JSON.parse(text)).toThrow();
  expect(jsonMistake(text)).toBe(offset);
});

test.each(['{"a": [1, -2.5e3, {"b": null}], "c": "\\u00e9\\n"}', " [] ", "{}", "[[], {}]", '"x"', "7"])(
  "%s is JSON",
  (text) => {
    expect(jsonMistake(text)).toBeUndefined();
    expect(parseJsonBody(text)).toEqual(JSON.parse(text));
  },
);

test("line and column are told, and depth is no danger", () => {
  expect(() => parseJsonBody('{\n  "name": "a",\n  "x" }')).toThrow(
    /is not JSON at line 3, column 7: "}" cannot stand there/,
  );
  expect(() => parseJsonBody('{"name": ')).toThrow(/line 1, column 10: it ends too early/);
  expect(jsonMistake("[".repeat(200_000))).toBe(200_000);
  expect(() => parseJsonBody('{"a": {"__proto__": {}}}')).toThrow(/__proto__/);
});
