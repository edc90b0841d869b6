import { Grader, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { describe, expect, test } from "vitest";
import { gradePrediction } from "./gradedprediction.js";
import { graders, gradingOf } from "./grader.js";

function task(labels: string[] = [], kind = TaskKind.TEXT, grader = Grader.UNSPECIFIED): Task {
  return Task.fromPartial({ kind, grader, labels: labels.map((name) => ({ name })) });
}

describe("final number", () => {
  test.each<[string, string | undefined]>([
    ["18", "18"],
    ["The answer is 18.", "18"],
    ["#### 18", "18"],
    ["3 + 4 = 7 apples.\n#### 7", "7"],
    ["#### 18\n\nQuestion: Tom has 5 pens", "18"],
    ["####  $1,234.50 ", "1234.5"],
    ["-5", "-5"],
    ["\u22125", "-5"],
    ["–5 degrees", "-5"],
    ["x = - 5", "-5"],
    ["+5", "5"],
    ["-0", "0"],
    ["10-5", "5"],
    ["pages 3-5", "5"],
    ["5.0", "5"],
    ["5.", "5"],
    [".5", "0.5"],
    ["-.50", "-0.5"],
    ["007", "7"],
    ["0.1000", "0.1"],
    ["1,234", "1234"],
    ["1,234,567.89", "1234567.89"],
    ["1\u202F234\u202F567", "1234567"],
    ["1'234", "1234"],
    ["1, 2, 3", "3"],
    ["12,34", "34"],
    ["$5", "5"],
    ["-$5", "-5"],
    ["$-5", "-5"],
    ["€ 7.25", "7.25"],
    ["£3 each", "3"],
    ["50%", "50"],
    ["50 %.", "50"],
    ["\\boxed{42}", "42"],
    ["So \\boxed{-3.50}, because 2 of 9 remain", "-3.5"],
    ["\\boxed{1{,}000}", "1000"],
    ["\\boxed{\\frac{1}{3}}", "1/3"],
    ["\\$20", "20"],
    ["3/4", "0.75"],
    ["2/6", "1/3"],
    ["-1/3", "-1/3"],
    ["1/0 and 4", "4"],
    ["1e3", "1000"],
    ["2.5e-3", "0.0025"],
    ["5kg", "5"],
    ["12 m2", "12"],
    ["7 H2O", "7"],
    ["１８", "18"],
    ["(5)", "5"],
    ["**72**", "72"],
    ["12345678901234567890", "12345678901234567890"],
    ["0.1234567890123456789", "0.1234567890123456789"],
    ["no number", undefined],
    ["", undefined],
    ["abc123", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(graders[Grader.FINAL_NUMBER].read(text, task())).toBe(expected);
  });

  test.each<[string, string, boolean]>([
    ["5.0", "5", true],
    ["-5", "5", false],
    ["0.1", "0.10", true],
    ["0.30000000000000004", "0.3", false],
    ["1,000", "1000", true],
    ["She pays $18.00.", "9 * 2 = 18\n#### 18", true],
    ["9007199254740993", "9007199254740992", false],
    ["18", "81", false],
  ])("%j against %j is %j", (answer, expected, right) => {
    expect(correct(answer, expected, task([], TaskKind.MATH))).toBe(right);
  });
});

describe("choice letter", () => {
  test.each<[string, string | undefined]>([
    ["B", "B"],
    ["b", "B"],
    ["(B)", "B"],
    ["B.", "B"],
    ["b)", "B"],
    ["[C]", "C"],
    ["**D**", "D"],
    [" A \n", "A"],
    ["Answer: B", "B"],
    ["answer: b", "B"],
    ["The answer is (C).", "C"],
    ["The correct answer is option D", "D"],
    ["the answer is c.", "C"],
    ["B. Paris", "B"],
    ["B) because a dog", "B"],
    ["(b) Paris", "B"],
    ["C: the sea", "C"],
    ["B because it is larger", "B"],
    ["B\n\nQuestion: what else", "B"],
    ["Let me think.\nB", "B"],
    ["It cannot be the first, so (D) it is", "D"],
    ["\\boxed{A}", "A"],
    ["A. is wrong. Answer: C", "C"],
    ["Answer: A. No, the answer is B.", "B"],
    ["（Ｂ）", "B"],
    ["the answer is a dog", undefined],
    ["A dog", undefined],
    ["I think so", undefined],
    ["(A) or (B)", undefined],
    ["Paris", undefined],
    ["42", undefined],
    ["", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(graders[Grader.CHOICE_LETTER].read(text, task())).toBe(expected);
  });
});

describe("label", () => {
  const labels = ["positive", "negative", "Very Good", "C++", "c", "yes!"];
  test.each<[string, string | undefined]>([
    ["positive", "positive"],
    [" Positive ", "positive"],
    ["POSITIVE.", "positive"],
    ['"positive"', "positive"],
    ["**negative**", "negative"],
    ["very  good", "Very Good"],
    ["negative\nReview: more", "negative"],
    ["C++", "C++"],
    ["c++.", "C++"],
    ["C", "c"],
    ["yes", "yes!"],
    ["yes!", "yes!"],
    ["neutral", undefined],
    ["positively", undefined],
    ["positive or negative", undefined],
    ["", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(graders[Grader.LABEL].read(text, task(labels))).toBe(expected);
  });

  test("labels that differ only in case are told apart when written exactly, and not guessed else", () => {
    const twins = task(["us", "US"]);
    expect(graders[Grader.LABEL].read("US", twins)).toBe("US");
    expect(graders[Grader.LABEL].read("Us", twins)).toBeUndefined();
  });

  test("an answer outside the set is wrong and empty", () => {
    const { graded, grade } = gradePrediction(prediction("neutral"), "positive", task(labels, TaskKind.CLASSIFICATION));
    expect(graded).toMatchObject({ text: "neutral", answer: "", correct: false });
    expect(grade.answer).toBeUndefined();
  });
});

describe("normalized text", () => {
  test.each<[string, string, boolean]>([
    ["The Eiffel Tower.", "eiffel tower", true],
    ["  a   cat ", "Cat", true],
    ["ﬁne", "fine", true],
    ["Straße", "STRASSE", true],
    ["ΣΊΣΥΦΟΣ", "σίσυφος", true],
    ["don't", "dont", true],
    ["théâtre", "theatre", false],
    ["theatre", "atre", false],
    ["anna", "nna", false],
    ["The", "the", true],
    ["The", "a", false],
    ["5 apples", "6 apples", false],
    ["Café", "Cafe\u0301", true],
    ["...", "…", false],
    ["", "x", false],
  ])("%j against %j is %j", (answer, expected, right) => {
    expect(correct(answer, expected, task())).toBe(right);
  });
});

describe("exact", () => {
  test.each<[string, string, boolean]>([
    ["x = 1;", "x = 1;", true],
    ["x = 1; ", "x = 1;", false],
    ["X", "x", false],
    ["Café", "Cafe\u0301", false],
  ])("%j against %j is %j", (answer, expected, right) => {
    expect(correct(answer, expected, task([], TaskKind.TEXT, Grader.EXACT))).toBe(right);
  });
});

test("the grader follows from the kind unless the task names one", () => {
  expect(gradingOf(task(["a", "b"], TaskKind.CLASSIFICATION))).toBe(graders[Grader.LABEL]);
  expect(gradingOf(task([], TaskKind.MULTIPLE_CHOICE))).toBe(graders[Grader.CHOICE_LETTER]);
  expect(gradingOf(task([], TaskKind.MATH))).toBe(graders[Grader.FINAL_NUMBER]);
  expect(gradingOf(task([], TaskKind.TEXT))).toBe(graders[Grader.NORMALIZED_TEXT]);
  expect(gradingOf(task([], TaskKind.MATH, Grader.EXACT))).toBe(graders[Grader.EXACT]);
});

test("a row beyond the context is wrong even where an empty answer would be right", () => {
  const { graded } = gradePrediction({ ...prediction(""), tooLong: true }, "", task([], TaskKind.TEXT, Grader.EXACT));
  expect(graded.correct).toBe(false);
});

function prediction(text: string) {
  return { rowId: "r", text, logProbability: 0, labelScores: [], tooLong: false };
}

function correct(answer: string, expected: string, of: Task): boolean {
  return gradePrediction(prediction(answer), expected, of).graded.correct;
}
