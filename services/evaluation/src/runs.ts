/** The long work: one evaluation, the student's answers graded as they come, or those that somebody else gave. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Database } from "@tutelage/platform/database";
import { TutelageError } from "@tutelage/platform/errors";
import { gradePrediction } from "@tutelage/platform/gradedprediction";
import { watchDeadlineMs } from "@tutelage/platform/grpc";
import { type Grade, metricsOf } from "@tutelage/platform/metrics";
import { readRows } from "@tutelage/platform/rowfile";
import type { Lease } from "@tutelage/platform/runs";
import { studentJob } from "@tutelage/platform/studentjob";
import type { Students } from "@tutelage/platform/students";
import { requirePromptFor } from "@tutelage/platform/task";
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Prediction } from "@tutelage/proto/student/v1/student";
import type { Row } from "@tutelage/proto/task/v1/task";
import { decodingFor } from "./decoding.js";
import type { CheckedRequest, EvaluationState } from "./evaluationrun.js";
import { insertPredictions, listPredictions } from "./store.js";

/** A person sees four changes a second; a batch of this many is stored at once. */
const storeEveryMs = 250;
const storeAtMost = 1_000;

interface Dependencies {
  database: Database;
  students: Students;
  artifacts: ArtifactStore;
}

/**
 * Evaluates for one lease; predictions are stored on the way, metrics with the final status. What an earlier attempt
 * stored is kept: it is whole messages of the student, so that the rest is answered as it would have been there.
 */
export async function evaluate(
  lease: Lease<CheckedRequest, EvaluationState>,
  { database, students, artifacts }: Dependencies,
): Promise<{ state: Partial<EvaluationState> }> {
  const { id: runId, projectId, request, state } = lease.run;
  const { task } = request;
  const rows: Pick<Row, "id" | "output" | "messages">[] = [];
  for await (const { id, output, messages } of readRows(artifacts, request.rows)) rows.push({ id, output, messages });
  if (rows.length === 0) {
    throw new TutelageError("invalid_argument", "rows: no row of the artifact is selected; widen split or row_ids.", {
      reason: "rows_empty",
    });
  }
  requirePromptFor(task, rows);

  const grades: Grade[] = [];
  const gradeNext = (prediction: Prediction): GradedPrediction => {
    const row = rows[grades.length];
    if (row === undefined || row.id !== prediction.rowId) throw mismatch(rows.length);
    const { graded, grade } = gradePrediction(prediction, row.output, task);
    grades.push(grade);
    return graded;
  };
  for await (const batch of listPredictions(database, { projectId, runId })) batch.forEach(gradeNext);
  const kept = grades.length;
  if (request.answers !== undefined) {
    const given = new Map<string, string>();
    const known = new Set(rows.map(({ id }) => id));
    for await (const { id, output } of readRows(artifacts, request.answers)) {
      if (!known.has(id))
        throw new TutelageError("invalid_argument", `answers: "${id}" is none of the rows.`, {
          reason: "answer_without_row",
        });
      given.set(id, output);
    }
    for (let start = kept; start < rows.length; start += storeAtMost) {
      const batch = rows
        .slice(start, start + storeAtMost)
        .map(({ id }) => gradeNext(answered(id, given.get(id) ?? "")));
      await lease.advance((transaction) => insertPredictions(transaction, { projectId, runId }, start, batch));
    }
    return { state: { metrics: metricsOf(grades, task), predictSeconds: 0 } };
  }
  const summary = (predictSeconds: number) => ({ state: { metrics: metricsOf(grades, task), predictSeconds } });
  if (kept === rows.length) return summary(state.predictSeconds ?? 0);

  const openedAt = performance.now();
  const seconds = () => (performance.now() - openedAt) / 1_000;
  const predictSeconds = () => (state.predictSeconds ?? 0) + seconds();
  const open = (signal: AbortSignal) =>
    students.client.predict(
      {
        projectId,
        runId,
        fence: lease.fence,
        model: request.model,
        checkpointUri: request.checkpointUri,
        task,
        rows: request.rows,
        decoding: decodingFor(task, request.decoding),
        skipRows: kept,
      },
      { signal, deadline: watchDeadlineMs },
    );
  let stored = kept;
  const batches = studentJob(lease, open, { students: students.count, hasKept: () => stored > kept });

  let pending: GradedPrediction[] = [];
  let storedAt = 0;
  const storePending = async () => {
    const batch = pending;
    pending = [];
    const done = grades.length;
    await lease.advance((transaction) => insertPredictions(transaction, { projectId, runId }, stored, batch));
    stored = done;
    const etaSeconds = (seconds() / (done - kept)) * (rows.length - done);
    await lease.report({ done, etaSeconds }, { predictSeconds: predictSeconds(), studentLosses: 0 });
    storedAt = performance.now();
  };

  let began = false;
  /** A student of an earlier release answers all rows. */
  let known = 0;
  for await (const { predictions } of batches) {
    if (!began) {
      began = true;
      known = predictions[0]?.rowId === rows[0]?.id ? kept : 0;
      const message = kept > 0 ? `predicting; went on after row ${kept}` : "predicting";
      await lease.report(
        { done: kept, total: rows.length, unit: "rows", etaSeconds: 0, message },
        { unreachableSince: null },
      );
    }
    pending.push(...predictions.slice(known).map(gradeNext));
    known = Math.max(0, known - predictions.length);
    if (pending.length >= storeAtMost || performance.now() - storedAt >= storeEveryMs) await storePending();
  }
  if (grades.length !== rows.length) throw mismatch(rows.length);
  const took = predictSeconds();
  if (pending.length > 0) await storePending();
  return summary(took);
}

/** An answer that no student gave. */
function answered(rowId: string, text: string): Prediction {
  return { rowId, text, logProbability: 0, labelScores: [], tooLong: false };
}

function mismatch(rows: number): TutelageError {
  return new TutelageError("internal", `The student's answers are not those of the ${rows} rows in order.`, {
    reason: "predictions_mismatch",
  });
}
