/** Removes evaluation runs with their predictions. */
import type { Database } from "@tutelage/platform/database";
import { RemovalCount } from "@tutelage/platform/removal";
import { deleteRunRow, hideRuns } from "@tutelage/platform/rundeletion";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import { deletePredictions } from "./store.js";

export async function deleteEvaluationRuns(
  database: Database,
  projectId: string,
  keyPrefix: string,
  signal: AbortSignal,
): Promise<Removal> {
  const count = new RemovalCount();
  for (const runId of await hideRuns(database, projectId, keyPrefix, signal)) {
    await database.drizzle.transaction(async (transaction) => {
      count.add("predictions", await deletePredictions(transaction, { projectId, runId }));
      count.add("evaluation_runs", await deleteRunRow(transaction, projectId, runId));
    });
  }
  return count.removal;
}
