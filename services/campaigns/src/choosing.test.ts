import { betterBeyondChance, chooseIteration, pairedGain, stopReason } from "@tutelage/platform/choosing";
import { proportion } from "@tutelage/platform/interval";
import type { Iteration } from "@tutelage/proto/campaigns/v1/campaigns";
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { expect, test } from "vitest";
import { defaultSettings } from "./settings.js";

function iteration(number: number, scores: { dev?: number; crossFit?: number }): Iteration {
  return {
    number,
    datasetVersionId: "",
    datasetDigest: "",
    trainRows: 0,
    trainingRunId: "",
    checkpoint: undefined,
    crossFitAccuracy: scores.crossFit === undefined ? undefined : proportion(scores.crossFit, 100),
    devAccuracy: scores.dev === undefined ? undefined : proportion(scores.dev, 100),
    testAccuracy: undefined,
    errors: 0,
    candidates: 0,
    accepted: 0,
    rejected: {},
    seconds: 0,
    phaseSeconds: {},
    mined: true,
    overlapsByKind: {},
  };
}
const byDev = (...scores: number[]) => scores.map((dev, number) => iteration(number, { dev }));
const byFit = (...scores: number[]) => scores.map((crossFit, number) => iteration(number, { crossFit }));

test("by dev rows the best iteration is chosen, the later of equals", () => {
  expect(chooseIteration(byDev(50, 70, 60))?.number).toBe(1);
  expect(chooseIteration(byDev(50, 70, 70))?.number).toBe(2);
});

/** Seed rows of which some changed: the newly right, the newly wrong, then those that stayed right. */
function changed(newlyRight: number, newlyWrong: number, stayed: number) {
  const was = [...Array(newlyRight).fill(false), ...Array(newlyWrong + stayed).fill(true)];
  const is = [...Array(newlyRight).fill(true), ...Array(newlyWrong).fill(false), ...Array(stayed).fill(true)];
  const byId = (right: boolean[]) => new Map(right.map((one, index) => [`row ${index}`, one]));
  return [byId(was), byId(is)] as const;
}

// The chances are scipy.stats.binomtest(newly_right, newly_right + newly_wrong, 0.5, "greater").
test.each([
  { newlyRight: 3, newlyWrong: 0, chance: 0.125, better: false },
  { newlyRight: 4, newlyWrong: 0, chance: 0.0625, better: true },
  { newlyRight: 13, newlyWrong: 7, chance: 0.1316, better: false },
  { newlyRight: 14, newlyWrong: 7, chance: 0.0946, better: true },
  { newlyRight: 2, newlyWrong: 9, chance: 0.9941, better: false },
  { newlyRight: 0, newlyWrong: 0, chance: 1, better: false },
  { newlyRight: 400, newlyWrong: 300, chance: 0.0001, better: true },
])(
  "cross-fitting: $newlyRight newly right, $newlyWrong newly wrong, chance $chance",
  ({ newlyRight, newlyWrong, better }) => {
    expect(betterBeyondChance(...changed(newlyRight, newlyWrong, 30))).toBe(better);
  },
);

test("by cross-fitting the latest within one standard error of the best is chosen", () => {
  expect(chooseIteration(byFit(50, 60, 57))?.number).toBe(2);
  expect(chooseIteration(byFit(50, 60, 50))?.number).toBe(1);
});

test("test accuracy plays no part in the choice", () => {
  const iterations = byDev(50, 70).map((one) => ({ ...one, testAccuracy: proportion(one.number === 0 ? 99 : 1, 100) }));
  expect(chooseIteration(iterations)?.number).toBe(1);
});

test("the loop stops at its cap, at the target, and when patience is out", () => {
  const settings = { ...defaultSettings, iterations: 3 };
  expect(stopReason(byDev(50, 60), settings)).toBeUndefined();
  expect(stopReason(byDev(50, 60, 61, 62), settings)).toBe("iterations");
  expect(stopReason(byDev(50, 60), { ...settings, targetAccuracy: 0.6 })).toBe("target_accuracy");
  expect(stopReason(byDev(60, 60, 59), { ...settings, patience: 2 })).toBe("patience");
  expect(stopReason(byDev(60, 59, 61), { ...settings, patience: 2 })).toBeUndefined();
});

test("the paired gain counts discordant rows of the same row only", () => {
  const graded = (correct: boolean[]): GradedPrediction[] =>
    correct.map((one, index) => ({
      rowId: `r${index}`,
      text: "",
      answer: "",
      expected: "",
      correct: one,
      logProbability: 0,
      labelScores: [],
      tooLong: false,
      disputed: false,
    }));
  const gain = pairedGain(graded([true, true, true, false]), graded([true, false, false, true]));
  expect(gain).toMatchObject({ gain: 0.25, n: 4, onlyFinalRight: 2, onlyBaselineRight: 1 });
  // Bonett & Price by hand: p12 = 3/6, p21 = 2/6, half = 1.96 * sqrt((5/6 - 1/36) / 6).
  expect(gain.ci95Low).toBeCloseTo(1 / 6 - 1.96 * Math.sqrt((5 / 6 - 1 / 36) / 6), 3);
  expect(gain.ci95High).toBeCloseTo(1 / 6 + 1.96 * Math.sqrt((5 / 6 - 1 / 36) / 6), 3);
});
