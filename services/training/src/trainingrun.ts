/** What a training run is: its request, checked, and its message. */
import { invalidField } from "@tutelage/platform/errors";
import type { BudgetNotice } from "@tutelage/platform/monthbudget";
import { requireProject } from "@tutelage/platform/project";
import { checkRecipe } from "@tutelage/platform/recipe";
import { toRunMessage } from "@tutelage/platform/runmessage";
import type { RunRow } from "@tutelage/platform/runs";
import type { StudentWait } from "@tutelage/platform/studentjob";
import { requireTask } from "@tutelage/platform/task";
import {
  type Checkpoint,
  type Recipe,
  type ResumePoint,
  type TrainIncident,
  type TrainStep,
  TuningMethod,
} from "@tutelage/proto/student/v1/student";
import type { RowSource, Task } from "@tutelage/proto/task/v1/task";
import type { StartTrainingRunRequest, StudentProfile, TrainingRun } from "@tutelage/proto/training/v1/training";

/** What is asked, for whomever. */
export type AskedTraining = Omit<StartTrainingRunRequest, "owner">;

/** A request that passed `checkRequest`. */
export type CheckedRequest = AskedTraining & { rows: RowSource; task: Task };

/** What the service keeps about a run. Model and recipe are fixed at Start: a profile may change meanwhile. */
export interface TrainingState extends StudentWait {
  model: string;
  recipe: Recipe;
  rows?: number;
  tooLongRowIds?: string[];
  lastStep?: TrainStep | null;
  checkpoint?: Checkpoint;
  /** Its files were removed since. */
  checkpointRemoved?: boolean;
  /** That removal has ended. */
  filesRemoved?: boolean;
  trainSeconds?: number;
  /** Taken of budgets, by all attempts. */
  chargedSeconds?: number;
  /** Marks of the project's month that it was the first to pass. */
  budgetNotices?: BudgetNotice[];
  /** Fences of the attempts that wrote files. */
  attempts?: number[];
  /** What the next attempt may go on from, newest first. */
  resumePoints?: ResumePoint[];
  /** What the run lived through, oldest first. */
  incidents?: StoredIncident[];
}

/** An incident as the run's state holds it: JSON knows no dates. */
export type StoredIncident = Omit<TrainIncident, "at"> & { at: string };

export type StoredTrainingRun = RunRow<CheckedRequest, TrainingState>;

/** The request and what its profile makes of it. Throws invalid_argument that names the field. */
export function checkRequest(
  request: AskedTraining,
  profiles: ReadonlyMap<string, StudentProfile>,
): { request: CheckedRequest; state: TrainingState } {
  requireProject(request.projectId);
  const profile = profiles.get(request.studentProfile);
  if (profile === undefined) {
    throw invalidField(
      "student_profile",
      `"${request.studentProfile}" is not offered; choose one of: ${[...profiles.keys()].join(", ")}.`,
      "student_profile_unknown",
    );
  }
  const recipe = request.recipe ?? (profile.recipe as Recipe);
  if (request.recipe !== undefined) checkRecipe(request.recipe);
  const { rows } = request;
  if (rows === undefined || rows.uri === "") {
    throw invalidField("rows.uri", "is empty; name the artifact that holds the rows.");
  }
  if (!/^[0-9a-f]{64}$/.test(rows.sha256)) {
    throw invalidField("rows.sha256", "must be the SHA-256 of the artifact, 64 hexadecimal digits.");
  }
  const task = requireTask(request.task);
  if (recipe.method === TuningMethod.PROBE && task.labels.length === 0) {
    throw invalidField(
      "recipe.method",
      "is probe, which chooses among labels, but the task has none; name the task's labels, or use lora or full.",
    );
  }
  checkMaxSeconds(request.maxSeconds);
  return { request: { ...request, rows, task }, state: { model: profile.model, recipe } };
}

/** Throws invalid_argument. */
export function checkMaxSeconds(seconds: number | undefined): void {
  if (seconds === undefined || seconds >= 0) return;
  throw invalidField("max_seconds", `is ${seconds}; give 0 or more, or leave it out for no bound.`);
}

/** A stored run as its message. */
export function toTrainingRun(run: StoredTrainingRun): TrainingRun {
  const { lastStep, checkpoint, checkpointRemoved = false } = run.state;
  const { rows = 0, tooLongRowIds = [], trainSeconds = 0, incidents = [] } = run.state;
  const { chargedSeconds = 0, budgetNotices = [] } = run.state;
  return {
    run: toRunMessage(run),
    request: { ...run.request, owner: undefined },
    lastStep: lastStep ?? undefined,
    checkpoint,
    rows,
    tooLongRowIds,
    trainSeconds,
    checkpointRemoved,
    incidents: incidents.map((incident) => ({ ...incident, at: new Date(incident.at) })),
    chargedSeconds,
    budgetNotices,
  };
}
