/** What an evaluation run is: its request, checked, and its message. */
import { invalidField } from "@tutelage/platform/errors";
import { requireProject } from "@tutelage/platform/project";
import { toRunMessage } from "@tutelage/platform/runmessage";
import type { RunRow } from "@tutelage/platform/runs";
import type { StudentWait } from "@tutelage/platform/studentjob";
import { requireTask } from "@tutelage/platform/task";
import type { EvaluationRun, Metrics, StartEvaluationRunRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import type { RowSource, Task } from "@tutelage/proto/task/v1/task";
import { decodingFor } from "./decoding.js";

/** What is asked, for whomever. */
export type AskedEvaluation = Omit<StartEvaluationRunRequest, "owner">;

/** A request that passed `checkRequest`. */
export type CheckedRequest = AskedEvaluation & { rows: RowSource; task: Task };

/** What the service keeps about a run. */
export interface EvaluationState extends StudentWait {
  metrics?: Metrics;
  predictSeconds?: number;
}

export type StoredEvaluationRun = RunRow<CheckedRequest, EvaluationState>;

/** The request with what it must have. Throws invalid_argument that names the field. */
export function checkRequest(request: AskedEvaluation): CheckedRequest {
  const { answers } = request;
  if (answers === undefined) requireProjectAndModel(request);
  else {
    requireProject(request.projectId);
    for (const [field, value] of [
      ["model", request.model],
      ["checkpoint_uri", request.checkpointUri],
    ] as const) {
      if (value !== "") throw invalidField(field, "is given beside answers; give one of them.");
    }
    requireArtifact("answers", answers);
  }
  const rows = requireArtifact("rows", request.rows);
  const task = requireTask(request.task);
  decodingFor(task, request.decoding);
  return { ...request, rows, task };
}

function requireArtifact(field: string, rows: RowSource | undefined): RowSource {
  if (rows === undefined || rows.uri === "") {
    throw invalidField(`${field}.uri`, "is empty; name the artifact that holds the rows.");
  }
  if (!/^[0-9a-f]{64}$/.test(rows.sha256)) {
    throw invalidField(`${field}.sha256`, "must be the SHA-256 of the artifact, 64 hexadecimal digits.");
  }
  return rows;
}

/** Throws invalid_argument when the request lacks one of them. */
export function requireProjectAndModel({ projectId, model }: { projectId: string; model: string }): void {
  requireProject(projectId);
  if (model === "") throw invalidField("model", 'is empty; give the base model\'s reference, e.g. "file:/path".');
}

/** A stored run as its message. */
export function toEvaluationRun(run: StoredEvaluationRun): EvaluationRun {
  const { metrics, predictSeconds = 0 } = run.state;
  return { run: toRunMessage(run), request: { ...run.request, owner: undefined }, metrics, predictSeconds };
}
