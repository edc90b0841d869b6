/**
 * Deleting runs, the same for every kind: what is not final is cancelled and
 * waited for, then all are hidden in one statement, and only then does the
 * service remove what they left, a run's row with it or after it. Whoever dies
 * in between leaves hidden rows, which the next call finds by the same key.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import type { Database, Transaction } from "./database.js";
import { invalidField, TutelageError } from "./errors.js";

/** A worker stops a cancelled run within a heartbeat; a dead one's lease runs out, and its successor stops it. */
const stopPatienceMs = 25_000;
const pollMs = 100;

/**
 * Hides all runs of a project whose idempotency key begins so, and gives their
 * ids. Throws unavailable when one does not stop.
 * @param createdBefore only those that were started before
 */
export async function hideRuns(
  { pool }: Pick<Database, "pool">,
  projectId: string,
  keyPrefix: string,
  signal: AbortSignal,
  createdBefore?: Date,
): Promise<string[]> {
  if (keyPrefix === "") throw invalidField("key_prefix", "is empty; say how the keys of the runs to delete begin.");
  const chosen = [projectId, keyPrefix, createdBefore ?? null];
  const choice = `project_id = $1 and starts_with(idempotency_key, $2)
    and ($3::timestamptz is null or created_at < $3::timestamptz)`;
  const until = Date.now() + stopPatienceMs;
  for (;;) {
    await pool.query(
      `update runs set cancel_requested = true, revision = revision + 1,
         status = case when status = 'RUNNING' then status else 'CANCELLED' end,
         finished_at = case when status = 'RUNNING' then finished_at else now() end, rest = null, wake_at = null
       where ${choice} and status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED')
         and (status <> 'RUNNING' or not cancel_requested)`,
      chosen,
    );
    const { rows } = await pool.query(
      `select id from runs where ${choice}
         and status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED') limit 1`,
      chosen,
    );
    if (rows.length === 0) break;
    if (Date.now() > until) {
      throw new TutelageError("unavailable", `Run ${rows[0].id} does not stop yet; delete again in a moment.`, {
        reason: "run_not_stopped",
      });
    }
    await sleep(pollMs, undefined, { signal });
  }
  const hidden = await pool.query(
    `update runs set deleting_at = now()
     where ${choice} and status in ('SUCCEEDED', 'FAILED', 'CANCELLED') returning id`,
    chosen,
  );
  return hidden.rows.map(({ id }) => id);
}

/** Removes the row of a hidden run; 0 when another call was faster. */
export async function deleteRunRow(transaction: Transaction, projectId: string, id: string): Promise<number> {
  const { rowCount } = await transaction.execute(
    sql`delete from runs where project_id = ${projectId} and id = ${id} and deleting_at is not null`,
  );
  return rowCount ?? 0;
}
