import { FieldType, Grader, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { gradePrediction } from "./gradedprediction.js";
import { gradingOf } from "./grader.js";

const task = Task.fromPartial({
  kind: TaskKind.EXTRACTION,
  fields: [
    { name: "city", type: FieldType.STRING },
    { name: "guests", type: FieldType.NUMBER, optional: true },
    { name: "pets", type: FieldType.BOOLEAN, optional: true },
    { name: "extras", type: FieldType.STRING_LIST, optional: true },
  ],
});
const grading = gradingOf(task);

test.each<[string, string, string | undefined]>([
  ["plain", '{"city": "Bern"}', '{"city": "Bern"}'],
  ["in a fence", '```json\n{\n  "city": "Bern"\n}\n```', '{"city": "Bern"}'],
  ["between prose with braces", 'Sure {ok}: {"city": "Bern"} {bye}', '{"city": "Bern"}'],
  ["in an array", '[{"city": "Bern"}, {"city": "Rome"}]', '{"city": "Bern"}'],
  ["in an envelope", '{"result": {"city": "Bern"}}', '{"city": "Bern"}'],
  ["after an object of something else", '{"note": 1} {"city": "Bern"}', '{"city": "Bern"}'],
  [
    "with trailing commas",
    '{"city": "Bern", "extras": ["cot", "tea",],}',
    '{"city": "Bern", "extras": ["cot", "tea"]}',
  ],
  ["in declared order, nulls left out", '{"guests": null, "x": 1, "city": "B"}', '{"city": "B", "x": 1}'],
  ["with Python's words", '{"city": "Bern", "pets": True, "guests": None}', '{"city": "Bern", "pets": true}'],
  ["with a raw line break", '{"city": "Bern\nWest"}', '{"city": "Bern\\nWest"}'],
  [
    "with every digit",
    '{"city": "B", "guests": 12345678901234567890}',
    '{"city": "B", "guests": 12345678901234567890}',
  ],
  ["empty object", "{}", "{}"],
  ["a key twice", '{"city": "Bern", "city": "Rome"}', undefined],
  ["cut off", '{"city": "Bern", "guests": ', undefined],
  ["no object", "Bern, two guests", undefined],
  ["a list", '["Bern"]', undefined],
  ["nothing", "", undefined],
  ["nothing but braces", "{".repeat(100_000), undefined],
  ["nested without end", '{"a":'.repeat(5_000), undefined],
])("an answer %s is read", (_, text, expected) => {
  expect(grading.read(text, task)).toBe(expected);
});

test.each<[string, string, string, boolean]>([
  ["case, punctuation, articles", '{"city": "the BERN!"}', '{"city": "Bern"}', true],
  ["composed and decomposed", '{"city": "Zu\u0308rich"}', '{"city": "Z\u00fcrich"}', true],
  ["escaped and written out", '{"city": "Z\\u00fcrich"}', '{"city": "Zürich"}', true],
  ["another script", '{"city": "東京"}', '{"city": "京都"}', false],
  ["signs in texts", '{"city": "-5"}', '{"city": "5"}', false],
  ["points in texts", '{"city": "1.5 km"}', '{"city": "15 km"}', false],
  ["thousands in texts", '{"city": "1,000 islands"}', '{"city": "1000 islands"}', true],
  ["numbers by value", '{"city": "B", "guests": 2.50}', '{"city": "B", "guests": 2.5}', true],
  ["numbers with exponent", '{"city": "B", "guests": 1e3}', '{"city": "B", "guests": 1000}', true],
  ["a number as text", '{"city": "B", "guests": "1,000"}', '{"city": "B", "guests": 1000}', true],
  ["signs of numbers", '{"city": "B", "guests": -5}', '{"city": "B", "guests": 5}', false],
  ["zero and nothing", '{"city": "B", "guests": 0}', '{"city": "B"}', false],
  ["null and nothing", '{"city": "B", "guests": null}', '{"city": "B"}', true],
  ["words for a number", '{"city": "B", "guests": "two"}', '{"city": "B", "guests": 2}', false],
  ["a boolean as text", '{"city": "B", "pets": "True"}', '{"city": "B", "pets": true}', true],
  ["a boolean as number", '{"city": "B", "pets": 1}', '{"city": "B", "pets": true}', false],
  ["lists as sets", '{"city": "B", "extras": ["Tea", "cot", "tea"]}', '{"city": "B", "extras": ["cot", "tea"]}', true],
  ["a part of a list", '{"city": "B", "extras": ["cot"]}', '{"city": "B", "extras": ["cot", "tea"]}', false],
  ["one text for a list of one", '{"city": "B", "extras": "cot"}', '{"city": "B", "extras": ["cot"]}', true],
  ["an empty list and none", '{"city": "B", "extras": []}', '{"city": "B"}', false],
  ["a missing field", '{"guests": 2}', '{"city": "B", "guests": 2}', false],
  ["an undeclared field", '{"city": "B", "hotel": "Ritz"}', '{"city": "B"}', false],
  ["an object for a text", '{"city": {"name": "B"}}', '{"city": "B"}', false],
  ["an empty text", '{"city": ""}', '{"city": "B"}', false],
  ["both empty", '{"city": ""}', '{"city": ""}', true],
])("%s", (_, answer, expected, right) => {
  const prediction = { rowId: "r", text: answer, logProbability: 0, labelScores: [], tooLong: false };
  expect(gradePrediction(prediction, expected, task).graded.correct).toBe(right);
});

test.each<[string, number, boolean]>([
  ["the bike is in the shed", 0, true],
  ["THE BIKE, is in the shed!", 1, true],
  ["a bike stands in a garage", 0, false],
  ["a bike is in the garage", 0, true],
  ["a bike is in the garage", 0.9, false],
  ["", 0, false],
  ["…", 0, false],
])("free text %j at a threshold of %d", (text, rougeLThreshold, right) => {
  const graded = gradePrediction(
    { rowId: "r", text, logProbability: 0, labelScores: [], tooLong: false },
    "the bike is in the shed",
    Task.fromPartial({ kind: TaskKind.TEXT, grader: Grader.ROUGE_L, rougeLThreshold }),
  ).graded;
  expect(graded.correct).toBe(right);
  expect(graded.rougeL).toBeGreaterThanOrEqual(0);
  if (right) expect(graded.rougeL).toBeGreaterThanOrEqual(rougeLThreshold || 0.5);
});
