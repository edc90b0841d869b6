/** The services that a campaign orchestrates, and how it waits for their runs. */
import { setTimeout as sleep } from "node:timers/promises";
import { textLength } from "@tutelage/platform/conversation";
import { TutelageError } from "@tutelage/platform/errors";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { pausedCode, Rest } from "@tutelage/platform/rest";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import {
  type EvaluationRun,
  EvaluationServiceDefinition,
  type GradedPrediction,
  type StartEvaluationRunRequest,
} from "@tutelage/proto/evaluation/v1/evaluation";
import type { Owner } from "@tutelage/proto/run/v1/owner";
import { type Run, RunStatus } from "@tutelage/proto/run/v1/run";
import type { Row, Split } from "@tutelage/proto/task/v1/task";
import {
  type GenerationBudget,
  type GenerationRun,
  type Result,
  type StartGenerationRunRequest,
  TeacherServiceDefinition,
  type TeacherWait,
} from "@tutelage/proto/teacher/v1/teacher";
import {
  type StartTrainingRunRequest,
  type TrainingRun,
  TrainingServiceDefinition,
} from "@tutelage/proto/training/v1/training";
import { TeacherNews } from "./teachernews.js";

export type Services = ReturnType<typeof connectServices>;

/** Clients of the four domain services. */
export function connectServices(addresses: {
  datasets: string;
  training: string;
  evaluation: string;
  teacher: string;
}) {
  const datasets = connect(DatasetsServiceDefinition, addresses.datasets);
  const training = connect(TrainingServiceDefinition, addresses.training);
  const evaluation = connect(EvaluationServiceDefinition, addresses.evaluation);
  const teacher = connect(TeacherServiceDefinition, addresses.teacher);
  return {
    datasets,
    training,
    evaluation,
    teacher,
    close: () => {
      for (const client of [datasets, training, evaluation, teacher]) client.close();
    },
  };
}

interface Which {
  projectId: string;
  id: string;
}

/** A service that has runs of campaigns. */
export type ChildService = "training" | "evaluation" | "teacher";

/** A run of another service that a campaign started. */
export interface ChildRun extends Which {
  service: ChildService;
}

/** How a campaign waits for a child run. */
export interface Waiting<Kind = unknown> {
  signal: AbortSignal;
  /** The campaign, and the claim under which it waits. */
  owner: Owner;
  /** Called before it may be there. */
  onStarting(service: ChildService): Promise<void>;
  /** Called once it is known and not final, before it is waited for. */
  onStarted(child: ChildRun): Promise<void>;
  /** Called whenever it moved. */
  onProgress(run: Run): Promise<void>;
  /** Called when its teacher does not answer, again while that lasts, and when it is over: answered, or given up. */
  onTeacherWait(wait: TeacherWait | "answered" | "given_up"): Promise<void>;
  /** Called with what it is, before it is waited for, whenever it moved, and at its end. */
  onChange?(child: Kind): Promise<void>;
}

/** Tries the child runs again with which a campaign failed; those that did not fail, or are gone, stay as they are. */
export async function retry(
  services: Services,
  children: readonly ChildRun[],
  owner: Owner,
  signal: AbortSignal,
): Promise<void> {
  const { training, evaluation, teacher } = services;
  const again = async ({ service, ...which }: ChildRun): Promise<unknown> => {
    if (service === "training") return await training.resumeTrainingRun({ ...which, owner });
    if (service === "evaluation") return await evaluation.resumeEvaluationRun({ ...which, owner });
    return await teacher.resumeGenerationRun({ ...which, owner });
  };
  await Promise.all(children.map((child) => whileAway(signal, () => again(child))));
}

/**
 * Starts a training run, or finds the one that the key already made, and waits for its end.
 * @param maxSeconds how long one that rests may train in all when it goes on
 */
export async function train(
  services: Services,
  request: Omit<StartTrainingRunRequest, "owner">,
  waiting: Waiting<TrainingRun>,
  maxSeconds: () => Promise<number | undefined>,
): Promise<TrainingRun> {
  const { training } = services;
  const { owner } = waiting;
  return await complete<TrainingRun>("training", waiting, {
    start: () => training.startTrainingRun({ ...request, owner }),
    resume: async (which) => training.resumeTrainingRun({ ...which, owner, maxSeconds: await maxSeconds() }),
    watch: (which, signal) => training.watchTrainingRun(which, { signal, deadline: watchDeadlineMs }),
  });
}

/** The same for an evaluation. */
export async function evaluate(
  services: Services,
  request: Omit<StartEvaluationRunRequest, "owner">,
  waiting: Waiting<EvaluationRun>,
): Promise<EvaluationRun> {
  const { evaluation } = services;
  const { owner } = waiting;
  return await complete<EvaluationRun>("evaluation", waiting, {
    start: () => evaluation.startEvaluationRun({ ...request, owner }),
    resume: (which) => evaluation.resumeEvaluationRun({ ...which, owner }),
    watch: (which, signal) => evaluation.watchEvaluationRun(which, { signal, deadline: watchDeadlineMs }),
  });
}

/**
 * The same for a generation run.
 * @param budget what one that rests may use in all when it goes on
 */
export async function generate(
  services: Services,
  request: Omit<StartGenerationRunRequest, "owner">,
  waiting: Waiting<GenerationRun>,
  budget: () => Promise<GenerationBudget | undefined>,
): Promise<GenerationRun> {
  const { teacher } = services;
  const { owner } = waiting;
  const news = new TeacherNews();
  return await complete<GenerationRun>("teacher", waiting, {
    start: () => teacher.startGenerationRun({ ...request, owner }),
    resume: async (which) => teacher.resumeGenerationRun({ ...which, owner, budget: await budget() }),
    watch: (which, signal) => teacher.watchGenerationRun(which, { signal, deadline: watchDeadlineMs }),
    onMove: async (child) => {
      const told = news.of(child);
      if (told !== undefined) await waiting.onTeacherWait(told);
    },
  });
}

/**
 * Start is idempotent and Watch begins with what is stored, so a service that
 * restarts in between costs a reconnect and nothing else. Throws the run's
 * failure. When the signal aborts the child goes on: the campaign's next
 * holder finds it, and a pause or a cancel tells it so (stopChildren). A holder
 * that has lost the campaign without knowing is refused: fence_outdated.
 * One that rests goes on: its campaign does. What lays it to rest again, but
 * for somebody's pause, does so to its campaign: throws a Rest.
 */
async function complete<Kind extends { run?: Run | undefined }>(
  service: ChildRun["service"],
  { signal, onStarting, onStarted, onProgress, onChange = async () => {} }: Waiting<Kind>,
  calls: {
    start(): Promise<Kind>;
    resume(which: Which): Promise<Kind>;
    watch(which: Which, signal: AbortSignal): AsyncIterable<Kind>;
    onMove?(child: Kind): Promise<void>;
  },
): Promise<Kind> {
  await onStarting(service);
  for (;;) {
    signal.throwIfAborted();
    try {
      let child = await calls.start();
      const which = { projectId: child.run?.projectId ?? "", id: child.run?.id ?? "" };
      if (child.run?.status !== RunStatus.SUCCEEDED) await onStarted({ service, ...which });
      if (isResting(child.run)) child = await calls.resume(which);
      if (!isFinal(child.run)) {
        for await (const now of calls.watch(which, signal)) {
          child = now;
          await onChange(now);
          // A former holder that hung may have passed on a pause that is over.
          if (isResting(now.run)) break;
          if (now.run !== undefined) await onProgress(now.run);
          await calls.onMove?.(now);
        }
      } else {
        // It ended while nobody watched.
        await onChange(child);
        await calls.onMove?.(child);
      }
      const { rest } = child.run ?? {};
      if (isResting(child.run) && rest !== undefined && rest.code !== pausedCode) {
        // What keeps it from going on keeps its campaign, too.
        const status = child.run?.status === RunStatus.PAUSED ? "PAUSED" : "BUDGET_EXHAUSTED";
        throw new Rest(status, rest.code, rest.message, rest.until);
      }
      if (child.run?.status === RunStatus.SUCCEEDED) return child;
      if (child.run?.status === RunStatus.FAILED) {
        const failure = child.run.failure;
        throw new TutelageError("failed_precondition", failure?.message ?? "A run failed.", {
          reason: failure?.code ?? "run_failed",
        });
      }
      if (child.run?.status === RunStatus.CANCELLED) {
        throw new TutelageError("aborted", "A run of this campaign was cancelled by somebody else.", {
          reason: "run_cancelled",
        });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isTransient(error)) throw error;
    }
    await sleep(500, undefined, { signal });
  }
}

/** How long the teacher of a campaign's generation run is still waited for; undefined when it is not, or there is none. */
export async function teacherWaitOf(
  services: Services,
  children: readonly ChildRun[],
  signal: AbortSignal,
): Promise<TeacherWait | undefined> {
  const child = children.find(({ service }) => service === "teacher");
  if (child === undefined) return undefined;
  const { projectId, id } = child;
  return (await whileAway(signal, () => services.teacher.getGenerationRun({ projectId, id }, { signal }))).waiting;
}

function isFinal(run: Run | undefined): boolean {
  return run !== undefined && [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED].includes(run.status);
}

function isResting(run: Run | undefined): boolean {
  return run !== undefined && [RunStatus.PAUSED, RunStatus.BUDGET_EXHAUSTED].includes(run.status);
}

function isTransient(error: unknown): boolean {
  return error instanceof TutelageError && ["unavailable", "deadline_exceeded", "cancelled"].includes(error.code);
}

/** Repeats a short call while its service is away. */
export async function whileAway<Reply>(signal: AbortSignal, call: () => Promise<Reply>): Promise<Reply> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      if (!isTransient(error)) throw error;
      await sleep(500, undefined, { signal });
    }
  }
}

/** Rows and characters that one reader may still take into memory; what it reads is subtracted. */
export interface ReadingRoom {
  rows: number;
  characters: number;
}

/** Throws the error of `tooLarge` when a version has more than there is room for. */
export interface BoundedReading {
  room: ReadingRoom;
  tooLarge(): TutelageError;
}

/** All rows of a split, in order. */
export async function rowsOf(
  services: Services,
  projectId: string,
  versionId: string,
  split: Split,
  signal: AbortSignal,
  bound?: BoundedReading,
): Promise<Row[]> {
  const rows: Row[] = [];
  let cursor = "";
  do {
    const page = await whileAway(signal, () =>
      services.datasets.listRows({ projectId, versionId, split, pageSize: 1_000, cursor }, { signal }),
    );
    rows.push(...page.rows);
    if (bound !== undefined) {
      bound.room.rows -= page.rows.length;
      for (const row of page.rows) bound.room.characters -= textLength(row);
      if (bound.room.rows < 0 || bound.room.characters < 0) throw bound.tooLarge();
    }
    cursor = page.nextCursor;
  } while (cursor !== "");
  return rows;
}

/** All graded predictions of an evaluation, in order. */
export async function predictionsOf(
  services: Services,
  projectId: string,
  id: string,
  signal: AbortSignal,
): Promise<GradedPrediction[]> {
  return await whileAway(signal, async () => {
    const predictions: GradedPrediction[] = [];
    for await (const batch of services.evaluation.listPredictions(
      { projectId, id, wrongOnly: false },
      { signal, deadline: 300_000 },
    )) {
      predictions.push(...batch.predictions);
    }
    return predictions;
  });
}

/** All results of a generation run, in order. */
export async function resultsOf(
  services: Services,
  projectId: string,
  id: string,
  signal: AbortSignal,
): Promise<Result[]> {
  return await whileAway(signal, async () => {
    const results: Result[] = [];
    for await (const batch of services.teacher.listResults({ projectId, id }, { signal, deadline: 300_000 }))
      results.push(...batch.results);
    return results;
  });
}
