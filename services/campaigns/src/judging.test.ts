import type { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import { expect, test } from "vitest";
import {
  calibrate,
  couldChange,
  decide,
  ensembleOpinion,
  labelProbability,
  measureReliability,
  type Opinion,
  type Reliability,
  verdictOf,
} from "./judging.js";
import { defaultSettings } from "./settings.js";

const labels = ["a", "b"];
const gold = Array.from({ length: 40 }, (_, index) => ({ id: `g${index}`, output: labels[index % 2] as string }));
const opinion = (rowId: string, answer: string): Opinion => ({ rowId, answer, scores: [] });

/** Belief in label "a" after one checker said `answer`, by a checker that answered the gold rows with `answers`. */
function beliefAfter(answer: string, answers: (row: { output: string }, index: number) => string): number {
  const reliability = measureReliability(
    gold,
    gold.map((row, index) => opinion(row.id, answers(row, index))),
    labels,
  );
  return labelProbability("a", [
    { verdict: verdictOf("teacher", "a", opinion("c", answer), reliability), reliability },
  ]);
}

test("a checker that is right on gold rows decides, and one that guesses moves nothing", () => {
  const right = (row: { output: string }) => row.output;
  expect(beliefAfter("a", right)).toBeGreaterThan(0.9);
  expect(beliefAfter("b", right)).toBeLessThan(0.2);
  const guess = (_: object, index: number) => labels[Math.floor(index / 2) % 2] as string;
  expect(beliefAfter("a", guess)).toBeCloseTo(0.6, 1);
  expect(beliefAfter("b", guess)).toBeCloseTo(0.6, 1);
});

test("a checker that wavers moves belief less than one that is sure", () => {
  const reliability = measureReliability(
    gold,
    gold.map((row) => opinion(row.id, row.output)),
    labels,
  );
  const belief = (share: number) => {
    const scores = [
      { label: "a", logProbability: Math.log(share) },
      { label: "b", logProbability: Math.log(1 - share) },
    ];
    const verdict = verdictOf("students", "a", { rowId: "c", answer: share > 0.5 ? "a" : "b", scores }, reliability);
    return labelProbability("a", [{ verdict, reliability }]);
  };
  const beliefs = [0.99, 0.7, 0.5, 0.3, 0.01].map(belief);
  expect(beliefs).toEqual([...beliefs].sort((x, y) => y - x));
  expect(belief(0.5)).toBeCloseTo(0.6, 1);
  expect(belief(0.99)).toBeGreaterThan(0.9);
});

test("a checker that always says the same label is worth nothing for it", () => {
  expect(Math.abs(beliefAfter("a", () => "a") - 0.6)).toBeLessThan(0.05);
});

test("a label without gold rows falls back to the checker's overall record", () => {
  const reliability = measureReliability(
    gold,
    gold.map((row) => opinion(row.id, row.output)),
    [...labels, "c"],
  );
  expect(reliability.hit.get("c")).toBeGreaterThan(0.9);
});

test("the students' opinion is the mean of their distributions", () => {
  const scores = (a: number) => [
    { label: "a", logProbability: Math.log(a) },
    { label: "b", logProbability: Math.log(1 - a) },
  ];
  const together = ensembleOpinion("r", [scores(0.9), scores(0.4), scores(0.4)]);
  expect(together.answer).toBe("a");
  expect(Math.exp(together.scores[0]?.logProbability ?? 0)).toBeCloseTo(0.5667, 3);
});

function candidate(number: number, output: string, probability: number, rejection = ""): Candidate {
  const rest = {
    iteration: 0,
    seedRowId: "s",
    wrongAnswer: "",
    callId: "",
    teacherProfile: "",
    input: "x",
    messages: [],
    overlap: undefined,
    verdicts: [],
    maxRougeL: 0,
    rowId: "",
  };
  return { number, output, probability, accepted: false, rejection, ...rest };
}

test("the likeliest candidates of each label are accepted, doubted ones never, in their own order", () => {
  const decided = decide(
    [
      candidate(0, "a", 0.6),
      candidate(1, "a", 0.9),
      candidate(2, "a", 0.7),
      candidate(3, "b", 0.3),
      candidate(4, "b", 1, "unparseable"),
    ],
    { ...defaultSettings, acceptProbability: 0.5 },
    new Map([
      ["a", 2],
      ["b", 5],
    ]),
  );
  expect(decided.map((one) => [one.number, one.accepted, one.rejection])).toEqual([
    [0, false, "not_needed"],
    [1, true, ""],
    [2, true, ""],
    [3, false, "label_doubted"],
    [4, false, "unparseable"],
  ]);
});

test("calibration takes out a favourite label, and a row does not calibrate itself", () => {
  const favours = (rowId: string, a: number): Opinion => ({
    rowId,
    answer: "a",
    scores: [
      { label: "a", logProbability: Math.log(a) },
      { label: "b", logProbability: Math.log(1 - a) },
    ],
  });
  // It says "a" to everything, but less firmly where "b" is right.
  const rows = gold.slice(0, 8);
  const known = rows.map((row) => favours(row.id, row.output === "a" ? 0.95 : 0.7));
  expect(calibrate(known, known, rows).map((opinion) => opinion.answer)).toEqual(rows.map((row) => row.output));
  expect(calibrate([favours("new", 0.75)], known, rows)[0]?.answer).toBe("b");
  expect(calibrate([opinion("plain", "a")], known, rows)).toEqual([opinion("plain", "a")]);
  expect(calibrate(known.slice(0, 1), known.slice(0, 1), rows)).toEqual(known.slice(0, 1));
});

test("what is accepted is the same where a check is left out that could not change it", () => {
  let state = 1;
  const random = () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
  const record = (): Reliability => ({
    hit: new Map(labels.map((label) => [label, 0.05 + 0.9 * random()])),
    falseAlarm: new Map(labels.map((label) => [label, 0.05 + 0.9 * random()])),
  });
  let asked = 0;
  let all = 0;
  for (let round = 0; round < 500; round += 1) {
    const [students, teacher] = [record(), record()];
    const threshold = 0.05 + 0.9 * random();
    const verdict = () => ({ checker: "", answer: "", labelProbability: random(), reliability: 0 });
    const drawn = Array.from({ length: 20 }, (_, number) => {
      const output = labels[Math.floor(random() * labels.length)] ?? "";
      const first = { verdict: verdict(), reliability: students };
      return { number, output, first, second: { verdict: verdict(), reliability: teacher } };
    });
    const wanted = new Map(random() < 0.5 ? [["a", Math.floor(random() * 12)]] : []);
    const competes = (output: string) =>
      drawn.filter((one) => one.output === output).length > (wanted.get(output) ?? Infinity);
    const accepted = (askAll: boolean) => {
      const candidates = drawn.map(({ number, output, first, second }) => {
        const asks = askAll || couldChange(output, [first], teacher, threshold, competes(output));
        if (!askAll) [asked, all] = [asked + Number(asks), all + 1];
        const probability = labelProbability(output, asks ? [first, second] : [first]);
        return { number, output, probability, rejection: "" } as Candidate;
      });
      const settings = { ...defaultSettings, acceptProbability: threshold };
      return decide(candidates, settings, wanted).map(({ number, accepted }) => [number, accepted]);
    };
    expect(accepted(false)).toEqual(accepted(true));
  }
  // And it is worth it.
  expect(asked / all).toBeLessThan(0.8);
});
