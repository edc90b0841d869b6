/** The worker's side of runs: claims them, holds their leases, stores how they ended. */
import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import type pg from "pg";
import { claim } from "./claim.js";
import { type Database, isDatabaseAway, type Transaction } from "./database.js";
import { asTutelageError, TutelageError } from "./errors.js";
import { untilDrained } from "./handover.js";
import { beat, type Outcomes } from "./heartbeat.js";
import { openLease } from "./lease.js";
import type { Logger } from "./log.js";
import { pausedCode, pausedMessage, Rest, RunPaused } from "./rest.js";
import {
  type Lease,
  LeaseLost,
  type LeaseTiming,
  RunCancelled,
  type RunRow,
  type Runs,
  returned,
  TryLater,
  toRow,
} from "./runs.js";
import { onceThere } from "./whileaway.js";

/** A run whose holders died this often since it last got further takes its worker down with it; it is failed instead of claimed again. */
const maxDeaths = 25;
/** Timers and clocks cut to the millisecond may look a hair before the database says that a run is due. */
const dueMarginMs = 10;
/** Time after which others are told again what they could not be told. */
const tellAgainMs = 500;
const restKinds = { PAUSED: "paused", BUDGET_EXHAUSTED: "budget_exhausted" } as const;
const endings = { SUCCEEDED: "succeeded", FAILED: "failed", CANCELLED: "cancelled" } as const;

/** What a handler's work came to. */
export interface Result<State> {
  state?: Partial<State>;
  /** Stored together with that. */
  commit?: (transaction: Transaction) => Promise<void>;
  /**
   * Removes what a successor would need until all that is stored. A crash may leave it undone, and it cannot fail the
   * run any more.
   */
  tidy?: () => Promise<void>;
}

/** Does the work of one run. */
export type Handler<Request, State> = (lease: Lease<Request, State>) => Promise<Result<State>>;

export interface WorkOptions<Request, State> {
  /** Runs at a time. */
  concurrency: number;
  /** Aborts when the worker shuts down. */
  signal: AbortSignal;
  /** How long a handler may take to stop after that, before its run is handed over without it. */
  drainMs?: number;
  /**
   * Ends what a run that is being cancelled left going elsewhere, maybe under an earlier holder. Repeated until it
   * succeeds, by whoever holds the run.
   */
  abandon?: (run: RunRow<Request, State>, signal: AbortSignal) => Promise<void>;
  /** Has what a run that is being paused left going elsewhere come to rest, and waits until it has. Repeated likewise. */
  suspend?: (run: RunRow<Request, State>, signal: AbortSignal) => Promise<void>;
}

/**
 * Works on runs until the signal aborts, `concurrency` at a time. The handler
 * gets the lease; what it returns is merged into the run's state together
 * with the final status, in one fenced transaction with `commit`'s effects.
 */
export async function work<Request, State extends object>(
  runs: Runs<Request, State>,
  handler: Handler<Request, State>,
  options: WorkOptions<Request, State>,
): Promise<void> {
  await new Worker(runs, handler, options).work();
}

class Worker<Request, State extends object> {
  private readonly database: Database;
  private readonly log: Logger;
  private readonly timing: LeaseTiming;

  constructor(
    private readonly runs: Runs<Request, State>,
    private readonly handler: Handler<Request, State>,
    private readonly options: WorkOptions<Request, State>,
  ) {
    ({ database: this.database, log: this.log, timing: this.timing } = runs);
  }

  async work(): Promise<void> {
    const holder = `${hostname()}/${process.pid}/${randomUUID().slice(0, 8)}`;
    const loops = Array.from({ length: this.options.concurrency }, async () => {
      const subscription = this.runs.signals.subscribe("any");
      try {
        let dueAt = 0;
        while (!this.options.signal.aborted) {
          const run = await claim(this.runs, holder).catch((error: unknown) => {
            if (!this.options.signal.aborted) this.log.warn({ err: error }, "cannot look for work; trying again");
            return undefined;
          });
          if (run === undefined) {
            // A run that was handed back is looked for when it is due, not a whole poll later.
            const untilDueMs = dueAt > Date.now() ? dueAt - Date.now() : this.timing.pollMs;
            await subscription.next(Math.min(untilDueMs, this.timing.pollMs), this.options.signal);
          } else {
            const dueInMs = await this.hold(run);
            dueAt = dueInMs === 0 ? 0 : Date.now() + dueInMs + dueMarginMs;
          }
        }
      } finally {
        subscription.close();
      }
    });
    await Promise.all([...loops, this.rescue(holder)]);
  }

  /**
   * Takes runs over whose holder died or shut down, and those without one that are to be stopped, beside the loops:
   * those may be busy for hours with runs of their own, and the holder's successor at its address with queued ones. As
   * many at a time as there are loops.
   */
  private async rescue(holder: string): Promise<void> {
    const { concurrency, signal } = this.options;
    const held = new Set<Promise<unknown>>();
    while (!signal.aborted) {
      await sleep(this.timing.pollMs, undefined, { signal }).catch(() => {});
      while (held.size < concurrency && !signal.aborted) {
        // The loops say it when the database is away.
        const run = await claim(this.runs, holder, "orphaned").catch(() => undefined);
        if (run === undefined) break;
        const holding = this.hold(run).finally(() => held.delete(holding));
        held.add(holding);
      }
    }
    await Promise.all(held);
  }

  /** Runs the handler under a heartbeat and stores how it ended. Never throws. Gives ms until the run is due again. */
  private async hold(run: RunRow<Request, State>): Promise<number> {
    const shutdown = this.options.signal;
    const ended = new AbortController();
    const lost = new AbortController();
    const cancelled = new AbortController();
    const paused = new AbortController();
    const signal = AbortSignal.any([lost.signal, cancelled.signal, paused.signal, shutdown]);
    // A handler may do many things side by side, and each listens.
    setMaxListeners(0, signal);
    const beating = beat(this.runs, run, ended.signal, { lost, cancelled, paused });
    const lease = openLease<Request, State>(this.database, run, signal, cancelled.signal);
    try {
      if (run.cancelRequested) cancelled.abort(new RunCancelled());
      else if (run.pauseRequested) paused.abort(new RunPaused());
      // A claim that was handed back raised the fence too, but nothing died.
      if (run.fence - run.deferrals > maxDeaths) {
        throw new TutelageError("internal", `The run was given up: its worker died ${maxDeaths} times.`, {
          reason: "worker_died_too_often",
        });
      }
      signal.throwIfAborted();
      const result = await untilDrained(this.handler(lease), shutdown, this.options.drainMs);
      // What took hours is not lost to a Postgres that restarts now. One that stored it before it went refuses the
      // second write, as the run is not running any more.
      await onceThere(signal, () =>
        lease.write(async (transaction) => {
          await result.commit?.(transaction);
          await this.finish(transaction, run, "SUCCEEDED", { state: result.state ?? {} });
        }),
      );
      await result
        .tidy?.()
        .catch((error: unknown) => this.log.warn({ err: error, runId: run.id }, "could not tidy up"));
      return 0;
    } catch (error) {
      const settle = () => this.settle(run, lease, error, { lost, cancelled, paused });
      await onceThere(AbortSignal.any([lost.signal, shutdown]), settle).catch((settleError: unknown) =>
        this.log.warn({ err: settleError, runId: run.id }, "could not store how the run ended; its lease runs out"),
      );
      return error instanceof TryLater ? error.delayMs : 0;
    } finally {
      ended.abort();
      await beating;
    }
  }

  private async settle(
    run: RunRow<Request, State>,
    lease: Lease<Request, State>,
    error: unknown,
    { lost: { signal: lost }, cancelled: { signal: cancelled }, paused: { signal: paused } }: Outcomes,
  ): Promise<void> {
    const { signal: shutdown, abandon, suspend } = this.options;
    if (lost.aborted || error instanceof LeaseLost) {
      this.log.warn({ runId: run.id, fence: run.fence }, "lease lost; work dropped");
      return;
    }
    // The row, not the claimed copy: it knows what was asked since the last heartbeat.
    // What was asked may be the cause of the error: somebody ended a run that this one waited for.
    const known = isDatabaseAway(error) ? run : await this.runs.get(run.projectId, run.id);
    if (paused.aborted && !cancelled.aborted && !shutdown.aborted) {
      const rests = await this.tell(run, suspend, AbortSignal.any([lost, cancelled, shutdown]));
      if (lost.aborted) return;
      if (rests && !cancelled.aborted && !shutdown.aborted) {
        await this.rest(run, lease, new Rest("PAUSED", pausedCode, pausedMessage));
        return;
      }
    }
    if (cancelled.aborted || known.cancelRequested) {
      const told = await this.tell(run, abandon, AbortSignal.any([lost, shutdown]));
      if (lost.aborted) return;
      if (told) {
        await lease.write((transaction) => this.finish(transaction, run, "CANCELLED", {}));
        return;
      }
    }
    if (error instanceof Rest && !shutdown.aborted) {
      await this.rest(run, lease, error);
      return;
    }
    const later = shutdown.aborted ? new TryLater(0, "shutdown") : asTryLater(error);
    if (later !== undefined) {
      await this.handBack(run, later);
      return;
    }
    const failure = asTutelageError(error);
    this.log.error({ err: failure.cause ?? failure, runId: run.id, reason: failure.reason }, "run failed");
    await lease.write((transaction) =>
      this.finish(transaction, run, "FAILED", { failure: { code: failure.reason, message: failure.message } }),
    );
  }

  /**
   * Queues the run again: the next worker may claim it at once, or after the delay. However often: it may wait for days
   * behind others on the same accelerator. Who waits for what may never come, e.g. a dead student, has limits of its own.
   */
  private async handBack(run: RunRow<Request, State>, { delayMs, message }: TryLater): Promise<void> {
    const isShutdown = this.options.signal.aborted;
    await this.database.drizzle.transaction(async (transaction) => {
      const { rows } = await transaction.execute(sql`
        update runs set status = 'QUEUED', lease_until = null, lease_holder = null, revision = revision + 1,
          deferrals = deferrals + 1,
          -- What was asked since the last heartbeat does not wait for what this run does.
          not_before = case when pause_requested or cancel_requested then now()
            else now() + ${delayMs} * interval '1 millisecond' end,
          handed_over = ${isShutdown}
        where id = ${run.id} and fence = ${run.fence} and status = 'RUNNING' returning ${returned}`);
      if (rows[0] === undefined) return;
      await this.runs.changed(transaction, { kind: "handed_back", reason: message }, toRow(rows[0]));
    });
  }

  /**
   * Tells what the run left going elsewhere to stop, until it is told: a run that is said to have stopped must not spend
   * any more. False when the signal came first: whoever goes on with the run tells.
   */
  private async tell(
    { projectId, id }: RunRow<Request, State>,
    stop: ((run: RunRow<Request, State>, signal: AbortSignal) => Promise<void>) | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (stop === undefined) return true;
    for (let warned = false; !signal.aborted; warned = true) {
      try {
        // The row, not the claimed copy: it knows what this holder started.
        await stop(await this.runs.get(projectId, id), signal);
        return true;
      } catch (error) {
        if (!signal.aborted && !warned)
          this.log.warn({ err: error, runId: id }, "cannot stop what the run started yet");
      }
      await sleep(tellAgainMs, undefined, { signal }).catch(() => {});
    }
    return false;
  }

  /** Lays a run to rest, or queues it again where the reason is gone by now or something else is wanted. */
  private async rest({ id, resumes }: RunRow<Request, State>, lease: Lease<Request, State>, rest: Rest): Promise<void> {
    const { status, code, message, until } = rest;
    const reason = JSON.stringify({ code, message });
    await lease.write(async (transaction) => {
      // It ends here by intent, which its fence must not count as a death.
      const { rows } = await transaction.execute(sql`
        with now_known as (
          select cancel_requested or resumes <> ${resumes} or (pause_requested and ${code !== pausedCode}) as goes_on
          from runs where id = ${id})
        update runs set status = case when goes_on then 'QUEUED' else ${status} end, lease_until = null,
          lease_holder = null, revision = revision + 1, deferrals = deferrals + 1, not_before = now(),
          rest = case when goes_on then null else ${reason}::jsonb end,
          wake_at = case when goes_on then null else ${until?.toISOString() ?? null}::timestamptz end
        from now_known where id = ${id} returning ${returned}`);
      const run = toRow<Request, State>(rows[0] as pg.QueryResultRow);
      await this.runs.changed(
        transaction,
        run.status === "QUEUED" ? { kind: "handed_back", reason: "resumed" } : { kind: restKinds[status] },
        run,
      );
    });
  }

  private async finish(
    transaction: Transaction,
    { id }: Pick<RunRow<Request, State>, "id">,
    status: keyof typeof endings,
    end: { state?: object; failure?: { code: string; message: string } },
  ): Promise<void> {
    const { rows } = await transaction.execute(sql`
      update runs set status = ${status}, finished_at = now(), lease_until = null, revision = revision + 1,
        state = state || ${JSON.stringify(end.state ?? {})}::jsonb,
        failure = ${end.failure === undefined ? null : JSON.stringify(end.failure)}::jsonb
      where id = ${id} returning ${returned}`);
    await this.runs.changed(transaction, { kind: endings[status] }, toRow(rows[0] as pg.QueryResultRow));
  }
}

/** Why the run may go on later, where the error is no end of it. */
function asTryLater(error: unknown): TryLater | undefined {
  if (error instanceof TryLater) return error;
  return isDatabaseAway(error) ? new TryLater(1_000, "database away") : undefined;
}
