/** The long work: one fine-tuning on the student, followed to its checkpoint, from where an earlier attempt came to. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { TutelageError } from "@tutelage/platform/errors";
import { watchDeadlineMs } from "@tutelage/platform/grpc";
import { RunPaused } from "@tutelage/platform/rest";
import type { Lease } from "@tutelage/platform/runs";
import { studentJob } from "@tutelage/platform/studentjob";
import { askInTurn, type Students } from "@tutelage/platform/students";
import type { Result } from "@tutelage/platform/worker";
import { type Checkpoint, TrainIncidentKind, type TrainStep } from "@tutelage/proto/student/v1/student";
import { Attempt } from "./attempt.js";
import { TimeBudget } from "./timebudget.js";
import type { CheckedRequest, TrainingState } from "./trainingrun.js";

/** How long a paused training may take for the step at hand. A cancel does not wait for it. */
const leavePointMs = 30_000;

interface Dependencies {
  students: Students;
  artifacts: Pick<ArtifactStore, "uri" | "remove">;
  /** Longest silence of the student in a training. */
  silenceMs: number;
}

/** Trains for one lease; the checkpoint becomes the run's with its final status. */
export async function train(
  lease: Lease<CheckedRequest, TrainingState>,
  { students, artifacts, silenceMs }: Dependencies,
): Promise<Result<TrainingState>> {
  const { id: runId, projectId, request, state } = lease.run;
  // Files of a lost attempt lie elsewhere: the fence is in the path.
  const folderOf = (fence: number) => artifacts.uri(`${projectId}/runs/${runId}/${fence}`);
  const attempt = new Attempt(lease, artifacts);
  const leavePoint = () =>
    askInTurn(students, () => students.client.leaveResumePoint({ projectId, runId, fence: lease.fence }));
  const time = new TimeBudget(lease, leavePoint);
  let lastStep = state.lastStep?.step ?? 0;
  const open = (signal: AbortSignal) =>
    students.client.train(
      {
        projectId,
        runId,
        fence: lease.fence,
        model: state.model,
        recipe: state.recipe,
        rows: request.rows,
        task: request.task,
        seed: request.seed,
        outputUri: `${folderOf(lease.fence)}/checkpoint`,
        startCheckpointUri: request.startCheckpointUri,
        resumeUri: `${folderOf(lease.fence)}/resume`,
        resumePoints: state.resumePoints ?? [],
      },
      { signal, deadline: watchDeadlineMs },
    );
  const stop = stopOf(lease, leavePoint);
  const events = studentJob(lease, open, {
    students: students.count,
    silenceMs,
    stop: AbortSignal.any([stop.signal, time.over]),
    hasKept: () => attempt.hasKept,
    onLost: ({ kind, message }) => ({
      trainSeconds: attempt.trainSeconds,
      incidents: attempt.note({
        kind: kind === "stalled" ? TrainIncidentKind.STALLED : TrainIncidentKind.STUDENT_LOST,
        step: lastStep,
        message,
      }),
    }),
  });

  let checkpoint: Checkpoint | undefined;
  try {
    for await (const { event } of events) {
      if (event?.$case === "started") {
        await time.begin();
        lastStep = event.value.resumedStep;
        await attempt.started(event.value);
      } else if (event?.$case === "step") {
        requireFinite(event.value);
        lastStep = event.value.step;
        await attempt.step(event.value);
        time.heard("step");
      } else if (event?.$case === "resumePoint") {
        await attempt.resumePoint(event.value);
        if (lease.signal.aborted) throw lease.signal.reason;
        time.heard("point");
      } else if (event?.$case === "incident") await attempt.incident(event.value);
      else if (event?.$case === "checkpoint") checkpoint = event.value;
    }
    await attempt.storeSteps();
    if (checkpoint === undefined) {
      throw new TutelageError("internal", "The student ended the training without a checkpoint; its log may say why.", {
        reason: "student_failed",
      });
    }
  } catch (error) {
    // A failed run may be tried again, and goes on from there; a cancelled one never does. What a student still writes
    // goes with the run.
    if (!lease.cancelled.aborted) throw error;
    const fences = [...(state.attempts ?? []), lease.fence];
    for (const fence of fences) await artifacts.remove(`${folderOf(fence)}/resume`).catch(() => {});
    throw error;
  } finally {
    await time.settle();
  }
  return {
    state: { checkpoint, trainSeconds: attempt.trainSeconds, resumePoints: [] },
    // What lost attempts left is nobody's then, and this one's resume points have served.
    tidy: async () => {
      for (const fence of state.attempts ?? []) await artifacts.remove(folderOf(fence));
      await artifacts.remove(`${folderOf(lease.fence)}/resume`);
    },
  };
}

/**
 * Ends the student's call when the lease does; where the run was paused, a step later, so that it goes on from there.
 * A student that leaves no point in that time is stopped without.
 */
function stopOf(lease: Lease<unknown, unknown>, leavePoint: () => Promise<unknown>): AbortController {
  const stop = new AbortController();
  const end = () => stop.abort(lease.signal.reason);
  const onEnd = () => {
    if (!(lease.signal.reason instanceof RunPaused)) return end();
    lease.cancelled.addEventListener("abort", end, { once: true });
    setTimeout(end, leavePointMs).unref();
    leavePoint().catch(end);
  };
  if (lease.signal.aborted) end();
  else lease.signal.addEventListener("abort", onEnd, { once: true });
  return stop;
}

/** Weights that overflowed never come back. */
function requireFinite({ step, loss, gradNorm }: TrainStep): void {
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return;
  throw new TutelageError(
    "failed_precondition",
    `The loss is not a number since step ${step}: lower recipe.learning_rate.`,
    { reason: "training_diverged" },
  );
}
