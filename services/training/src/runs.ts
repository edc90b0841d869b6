/** The long work: one fine-tuning on the student, followed to its checkpoint. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { TutelageError } from "@tutelage/platform/errors";
import { type connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import type { Lease } from "@tutelage/platform/runs";
import { studentJob } from "@tutelage/platform/studentjob";
import type { Checkpoint, StudentServiceDefinition, TrainStep } from "@tutelage/proto/student/v1/student";
import { deleteSteps, insertSteps } from "./store.js";
import type { CheckedRequest, TrainingState } from "./trainingrun.js";

/** Steps come up to 100 a second from a tiny student; a person sees four a second. */
const storeEveryMs = 250;

interface Dependencies {
  student: Pick<ReturnType<typeof connect<StudentServiceDefinition>>, "train">;
  artifacts: Pick<ArtifactStore, "uri" | "remove">;
}

/** Trains for one lease; the checkpoint becomes the run's with its final status. */
export async function train(
  lease: Lease<CheckedRequest, TrainingState>,
  { student, artifacts }: Dependencies,
): Promise<{ state: Partial<TrainingState> }> {
  const { id: runId, projectId, request, state } = lease.run;
  const openedAt = performance.now();
  // Files of a lost attempt lie elsewhere: the fence is in the path.
  const folderOf = (fence: number) => artifacts.uri(`${projectId}/runs/${runId}/${fence}`);
  const events = studentJob(lease, (signal) =>
    student.train(
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
      },
      { signal, deadline: watchDeadlineMs },
    ),
  );

  const earlier = state.attempts ?? [];
  let steps: TrainStep[] = [];
  let storedAt = 0;
  const storeSteps = async () => {
    const batch = steps;
    steps = [];
    const last = batch.at(-1);
    if (last === undefined) return;
    await lease.write((transaction) => insertSteps(transaction, { projectId, runId }, batch));
    await lease.report({ done: last.step, total: last.totalSteps, etaSeconds: last.etaSeconds }, { lastStep: last });
    storedAt = performance.now();
  };

  let checkpoint: Checkpoint | undefined;
  for await (const { event } of events) {
    if (event?.$case === "started") {
      const { rows, totalSteps, tooLongRowIds } = event.value;
      await lease.write((transaction) => deleteSteps(transaction, { projectId, runId }));
      await lease.report(
        { done: 0, total: totalSteps, unit: "steps", etaSeconds: 0, message: "training" },
        { rows, tooLongRowIds, lastStep: null, unreachableSince: null, attempts: [...earlier, lease.fence] },
      );
    } else if (event?.$case === "step") {
      requireFinite(event.value);
      steps.push(event.value);
      if (performance.now() - storedAt >= storeEveryMs) await storeSteps();
    } else if (event?.$case === "checkpoint") {
      checkpoint = event.value;
    }
  }
  await storeSteps();
  if (checkpoint === undefined) {
    throw new TutelageError("internal", "The student ended the training without a checkpoint; its log may say why.", {
      reason: "student_failed",
    });
  }
  // What lost attempts left is nobody's.
  for (const fence of earlier) await artifacts.remove(folderOf(fence));
  return { state: { checkpoint, trainSeconds: (performance.now() - openedAt) / 1_000 } };
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
