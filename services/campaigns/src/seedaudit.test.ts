import { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { expect, test } from "vitest";
import { measureReliability, type Opinion } from "./judging.js";
import { derivedSeed } from "./random.js";
import { doubts, suspects } from "./seedaudit.js";

const labels = ["a", "b", "c", "d", "e", "f"];

/** Uniform numbers from a seed (mulberry32, as published by its author in the public domain). */
function numbers(seed: number): () => number {
  let state = derivedSeed(seed, "test");
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rows of which a tenth is mislabelled, as students and a teacher of given skill see them. */
function world(seed: number, { rows, studentRight, teacherRight }: Record<string, number>) {
  const draw = numbers(seed);
  const other = (label: string) => labels.filter((one) => one !== label)[Math.floor(draw() * 5)] as string;
  const seen = (truth: string, right: number) => (draw() < right ? truth : other(truth));
  const seeds = Array.from({ length: rows ?? 0 }, (_, index) => {
    const truth = labels[index % labels.length] as string;
    const isFlipped = draw() < 0.1;
    return { id: `r${index}`, truth, isFlipped, output: isFlipped ? other(truth) : truth };
  });
  const predictions = seeds.map(({ id, truth }) => {
    const believed = seen(truth, studentRight ?? 1);
    const sure = 0.35 + 0.6 * draw();
    const labelScores = labels.map((label) => ({
      label,
      logProbability: Math.log(label === believed ? sure : (1 - sure) / 5),
    }));
    return GradedPrediction.fromPartial({ rowId: id, answer: believed, labelScores });
  });
  const opinions: Opinion[] = seeds.map(({ id, truth }) => ({
    rowId: id,
    answer: seen(truth, teacherRight ?? 1),
    scores: [],
  }));
  return { seeds, predictions, opinions };
}

function audit({ seeds, predictions, opinions }: ReturnType<typeof world>) {
  const students = predictions.map(({ rowId, answer, labelScores }) => ({ rowId, answer, scores: labelScores }));
  const teacher = measureReliability(seeds, opinions, labels);
  const suspected = suspects(seeds, predictions);
  const found = doubts(suspected, opinions, measureReliability(seeds, students, labels), teacher);
  const isFlipped = new Set(seeds.filter((row) => row.isFlipped).map(({ id }) => id));
  const hits = (rows: readonly { rowId: string }[]) => rows.filter(({ rowId }) => isFlipped.has(rowId)).length;
  return { flips: isFlipped.size, suspected, found, hits };
}

test.each([
  [0.9, 0.9, 0.95, 0.5],
  [0.7, 0.8, 0.7, 0.4],
  [0.5, 0.75, 0.5, 0.25],
])(
  "students right on %d and a teacher right on %d of the rows find planted flips: precision %d, recall %d",
  (studentRight, teacherRight, leastPrecision, leastRecall) => {
    const sum = { flips: 0, suspected: 0, suspectHits: 0, found: 0, hits: 0 };
    for (let draw = 0; draw < 40; draw += 1) {
      const one = audit(world(draw, { rows: 120, studentRight, teacherRight }));
      sum.flips += one.flips;
      sum.suspected += one.suspected.length;
      sum.suspectHits += one.hits(one.suspected);
      sum.found += one.found.length;
      sum.hits += one.hits(one.found);
    }
    const [precision, recall] = [sum.hits / sum.found, sum.hits / sum.flips];
    console.log(
      `students ${studentRight}, teacher ${teacherRight}: ${sum.flips} flips in 40 draws of 120 rows; students alone precision ` +
        `${(sum.suspectHits / sum.suspected).toFixed(2)}, recall ${(sum.suspectHits / sum.flips).toFixed(2)}; with the teacher ` +
        `precision ${precision.toFixed(2)}, recall ${recall.toFixed(2)}`,
    );
    expect(precision).toBeGreaterThan(leastPrecision);
    expect(recall).toBeGreaterThan(leastRecall);
  },
);

test("a teacher that answers at random brings no row into doubt", () => {
  const found = Array.from({ length: 20 }, (_, draw) =>
    audit(world(draw, { rows: 120, studentRight: 0.7, teacherRight: 1 / 6 })),
  );
  expect(found.reduce((sum, one) => sum + one.suspected.length, 0)).toBeGreaterThan(100);
  expect(found.reduce((sum, one) => sum + one.found.length, 0)).toBeLessThan(5);
});

const prediction = (rowId: string, given: Record<string, number>) =>
  GradedPrediction.fromPartial({
    rowId,
    labelScores: Object.entries(given).map(([label, p]) => ({ label, logProbability: Math.log(p) })),
  });

test("a label of which students are never sure needs less to be believed than one of which they always are", () => {
  const rows = [
    { id: "sure", output: "a" },
    { id: "also", output: "a" },
    { id: "vague", output: "b" },
    { id: "odd", output: "a" },
  ];
  const given = [
    prediction("sure", { a: 0.99, b: 0.01 }),
    prediction("also", { a: 0.97, b: 0.03 }),
    prediction("vague", { a: 0.6, b: 0.4 }),
    prediction("odd", { a: 0.55, b: 0.45 }),
  ];
  // "vague" is likelier a, but .6 is little for an a; "odd" is likelier a too, but .45 is much for a b.
  expect(suspects(rows, given)).toEqual([
    {
      rowId: "odd",
      output: "a",
      answer: "b",
      probability: expect.closeTo(0.45),
      outputProbability: expect.closeTo(0.55),
    },
  ]);
});

test("students that only answer contradict with the probability of their answer", () => {
  const answers = (rowId: string, answer: string, p: number) =>
    GradedPrediction.fromPartial({ rowId, answer, logProbability: Math.log(p) });
  const rows = ["1", "2", "3", "4"].map((id, index) => ({ id, output: index < 2 ? "A" : "B" }));
  const given = [answers("1", "A", 0.8), answers("2", "A", 0.8), answers("3", "B", 0.8), answers("4", "A", 0.9)];
  expect(suspects(rows, given).map(({ rowId }) => rowId)).toEqual(["4"]);
  expect(suspects(rows, given.slice(0, 3))).toEqual([]);
});

test("a teacher that names a third label does not say that the students are right", () => {
  const suspected = [{ rowId: "1", output: "a", answer: "b", probability: 0.9, outputProbability: 0.1 }];
  const record = {
    hit: new Map([
      ["b", 0.8],
      ["c", 0.8],
    ]),
    falseAlarm: new Map([
      ["b", 0.1],
      ["c", 0.1],
    ]),
  };
  const said = (answer: string) => [{ rowId: "1", answer, scores: [] }];
  expect(doubts(suspected, said("c"), record, record)).toEqual([]);
  expect(doubts(suspected, said("b"), record, record)).toMatchObject([{ rowId: "1", proposedOutput: "b" }]);
});
