import { Disputes } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { assignFolds, difficulty, mine, openDisputes, settle } from "./mining.js";

function row(id: string, output: string): Row {
  const rest = { messages: [], rootRowId: "", parentRowId: "", iteration: 0, metadata: {} };
  return { id, input: `input ${id}`, output, split: Split.TRAIN, origin: RowOrigin.SEED, ...rest };
}

const rows = Array.from({ length: 30 }, (_, index) => row(`r${index}`, ["a", "b", "c"][index % 3] as string));

test("folds hold every label evenly and are the same for the same seed", () => {
  const folds = assignFolds(rows, 3, 7);
  for (const label of ["a", "b", "c"]) {
    const sizes = [0, 1, 2].map(
      (fold) => rows.filter((one) => one.output === label && folds.get(one.id) === fold).length,
    );
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
  }
  expect(assignFolds([...rows].reverse(), 3, 7)).toEqual(folds);
  expect([...assignFolds(rows, 3, 8)].sort()).not.toEqual([...folds].sort());
});

test("folds of few rows with many labels are even in size too", () => {
  const few = rows.slice(0, 7).map((one, index) => ({ ...one, output: `label ${index}` }));
  const folds = assignFolds(few, 3, 1);
  const sizes = [0, 1, 2].map((fold) => [...folds.values()].filter((one) => one === fold).length);
  expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
});

test("mining joins rows with predictions whatever their order, and measures difficulty", () => {
  const prediction = { expected: "", tooLong: false, disputed: false, logProbability: 0 };
  const mined = mine(rows.slice(0, 2), [
    { ...prediction, rowId: "r1", text: " b?", answer: "", correct: false, labelScores: [] },
    {
      ...prediction,
      rowId: "r0",
      text: "a",
      answer: "a",
      correct: true,
      labelScores: [{ label: "a", logProbability: Math.log(0.75) }],
    },
  ]);
  expect(mined.map((one) => [one.row.id, one.correct, one.answer])).toEqual([
    ["r0", true, "a"],
    ["r1", false, " b?"],
  ]);
  expect(mined.map(difficulty)).toEqual([0.25, 1]);
});

test("a row that the student's context cannot hold is not an error", () => {
  const rest = { text: "", answer: "", expected: "a", correct: false, disputed: false, logProbability: 0 };
  const long = { ...rest, rowId: "r0", labelScores: [] };
  expect(mine(rows.slice(0, 1), [{ ...long, tooLong: true }])).toEqual([]);
});

test("a disputed row is set aside unless a reading is to decide", () => {
  const [first, second, third] = rows as [Row, Row, Row];
  const one = { answer: "18", text: "18, and 2 are left", expectedLogProbability: undefined };
  const mined = [
    { ...one, row: first, correct: true, disputed: true },
    { ...one, row: second, correct: false, disputed: true },
    { ...one, row: third, correct: false, disputed: false },
  ];
  const outcome = (disputes: Disputes) => {
    const aside = openDisputes(mined, disputes);
    const graded = settle(mined, new Set(aside), disputes);
    return [graded.map(({ row, correct, answer }) => [row.id, correct, answer]), aside];
  };
  expect(outcome(Disputes.ASIDE)).toEqual([[["r2", false, "18"]], ["r0", "r1"]]);
  const strict = [
    ["r0", true, "18"],
    ["r1", false, "18"],
    ["r2", false, "18"],
  ];
  expect(outcome(Disputes.STRICT)).toEqual([strict, []]);
  const lenient = [
    ["r0", false, one.text],
    ["r1", true, one.text],
    ["r2", false, "18"],
  ];
  expect(outcome(Disputes.LENIENT)).toEqual([lenient, []]);
});
