/** gRPC handlers of the evaluation service. */
import { turnsProblem } from "@tutelage/platform/conversation";
import type { Database } from "@tutelage/platform/database";
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import type { connect } from "@tutelage/platform/grpc";
import { stopOwnedRuns } from "@tutelage/platform/ownedruns";
import { heldBy } from "@tutelage/platform/ownerfence";
import { requireProject } from "@tutelage/platform/project";
import { pauseRun, resumeOrRetryRun } from "@tutelage/platform/runcontrol";
import type { Runs } from "@tutelage/platform/runs";
import { namedStudentError } from "@tutelage/platform/studentjob";
import { requirePromptFor, requireTask } from "@tutelage/platform/task";
import type { EvaluationServiceImplementation, PredictRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Prediction, StudentServiceDefinition } from "@tutelage/proto/student/v1/student";
import { decodingFor } from "./decoding.js";
import { deleteEvaluationRuns } from "./deletion.js";
import {
  type CheckedRequest,
  checkRequest,
  type EvaluationState,
  requireProjectAndModel,
  toEvaluationRun,
} from "./evaluationrun.js";
import { listPredictions } from "./store.js";

const mostInteractiveRows = 256;
/** A first call may load the model. */
const interactiveDeadlineMs = 60_000;

interface Dependencies {
  database: Database;
  runs: Runs<CheckedRequest, EvaluationState>;
  student: Pick<ReturnType<typeof connect<StudentServiceDefinition>>, "predict">;
}

export function evaluationService(dependencies: Dependencies): EvaluationServiceImplementation {
  const { database, runs, student } = dependencies;
  return {
    async startEvaluationRun({ owner, ...message }) {
      const request = checkRequest(message);
      const { projectId, idempotencyKey } = request;
      const alongside = heldBy(projectId, owner, idempotencyKey);
      return toEvaluationRun(await runs.start(projectId, idempotencyKey, request, { alongside }));
    },

    async getEvaluationRun({ projectId, id }) {
      return toEvaluationRun(await runs.get(projectId, id));
    },

    async *watchEvaluationRun({ projectId, id }, { signal }) {
      for await (const run of runs.watch(projectId, id, signal)) yield toEvaluationRun(run);
    },

    async cancelEvaluationRun({ projectId, id }) {
      return toEvaluationRun(await runs.cancel(projectId, id));
    },

    async pauseEvaluationRun({ projectId, id }) {
      return toEvaluationRun(await pauseRun(runs, projectId, id));
    },

    async resumeEvaluationRun({ projectId, id, owner }) {
      return toEvaluationRun(await resumeOrRetryRun(runs, projectId, id, heldBy(projectId, owner)));
    },

    async stopOwnedRuns(request) {
      return await stopOwnedRuns(runs, request);
    },

    async deleteEvaluationRuns({ projectId, keyPrefix }, { signal }) {
      requireProject(projectId);
      return await deleteEvaluationRuns(database, projectId, keyPrefix, signal);
    },

    async *listPredictions({ projectId, id, wrongOnly }) {
      const run = await runs.get(projectId, id);
      for await (const predictions of listPredictions(database, { projectId, runId: run.id }, { wrongOnly })) {
        yield { predictions };
      }
    },

    async predict(request, { signal }) {
      return { predictions: await answerNow(request, student, signal) };
    },
  };
}

/** Answers beside whatever job holds the student. */
async function answerNow(
  request: PredictRequest,
  student: Dependencies["student"],
  signal: AbortSignal,
): Promise<Prediction[]> {
  requireProjectAndModel(request);
  const { projectId, model, checkpointUri, rows } = request;
  if (rows.length < 1 || rows.length > mostInteractiveRows) {
    throw invalidField("rows", `has ${rows.length} rows; give 1 to ${mostInteractiveRows}.`);
  }
  for (const [index, row] of rows.entries()) {
    if ((row.input === "") === (row.messages.length === 0)) {
      throw invalidField(`rows[${index}]`, "must have exactly one of input and messages.");
    }
    const problem = row.messages.length === 0 ? undefined : turnsProblem(row.messages);
    if (problem !== undefined) throw invalidField(`rows[${index}].${problem.field}`, problem.message, problem.code);
  }
  const task = requireTask(request.task);
  requirePromptFor(task, rows);
  const decoding = decodingFor(task, request.decoding);
  const predictions: Prediction[] = [];
  try {
    const batches = student.predict(
      { projectId, model, checkpointUri, task, inlineRows: rows, decoding, interactive: true },
      { signal, deadline: interactiveDeadlineMs },
    );
    for await (const batch of batches) predictions.push(...batch.predictions);
  } catch (error) {
    throw error instanceof TutelageError ? namedStudentError(error) : error;
  }
  return predictions;
}
