/** Stopping all runs of an owner by one call. */
import { StopKind, type StopOwnedRunsRequest } from "@tutelage/proto/run/v1/owner";
import { invalidField } from "./errors.js";
import { keyPrefixOf, requireHeld, requireOwner } from "./ownerfence.js";
import { requireProject } from "./project.js";
import { pauseRun } from "./runcontrol.js";
import type { RunStatus, Runs } from "./runs.js";

const goingOn: RunStatus[] = ["QUEUED", "RUNNING"];
const open: RunStatus[] = [...goingOn, "PAUSED", "BUDGET_EXHAUSTED"];

/**
 * Cancels or pauses an owner's runs, and from then on hears of no other wish
 * under this claim or an earlier one. Gives how many are still on their way.
 */
export async function stopOwnedRuns<Request, State extends object>(
  runs: Runs<Request, State>,
  request: StopOwnedRunsRequest,
): Promise<{ stopping: number }> {
  const { projectId, kind } = request;
  requireProject(projectId);
  const owner = requireOwner(request.owner);
  if (kind !== StopKind.CANCEL && kind !== StopKind.PAUSE) throw invalidField("kind", "must be cancel or pause.");
  const { drizzle, pool } = runs.database;
  // The fence first, then the look: no run is stored behind it.
  await drizzle.transaction((transaction) => requireHeld(transaction, projectId, owner, true));
  const idsOf = async (statuses: RunStatus[]) => {
    const { rows } = await pool.query<{ id: string }>(
      `select id from runs where project_id = $1 and starts_with(idempotency_key, $2) and deleting_at is null
         and status = any($3) order by created_at`,
      [projectId, keyPrefixOf(owner), statuses],
    );
    return rows.map(({ id }) => id);
  };
  for (const id of await idsOf(open)) {
    if (kind === StopKind.CANCEL) await runs.cancel(projectId, id);
    else await pauseRun(runs, projectId, id);
  }
  return { stopping: (await idsOf(goingOn)).length };
}
