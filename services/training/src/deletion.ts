/** Removes training runs with their steps and files, or their files alone. */
import { setTimeout as sleep } from "node:timers/promises";
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Database } from "@tutelage/platform/database";
import { invalidField } from "@tutelage/platform/errors";
import { RemovalCount } from "@tutelage/platform/removal";
import { deleteRunRow, hideRuns } from "@tutelage/platform/rundeletion";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import type { DeleteTrainingRunsRequest } from "@tutelage/proto/training/v1/training";
import { deleteExports, deleteSteps, mark, msUntilQuiet, runsWithFiles } from "./store.js";

interface Dependencies {
  database: Database;
  /** Exports have run rows of their own. */
  exports: { database: Database };
  artifacts: Pick<ArtifactStore, "uri" | "remove">;
}

/** A student that is told to stop while it saves a checkpoint ends the saving first; its files must not come after us. */
const quietMs = 5_000;

/** A run's files go before its row: what lies on the disk always has a row that says so. */
export async function deleteTrainingRuns(
  { database, exports, artifacts }: Dependencies,
  { projectId, keyPrefix, keepRunIds, checkpointsOnly }: DeleteTrainingRunsRequest,
  signal: AbortSignal,
): Promise<Removal> {
  const count = new RemovalCount();
  const removeFiles = async (id: string) => {
    const folder = artifacts.uri(`${projectId}/runs/${id}`);
    // First, so that one under way loses its lease instead of writing beside what goes.
    count.add("export_runs", await deleteExports(exports.database, projectId, folder));
    let bytes = await artifacts.remove(folder);
    // One that was started meanwhile found the checkpoint still there.
    const late = await deleteExports(exports.database, projectId, folder);
    count.add("export_runs", late);
    if (late > 0) bytes += await artifacts.remove(folder);
    count.artifactBytes += bytes;
    return bytes;
  };
  if (checkpointsOnly) {
    if (keyPrefix === "") throw invalidField("key_prefix", "is empty; say how the keys of the runs begin.");
    const kept = new Set(keepRunIds);
    for (const runId of await runsWithFiles(database, projectId, keyPrefix)) {
      if (kept.has(runId)) continue;
      // Marked first: a checkpoint that is half gone must not be taken for whole.
      await mark(database, { projectId, runId }, "checkpointRemoved");
      if ((await removeFiles(runId)) > 0) count.add("checkpoints", 1);
      await mark(database, { projectId, runId }, "filesRemoved");
    }
    return count.removal;
  }
  if (keepRunIds.length > 0) {
    throw invalidField("keep_run_ids", "goes with checkpoints_only; leave it empty to delete whole runs.");
  }
  const hidden = await hideRuns(database, projectId, keyPrefix, signal);
  await sleep(await msUntilQuiet(database, projectId, hidden, quietMs), undefined, { signal });
  for (const runId of hidden) {
    await removeFiles(runId);
    await database.drizzle.transaction(async (transaction) => {
      count.add("training_steps", await deleteSteps(transaction, { projectId, runId }));
      count.add("training_runs", await deleteRunRow(transaction, projectId, runId));
    });
  }
  return count.removal;
}
