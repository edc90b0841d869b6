/** Error mining: which seed rows the student cannot do, and how hard each is. */
import { Disputes } from "@tutelage/proto/campaigns/v1/campaigns";
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Row } from "@tutelage/proto/task/v1/task";
import { shuffled } from "./random.js";

/** A seed row as a student judged it. */
export interface MinedRow {
  row: Row;
  /** Whether the student's answer counts as right. */
  correct: boolean;
  /** Two readings of the answer are graded differently; `correct` is the strict one's grade. */
  disputed: boolean;
  /** What the student answered, as it was read; the whole text where it could not be. */
  answer: string;
  text: string;
  /** Natural logarithm of the probability that the student gave to the expected output; undefined where it was not scored. */
  expectedLogProbability: number | undefined;
}

/**
 * Deals seed rows into folds: every label spread evenly, sizes within one of
 * each other a label, the same for the same seed. A synthetic row goes where
 * its root goes.
 * @returns fold (0 to folds - 1) by row id
 */
export function assignFolds(seedRows: readonly Row[], folds: number, seed: number): Map<string, number> {
  const byOutput = new Map<string, Row[]>();
  for (const row of seedRows) byOutput.set(row.output, [...(byOutput.get(row.output) ?? []), row]);
  const foldOf = new Map<string, number>();
  // Going on where the last label stopped keeps the folds' sizes even when labels are few and folds many.
  let next = 0;
  for (const output of [...byOutput.keys()].sort()) {
    for (const row of shuffled(byOutput.get(output) ?? [], (one) => one.id, seed, "folds")) {
      foldOf.set(row.id, next % folds);
      next += 1;
    }
  }
  return foldOf;
}

/**
 * Joins rows with their graded predictions, in the rows' order. Rows without a
 * prediction are left out, and so are those that the student's context cannot
 * hold: they are no errors that more rows could mend.
 */
export function mine(rows: readonly Row[], predictions: readonly GradedPrediction[]): MinedRow[] {
  const byId = new Map(predictions.map((prediction) => [prediction.rowId, prediction]));
  return rows.flatMap((row) => {
    const prediction = byId.get(row.id);
    if (prediction === undefined || prediction.tooLong) return [];
    const scored = prediction.labelScores.find((score) => score.label === row.output);
    return [
      {
        row,
        correct: prediction.correct,
        disputed: prediction.disputed,
        answer: prediction.answer === "" ? prediction.text : prediction.answer,
        text: prediction.text,
        expectedLogProbability: scored?.logProbability,
      },
    ];
  });
}

/** Which reading decides the disputes of single rows, by their ids: somebody said so. */
export type Readings = ReadonlyMap<string, Disputes>;

/** Ids of the rows that the settings leave open, and nobody has decided. */
export function openDisputes(mined: readonly MinedRow[], disputes: Disputes, readings: Readings = new Map()): string[] {
  if (disputes !== Disputes.ASIDE) return [];
  return mined.filter((one) => one.disputed && !readings.has(one.row.id)).map((one) => one.row.id);
}

/** The rows but those set aside, disputed ones as somebody or the settings decide them. */
export function settle(
  mined: readonly MinedRow[],
  aside: ReadonlySet<string>,
  disputes: Disputes,
  readings: Readings = new Map(),
): MinedRow[] {
  return mined
    .filter((one) => !aside.has(one.row.id))
    .map((one) => {
      const reading = readings.get(one.row.id) ?? disputes;
      // The answer that was read strictly is not the one that decides: the whole text is shown instead.
      return one.disputed && reading === Disputes.LENIENT ? { ...one, correct: !one.correct, answer: one.text } : one;
    });
}

/**
 * How hard a row is, 0 (easy) to 1: one minus the probability of its expected
 * output where labels were scored, else 1 for a wrong answer and 0 for a right one.
 */
export function difficulty(mined: MinedRow): number {
  if (mined.expectedLogProbability === undefined) return mined.correct ? 0 : 1;
  return 1 - Math.exp(mined.expectedLogProbability);
}
