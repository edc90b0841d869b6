/** Claiming a run: which is next, and under which fence its new holder works. */
import { sql } from "drizzle-orm";
import { type RunRow, type RunStatus, type Runs, returned, toRow } from "./runs.js";

/**
 * Takes the oldest run that is due, if there is one.
 * @param which "orphaned": only one whose holder died or shut down, or one without a holder that is to be stopped
 */
export async function claim<Request, State extends object>(
  runs: Runs<Request, State>,
  holder: string,
  which: "any" | "orphaned" = "any",
): Promise<RunRow<Request, State> | undefined> {
  return await runs.database.drizzle.transaction(async (transaction) => {
    const { rows } = await transaction.execute(sql`
      with next as (
        select id as next_id, status as status_before, started_at as started_before from runs
        where (status in ('QUEUED', 'RUNNING') or wake_at is not null)
          and ((status = 'RUNNING' and lease_until < now())
            or (status = 'QUEUED' and not_before <= now()
              and (handed_over or cancel_requested or pause_requested or ${which === "any"}))
            or (wake_at <= now() and ${which === "any"}))
        order by created_at for update skip locked limit 1)
      update runs set status = 'RUNNING', fence = fence + 1, lease_holder = ${holder},
        lease_until = now() + ${runs.timing.leaseMs} * interval '1 millisecond',
        started_at = coalesce(started_at, now()), handed_over = false, rest = null, wake_at = null,
        revision = revision + 1
      from next where id = next_id
      returning ${returned}, status_before as "statusBefore", started_before is null as "isFirst"`);
    if (rows[0] === undefined) return undefined;
    const { statusBefore, isFirst, ...row } = rows[0];
    const run = toRow<Request, State>(row);
    const kind = kindOf(statusBefore as RunStatus, isFirst === true);
    // One that is claimed only to be stopped does not go on.
    if (kind !== "continued" || !(run.cancelRequested || run.pauseRequested))
      await runs.changed(transaction, { kind }, run);
    return run;
  });
}

function kindOf(before: RunStatus, isFirst: boolean) {
  if (before === "RUNNING") return "taken_over";
  if (isFirst) return "started";
  return before === "QUEUED" ? "continued" : "resumed";
}
