import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { describe, expect, test } from "vitest";
import { readFinalNumber, readLastNumber, readMarkedNumber } from "./finalnumber.js";
import { gradePrediction } from "./gradedprediction.js";

describe("the strict reader takes what the text marks as its answer", () => {
  test.each<[string, string | undefined]>([
    ["The answer is 18.", "18"],
    ["the answer is: 18", "18"],
    ["The final answer is $18.00, which is less than $20.", "18"],
    ["So the correct answer is 7 of the 12 eggs.", "7"],
    ["Answer: 42 apples (6 boxes of 7)", "42"],
    ["**Answer:** 42", "42"],
    ["Answer = 3/4", "0.75"],
    ["The answer is 3 + 4 = 7", "7"],
    ["The answer is 18. This leaves 20 - 18 = 2.", "18"],
    ["The answer is 5, since 2 * 5 = 10.", "5"],
    ["The answer is 18 (= 3 * 6).", "18"],
    ["The answer is 60 mph = 1 mile per minute", "60"],
    ["The answer is $3.50 + $1.25 = $4.75.", "4.75"],
    ["The answer is (3 + 4) * 2 = 14", "14"],
    ["She has 18.\n\nQuestion: Tom has 5.\n#### 5", undefined],
    ["#### Step 1: 3 * 4 = 12\nThe answer is 18", "18"],
    ["The answer is x = 5", "5"],
    ["The answer is -3 degrees", "-3"],
    ["First the answer is 5? No. The answer is 6.", "6"],
    ["The answer is 18.\n\nQuestion: Tom has 5 pens. How many?\nThe answer is 5.", "18"],
    ["#### 18", "18"],
    ["#### 18 (and 3 are left)", "18"],
    ["#### 3 * 6 = 18", "18"],
    ["#### 18\n#### 5", "18"],
    ["The answer is 17.\n#### 18", "18"],
    ["\\boxed{18}", "18"],
    ["\\boxed{3 \\text{ apples}}", "3"],
    ["\\boxed{x = \\frac{1}{2}}", "0.5"],
    ["\\fbox{12}", "12"],
    ["\\boxed{\\text{none}} but \\boxed{4}", "4"],
    ["We get \\boxed{2}, and then \\boxed{9}.", "9"],
    ["She has 18 left.", undefined],
    ["18", undefined],
    ["The answer is clear.", undefined],
    ["Answers are on page 3", undefined],
    ["", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(readMarkedNumber(text)).toBe(expected);
  });
});

describe("the lenient reader takes the last number", () => {
  test.each<[string, string | undefined]>([
    ["The answer is 18, which is 2 less than 20.", "20"],
    ["5 + 6 = 11", "11"],
    ["She has 18 left.", "18"],
    ["She has 18 left.\nQuestion: Tom has 5 pens.", "18"],
    ["Question: Tom has 5 pens.", "5"],
    ["none", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(readLastNumber(text)).toBe(expected);
  });
});

describe("a number however it is written", () => {
  test.each<[string, string | undefined]>([
    ["1 1/2 cups", "1.5"],
    ["2 3/4", "2.75"],
    ["-1 1/2", "-1.5"],
    ["1\u00BD", "1.5"],
    ["\u00BE", "0.75"],
    ["1\\frac{1}{2}", "1.5"],
    ["\\frac12", "0.5"],
    ["7 6/3", "2"],
    ["1.5 x 10^3", "1500"],
    ["1.5 \u00D7 10^{-2}", "0.015"],
    ["2 \\times 10^4", "20000"],
    ["3 * 10**2", "300"],
    ["3 million", "3000000"],
    ["$2.5 million", "2500000"],
    ["3 Millions", "3000000"],
    ["In 2020 1/2 of them left", "0.5"],
    ["12 thousand people", "12000"],
    ["4k", "4000"],
    ["4kg", "4"],
    ["4 km", "4"],
    ["6 millionaires", "6"],
    ["$1,234.50", "1234.5"],
    ["1,234,567", "1234567"],
    ["\u20AC5", "5"],
    ["25%", "25"],
    ["25 percent", "25"],
    ["10\u201315", "15"],
    ["it fell by -7.25%", "-7.25"],
    ["= -4", "-4"],
    ["(-4)", "-4"],
    ["5.", "5"],
    ["5...", "5"],
    ["5!", "5"],
    ["It is 18\u2014no more.", "18"],
    ["18 - 3", "3"],
    ["18-3=15", "15"],
    ["1e-3", "0.001"],
    ["0.000", "0"],
    ["3.0/4.0", "4"],
    ["v2", undefined],
    ["H2O", undefined],
  ])("%j reads as %j", (text, expected) => {
    expect(readFinalNumber(text)).toBe(expected);
  });
});

/**
 * What users of a well-known evaluation harness reported (lm-evaluation-harness
 * 1159, 3438, 2552), in our own words: a right answer that is graded wrong
 * because a currency sign, a full stop or a thousands separator stands at it, or
 * because the text goes on after it; a wrong one that is graded right because a
 * number of the working happens to be the last.
 */
describe("published complaints", () => {
  test.each<[string, string, boolean]>([
    ["The answer is $18.", "#### 18", true],
    ["The answer is 18.00 dollars.", "#### 18", true],
    ["The answer is 1,080.", "#### 1080", true],
    ["The answer is 1080", "#### 1,080", true],
    ["The answer is **18**.", "#### 18", true],
    ["So she makes $18 every day at the market.", "#### 18", true],
    ["The answer is 18.\n\nQ: There are 15 trees. How many?\nA: The answer is 6.", "#### 18", true],
    ["#### 18\n\n\n#### 20", "#### 18", true],
    ["The answer is 5.", "#### -5", false],
    ["The answer is 20. (Not 18.)", "#### 18", false],
    ["20 is what he pays; the answer is 2, as 20 - 18 = 2.", "#### 18", false],
    ["I do not know.", "#### 18", false],
    ["", "#### 18", false],
    ["The answer is 18 or 19.", "#### 19", false],
  ])("%j against %j is %j", (text, expected, right) => {
    expect(graded(text, expected).correct).toBe(right);
  });
});

describe("a dispute is an answer that two readings grade differently", () => {
  test.each<[string, string, boolean, boolean]>([
    // Text, expected, right by the strict reading, disputed.
    ["The answer is 18, and 2 are left.", "#### 18", true, true],
    ["The answer is 20, as 2 + 18 = 20. So he sold 18", "#### 18", false, true],
    ["The answer is 18.", "#### 18", true, false],
    ["She has 18 left.", "#### 18", true, false],
    ["The answer is 3, and 2 are left.", "#### 18", false, false],
    ["no number", "#### 18", false, false],
  ])("%j against %j", (text, expected, correct, disputed) => {
    expect(graded(text, expected)).toMatchObject({ correct, disputed });
  });

  test("a row beyond the context is none", () => {
    expect(graded("The answer is 18, and 2 are left.", "18", true)).toMatchObject({ correct: false, disputed: false });
  });
});

// Read in time that grows with the square of its length, the test would not end.
test.each(["1/9", "9.", "1 ", "\\boxed{", "answer is ", "\n \n", "1,", "{1}", "- ", "10^", "9"])(
  "a long text of %j is read",
  (part) => {
    readFinalNumber(part.repeat(20_000));
  },
);

function graded(text: string, expected: string, tooLong = false) {
  const task = Task.fromPartial({ kind: TaskKind.MATH });
  return gradePrediction({ rowId: "r", text, logProbability: 0, labelScores: [], tooLong }, expected, task).graded;
}
