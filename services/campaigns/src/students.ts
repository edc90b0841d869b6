/** Training and evaluating students as steps of a campaign. */

import { proportion } from "@tutelage/platform/interval";
import { type Iteration, StartFrom } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Version } from "@tutelage/proto/datasets/v1/datasets";
import type { GradedPrediction, Proportion, StartEvaluationRunRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Checkpoint, Recipe, TrainIncident } from "@tutelage/proto/student/v1/student";
import type { Row, RowSource, Task } from "@tutelage/proto/task/v1/task";
import { type Campaign, rowSource, type SeedData, trainSource } from "./campaign.js";
import { evaluate, predictionsOf, train } from "./clients.js";
import { assignFolds } from "./mining.js";
import { derivedSeed } from "./random.js";

/** A trained student. */
export interface Student {
  trainingRunId: string;
  checkpoint: Checkpoint;
  rows: number;
  steps: number;
  /** Of the student's time, lost attempts included. */
  seconds: number;
}

/** Trains one student as the step `name`. */
export async function trainStudent(
  campaign: Campaign,
  name: string,
  options: { rows: RowSource; seed: number; recipe?: Partial<Recipe>; startFrom?: Checkpoint | undefined },
): Promise<Student> {
  let incidents: TrainIncident[] = [];
  const work = async () => {
    const { studentProfile } = campaign.request;
    const { settings } = campaign;
    const run = await train(
      campaign.services,
      {
        projectId: campaign.projectId,
        idempotencyKey: campaign.childKey(name),
        studentProfile,
        recipe: { ...settings.recipe, ...options.recipe },
        rows: options.rows,
        task: campaign.task,
        seed: options.seed,
        startCheckpointUri: options.startFrom?.uri ?? "",
        maxSeconds: await campaign.spending.trainingSecondsLeft(),
      },
      {
        ...campaign.waitingFor(name),
        onChange: ({ chargedSeconds, budgetNotices }) =>
          campaign.spending.noteRunning(name, { trainingSeconds: chargedSeconds }, budgetNotices),
      },
      () => campaign.spending.trainingSecondsLeft(),
    );
    if (run.checkpoint === undefined) throw new Error("A training run succeeded without a checkpoint.");
    incidents = run.incidents;
    return {
      trainingRunId: run.run?.id ?? "",
      checkpoint: run.checkpoint,
      rows: run.rows,
      steps: run.lastStep?.totalSteps ?? 0,
      seconds: run.chargedSeconds,
    };
  };
  const trained = await campaign.step(name, work, async (transaction, { trainingRunId }) => {
    for (const { kind, step, message } of incidents) {
      await campaign.store.putEvent(transaction, campaign.key, "training.incident", {
        step: name,
        training_run_id: trainingRunId,
        kind: kind.replace("TRAIN_INCIDENT_KIND_", "").toLowerCase(),
        training_step: step,
        message,
      });
    }
  });
  // A step of an earlier release does not know.
  await campaign.spending.addTraining(name, trained.seconds ?? 0);
  return trained;
}

/** A round of the loop as the later code needs it. */
export interface Round {
  iteration: Iteration;
  version: Version;
  /** Unset where no student was needed to judge the round. */
  student: Student | undefined;
  /** Seed row → whether the student that had not seen it was right. Unset where nothing was cross-fitted. */
  heldOutRight: ReadonlyMap<string, boolean> | undefined;
  /** Seed rows that its student does not learn from, nor from what is rooted in them. */
  leftOut: readonly string[];
  /** After the id of a corrected seed row, the id of the row that it was. */
  grewFrom: ReadonlyMap<string, string>;
}

/** The round's own student: from the base weights, or from the previous round's student where the settings say so. */
export async function trainRoundStudent(
  campaign: Campaign,
  number: number,
  version: Version,
  leftOut: readonly string[],
  previous?: Student,
): Promise<Student> {
  const { settings } = campaign;
  return await trainStudent(campaign, `iteration/${number}/train`, {
    rows: trainSource(campaign, version, leftOut),
    seed: derivedSeed(settings.seed, "train", number),
    startFrom: settings.startFrom === StartFrom.PREVIOUS ? previous?.checkpoint : undefined,
  });
}

/** An evaluation that is done. */
export interface Evaluated {
  evaluationRunId: string;
  accuracy: Proportion;
}

/** Evaluates a student, or with an empty uri its base model, on rows as the step `name`. */
export async function evaluateStudent(
  campaign: Campaign,
  name: string,
  student: Pick<Checkpoint, "model" | "uri">,
  rows: RowSource,
  task: Task = campaign.task,
): Promise<Evaluated> {
  return await evaluation(campaign, name, {
    model: student.model,
    checkpointUri: student.uri,
    rows,
    task,
    answers: undefined,
  });
}

/** Grades answers that somebody else gave, as the step `name`. */
export async function evaluateAnswers(
  campaign: Campaign,
  name: string,
  rows: RowSource,
  answers: RowSource,
): Promise<Evaluated> {
  return await evaluation(campaign, name, { model: "", checkpointUri: "", rows, task: campaign.task, answers });
}

async function evaluation(
  campaign: Campaign,
  name: string,
  asked: Pick<StartEvaluationRunRequest, "model" | "checkpointUri" | "rows" | "task" | "answers">,
): Promise<Evaluated> {
  return await campaign.step(name, async () => {
    const run = await evaluate(
      campaign.services,
      {
        ...asked,
        projectId: campaign.projectId,
        idempotencyKey: campaign.childKey(name),
        decoding: campaign.settings.decoding,
      },
      campaign.waitingFor(name),
    );
    return { evaluationRunId: run.run?.id ?? "", accuracy: run.metrics?.accuracy ?? proportion(0, 0) };
  });
}

/** The graded predictions of an evaluation. */
export async function predictions(
  campaign: Campaign,
  evaluated: Pick<Evaluated, "evaluationRunId">,
): Promise<GradedPrediction[]> {
  return await predictionsOf(campaign.services, campaign.projectId, evaluated.evaluationRunId, campaign.signal);
}

/** k students, each trained without one fold, and what they answered to it. */
export interface CrossFit {
  /** Student k never saw fold k nor any row rooted in it. */
  students: Student[];
  foldOf: Map<string, number>;
  /** Predictions on the train rows by students that did not see them. */
  heldOut: GradedPrediction[];
  /** Over the seed rows. */
  accuracy: Proportion;
  /** Seed row → whether the student that had not seen it was right. */
  right: ReadonlyMap<string, boolean>;
}

/**
 * Cross-fits the train rows of a version: fold k holds a share of the seed
 * rows; student k is trained on the rows that are neither in it nor rooted in it.
 */
export async function crossFit(
  campaign: Campaign,
  iteration: number,
  version: Version,
  seed: SeedData,
  judged: readonly Row[],
  previous: CrossFit | undefined,
): Promise<CrossFit> {
  const { settings } = campaign;
  // By the rows as they were given, so that a correction moves no other row to another fold.
  const folds = Math.min(settings.folds, seed.givenRows.length);
  const foldOf = assignFolds(seed.givenRows, folds, settings.seed);
  for (const [id, before] of seed.grewFrom) foldOf.set(id, foldOf.get(before) ?? 0);
  const foldOfRow = (row: Row) => foldOf.get(row.rootRowId === "" ? row.id : row.rootRowId);
  const judgeFold = async (fold: number): Promise<{ student: Student; answers: GradedPrediction[] }> => {
    const step = `iteration/${iteration}/cross_fit/${fold}`;
    const seedIdsOfFold = seed.seedRows.filter((row) => foldOf.get(row.id) === fold).map((row) => row.id);
    const student = await trainStudent(campaign, `${step}/train`, {
      rows: trainSource(campaign, version, [...seedIdsOfFold, ...seed.leftOut]),
      seed: derivedSeed(settings.seed, "fold", iteration, fold),
      startFrom: previous?.students[fold]?.checkpoint,
    });
    const rowIds = judged.filter((row) => foldOfRow(row) === fold).map((row) => row.id);
    // All rows of the fold may be left out by now, and a source that names none has all.
    if (rowIds.length === 0) return { student, answers: [] };
    const evaluated = await evaluateStudent(
      campaign,
      `${step}/evaluate`,
      student.checkpoint,
      rowSource(version, { rowIds }),
    );
    return { student, answers: await predictions(campaign, evaluated) };
  };
  const judgedFolds = await campaign.sideBySide(Array.from({ length: folds }, (_, fold) => () => judgeFold(fold)));
  const students = judgedFolds.map(({ student }) => student);
  const heldOut = judgedFolds.flatMap(({ answers }) => answers);
  const ofSeed = heldOut.filter((one) => foldOf.has(one.rowId));
  const accuracy = proportion(ofSeed.filter((one) => one.correct).length, ofSeed.length);
  return { students, foldOf, heldOut, accuracy, right: new Map(ofSeed.map((one) => [one.rowId, one.correct])) };
}
