/** All SQL of the evaluation service beyond the run rows. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { storable } from "@tutelage/platform/gradedprediction";
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { and, asc, eq, gt, sql } from "drizzle-orm";
import { predictions } from "./tables.js";

const pagePredictions = 500;

/** Which run's predictions. */
interface OfRun {
  projectId: string;
  runId: string;
}

/** Forgets a run's predictions. Gives how many. */
export async function deletePredictions(transaction: Transaction, run: OfRun): Promise<number> {
  const { rowCount } = await transaction
    .delete(predictions)
    .where(and(eq(predictions.projectId, run.projectId), eq(predictions.runId, run.runId)));
  return rowCount ?? 0;
}

/**
 * Stores a batch, the first of which is the run's prediction number
 * `firstPosition`. One JSON parameter, so that a batch is one statement of
 * constant text whatever its size.
 */
export async function insertPredictions(
  transaction: Transaction,
  run: OfRun,
  firstPosition: number,
  batch: GradedPrediction[],
): Promise<void> {
  if (batch.length === 0) return;
  const rows = batch.map((prediction, index) => ({
    position: firstPosition + index,
    row_id: prediction.rowId,
    text: prediction.text,
    answer: storable(prediction.answer),
    expected: storable(prediction.expected),
    correct: prediction.correct,
    log_probability: finite(prediction.logProbability),
    label_scores: prediction.labelScores.map(({ label, logProbability }) => ({
      label,
      logProbability: finite(logProbability),
    })),
    too_long: prediction.tooLong,
    rouge_l: prediction.rougeL ?? null,
    disputed: prediction.disputed,
  }));
  await transaction.execute(sql`
    insert into predictions (project_id, run_id, position, row_id, text, answer, expected, correct, log_probability,
      label_scores, too_long, rouge_l, disputed)
    select ${run.projectId}::text, ${run.runId}::uuid, position, row_id, text, answer, expected, correct,
      log_probability, label_scores, too_long, rouge_l, disputed
    from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as batch (position integer, row_id text, text text,
      answer text, expected text, correct boolean, log_probability double precision, label_scores jsonb,
      too_long boolean, rouge_l double precision, disputed boolean)`);
}

/** A run's predictions in the order of the rows, in batches. */
export async function* listPredictions(
  database: Database,
  run: OfRun,
  { wrongOnly }: { wrongOnly: boolean } = { wrongOnly: false },
): AsyncGenerator<GradedPrediction[]> {
  for (let after = -1; ; ) {
    const page = await database.drizzle
      .select({
        position: predictions.position,
        rowId: predictions.rowId,
        text: predictions.text,
        answer: predictions.answer,
        expected: predictions.expected,
        correct: predictions.correct,
        logProbability: predictions.logProbability,
        labelScores: predictions.labelScores,
        tooLong: predictions.tooLong,
        rougeL: predictions.rougeL,
        disputed: predictions.disputed,
      })
      .from(predictions)
      .where(
        and(
          eq(predictions.projectId, run.projectId),
          eq(predictions.runId, run.runId),
          gt(predictions.position, after),
          wrongOnly ? sql`not ${predictions.correct}` : undefined,
        ),
      )
      .orderBy(asc(predictions.position))
      .limit(pagePredictions);
    const last = page.at(-1);
    if (last !== undefined) {
      yield page.map(({ position: _, rougeL, ...prediction }) => ({ ...prediction, rougeL: rougeL ?? undefined }));
    }
    if (last === undefined || page.length < pagePredictions) return;
    after = last.position;
  }
}

/** JSON has no infinity; a probability that underflowed is the smallest there is. */
function finite(logProbability: number): number {
  return Number.isFinite(logProbability) ? logProbability : -Number.MAX_VALUE;
}
