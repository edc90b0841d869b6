/** Removes generation runs with their results and calls; what was paid stays as numbers. */
import { type Database, sqlState } from "@tutelage/platform/database";
import { RemovalCount } from "@tutelage/platform/removal";
import { hideRuns } from "@tutelage/platform/rundeletion";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import { deleteRun } from "./deletionstore.js";
import { foreignKeyViolation } from "./store.js";

/** Each failed try means that another run had just reused one of the replies. */
const mostTries = 10;

export async function deleteGenerationRuns(
  database: Database,
  projectId: string,
  keyPrefix: string,
  signal: AbortSignal,
  createdBefore?: Date,
): Promise<Removal> {
  const count = new RemovalCount();
  for (const runId of await hideRuns(database, projectId, keyPrefix, signal, createdBefore)) {
    for (let tries = 1; ; tries += 1) {
      try {
        const removed = await database.drizzle.transaction((transaction) => deleteRun(transaction, projectId, runId));
        for (const [kind, number] of Object.entries(removed)) count.add(kind, number);
        break;
      } catch (error) {
        if (sqlState(error) !== foreignKeyViolation || tries === mostTries) throw error;
      }
    }
  }
  return count.removal;
}
