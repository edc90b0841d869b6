/** Keeping a run's lease while its holder works, and hearing what was asked of the run meanwhile. */
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { RunPaused } from "./rest.js";
import { RunCancelled, type RunRow, type Runs } from "./runs.js";

/** Time to the next heartbeat when one did not reach Postgres. */
const missedBeatMs = 250;

/** What a holder learns while it works. */
export interface Outcomes {
  lost: AbortController;
  cancelled: AbortController;
  paused: AbortController;
}

/** Renews the lease until the work has ended or the lease is lost. */
export async function beat<Request, State extends object>(
  { database, signals, timing }: Runs<Request, State>,
  run: RunRow<Request, State>,
  ended: AbortSignal,
  outcome: Outcomes,
): Promise<void> {
  const subscription = signals.subscribe(run.id);
  let heldUntil = Date.now() + timing.leaseMs;
  let nextBeat = Date.now() + timing.heartbeatMs;
  try {
    while (!ended.aborted && !outcome.lost.signal.aborted) {
      // A notification about this run may be a Cancel: look at once, beat on time.
      const woken = await subscription.next(Math.max(0, nextBeat - Date.now()), ended);
      if (ended.aborted) return;
      if (woken && !outcome.cancelled.signal.aborted) await sleep(50);
      const askedAt = Date.now();
      let beatInMs = timing.heartbeatMs;
      try {
        const { rows } = await database.pool.query({
          text: `update runs set lease_until = now() + $3 * interval '1 millisecond'
           where id = $1 and fence = $2 and status = 'RUNNING' returning cancel_requested, pause_requested`,
          values: [run.id, run.fence, timing.leaseMs],
          // One that hangs must not keep us from seeing that the lease is over.
          query_timeout: Math.max(1, heldUntil - askedAt),
        } as pg.QueryConfig);
        if (rows.length === 0) {
          if (!ended.aborted) outcome.lost.abort();
          return;
        }
        heldUntil = askedAt + timing.leaseMs;
        if (rows[0].cancel_requested) outcome.cancelled.abort(new RunCancelled());
        else if (rows[0].pause_requested) outcome.paused.abort(new RunPaused());
      } catch {
        if (Date.now() >= heldUntil) outcome.lost.abort();
        // There is time for a few more before the lease is over.
        beatInMs = Math.min(beatInMs, missedBeatMs);
      }
      nextBeat = Date.now() + beatInMs;
    }
  } finally {
    subscription.close();
  }
}
