import { ExtractionField, FieldType } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { readFields, requireFields } from "./extraction.js";
import { JsonNumber, jsonText, objectsIn, wholeObject } from "./jsontext.js";

const field = (name: string, type: FieldType, optional = false) =>
  ExtractionField.fromPartial({ name, type, optional });
const fields = [
  field("city", FieldType.STRING),
  field("guests", FieldType.NUMBER, true),
  field("pets", FieldType.BOOLEAN, true),
  field("extras", FieldType.STRING_LIST, true),
];

test.each<[string, string]>([
  ['{"guests":2,"city":"Bern"}', '{"city": "Bern", "guests": 2}'],
  [' {"city": "Bern", "guests": null}\n', '{"city": "Bern"}'],
  ['{"city": "", "extras": []}', '{"city": "", "extras": []}'],
  ['{"city": "a \\"quoted\\" {brace}", "guests": -0.50}', '{"city": "a \\"quoted\\" {brace}", "guests": -0.50}'],
])("%s is stored as %s", (output, stored) => {
  expect(readFields(output, fields)).toEqual({ output: stored });
});

test.each<[string, string, RegExp]>([
  ["Bern", "", /not a JSON object.*"city", "guests"/],
  ['```{"city": "Bern"}```', "", /not a JSON object/],
  ['[{"city": "Bern"}]', "", /not a JSON object/],
  ['{"city": "Bern"} {"city": "Rome"}', "", /not a JSON object/],
  ["{}", "city", /is missing; give a string/],
  ['{"city": null}', "city", /is missing/],
  ['{"city": 3}', "city", /is 3; write it as text/],
  ['{"city": {"name": "Bern"}}', "city", /write it as text/],
  ['{"city": "Bern", "guests": "1,000"}', "guests", /is "1,000"; write a number/],
  ['{"city": "Bern", "guests": true}', "guests", /write a number/],
  ['{"city": "Bern", "pets": "yes"}', "pets", /write true or false/],
  ['{"city": "Bern", "extras": "cot"}', "extras", /write a list of texts/],
  ['{"city": "Bern", "extras": ["cot", 2]}', "extras", /write a list of texts/],
  ['{"city": "Bern", "hotel": "Ritz"}', "hotel", /is not declared; leave it out/],
  ['{"City": "Bern"}', "City", /is not declared/],
  ['{"city": "Bern", "city": "Bern"}', "city", /is there twice/],
])("%s is refused: %s", (output, wrong, message) => {
  expect(readFields(output, fields)).toEqual({ problem: { field: wrong, message: expect.stringMatching(message) } });
});

test.each<[Parameters<typeof requireFields>[0], RegExp]>([
  [[field("", FieldType.STRING)], /^f\[0\]\.name: is empty/],
  [[field("a", FieldType.STRING), field("a", FieldType.NUMBER)], /^f\[1\]\.name: repeats "a"/],
  [[field("a", FieldType.UNSPECIFIED)], /^f\[0\]\.type: is not set/],
  [Array.from({ length: 65 }, (_, i) => field(`f${i}`, FieldType.STRING)), /at most 64/],
])("declarations %#", (declared, message) => {
  expect(() => requireFields(declared, "f")).toThrow(message);
});

test.each<[string, string[]]>([
  ['{"a": 1} and {"b": [true, null, "x"]}', ['{"a": 1}', '{"b": [true, null, "x"]}']],
  ['{"a": {"b": 2}}', ['{"a": {"b": 2}}', '{"b": 2}']],
  ['{"a": "\\ud83d\\ude00 \\/ \\t"}', ['{"a": "😀 / \\t"}']],
  ['{"a": "\\u12"}', []],
  ['{"a": 01}', []],
  ['{"a": 1.}', []],
  ['{"a": +1}', []],
  ['{"a": nope}', []],
  ["{'a': 1}", []],
  ['{"a" 1}', []],
  ['{"a": 1 "b": 2}', []],
  ['{,"a": 1}', []],
  ["{}", ["{}"]],
])("objects in %j", (text, expected) => {
  expect([...objectsIn(text)].map(jsonText)).toEqual(expected);
});

test("numbers keep their form, and what follows an object makes it no whole one", () => {
  const object = wholeObject(' {"n": 1.50e2}\n');
  expect(object?.members.get("n")).toEqual(new JsonNumber("1.50e2"));
  expect(wholeObject('{"n": 1} x')).toBeUndefined();
});
