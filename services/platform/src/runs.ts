/**
 * Long work that survives its worker. The run row is the job: `start` writes
 * it, a worker claims it with one `skip locked` statement that sets a lease
 * and raises a fence, a heartbeat renews the lease, and every write of the
 * holder checks the fence. A holder that died or hung is replaced when its
 * lease runs out; its late writes are refused.
 */
import { createHash, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import type pg from "pg";
import { type Database, isDatabaseAway, type Transaction } from "./database.js";
import { asTutelageError, notFound, TutelageError } from "./errors.js";
import type { Logger } from "./log.js";
import { RunSignals } from "./signals.js";

export type RunStatus = "QUEUED" | "RUNNING" | "SUCCEEDED" | "FAILED" | "CANCELLED";

export interface RunProgress {
  done: number;
  total: number;
  unit: string;
  etaSeconds: number;
  message: string;
}

/** A stored run. `Request` is what was asked, `State` what the service keeps about it. */
export interface RunRow<Request, State> {
  id: string;
  projectId: string;
  request: Request;
  state: State;
  status: RunStatus;
  cancelRequested: boolean;
  fence: number;
  /** Claims that were handed back with "try again later". */
  deferrals: number;
  progress: RunProgress;
  failure: { code: string; message: string } | undefined;
  revision: number;
  createdAt: Date;
  startedAt: Date | undefined;
  finishedAt: Date | undefined;
}

/** Thrown by a write whose fence is old: another worker holds the run now. */
export class LeaseLost extends TutelageError {
  constructor(runId: string) {
    super("aborted", `Run ${runId} is held by another worker; this one's work is dropped.`, { reason: "lease_lost" });
  }
}

/** Reason with which a lease's signal aborts when somebody cancelled the run. */
export class RunCancelled extends Error {}

/** Thrown by a handler that cannot work now; the run is queued again after the delay. */
export class TryLater extends Error {
  constructor(
    readonly delayMs: number,
    message: string,
  ) {
    super(message);
  }
}

/** Timing of leases. A dead holder is replaced within leaseMs + pollMs. */
export interface LeaseTiming {
  /** How long a claim holds without a heartbeat. */
  leaseMs: number;
  /** Time between heartbeats; a third of the lease leaves room for two lost ones. */
  heartbeatMs: number;
  /** Time between looks for claimable work when no notification comes. */
  pollMs: number;
}

export const defaultLeaseTiming: LeaseTiming = { leaseMs: 6_000, heartbeatMs: 2_000, pollMs: 1_000 };

/** A run whose holders died this often takes its worker down with it; it is failed instead of claimed again. */
const maxFence = 25;
/** A day of "try again later" at half a second: a run may queue for hours behind another on the same accelerator. */
const maxDeferrals = 172_800;

const columns = `id, project_id as "projectId", request, state, status, cancel_requested as "cancelRequested",
  fence::int as fence, deferrals, progress, failure, revision::int as revision, created_at as "createdAt",
  started_at as "startedAt", finished_at as "finishedAt"`;

const unknownProgress: RunProgress = { done: 0, total: 0, unit: "", etaSeconds: 0, message: "" };

/** What a worker may do with the run that it holds. */
export interface Lease<Request, State> {
  readonly run: RunRow<Request, State>;
  readonly fence: number;
  /** Aborts when the run was cancelled, the lease was lost, or the worker shuts down. */
  readonly signal: AbortSignal;
  /** A transaction that first checks the fence. Throws LeaseLost. */
  write<T>(effect: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Stores progress and, when given, the service's state, fenced. */
  report(progress: Partial<RunProgress>, state?: Partial<State>): Promise<void>;
}

/** `failure` is undefined when the run was cancelled. */
type OnFailed<Request, State> = (
  transaction: Transaction,
  run: RunRow<Request, State>,
  failure: TutelageError | undefined,
) => Promise<void>;

export class Runs<Request, State extends object> {
  readonly signals: RunSignals;

  constructor(
    private readonly database: Database,
    private readonly log: Logger,
    private readonly timing: LeaseTiming = defaultLeaseTiming,
  ) {
    this.signals = new RunSignals(database, log);
  }

  /**
   * Stores a run, or returns the one that this key already made.
   * Throws already_exists when the key was used for another request.
   */
  async start(
    projectId: string,
    idempotencyKey: string,
    request: Request,
    state: Partial<State> = {},
  ): Promise<RunRow<Request, State>> {
    const requestJson = JSON.stringify(request);
    const requestSha256 = createHash("sha256").update(requestJson).digest("hex");
    const key = idempotencyKey === "" ? randomUUID() : idempotencyKey;
    const inserted = await this.database.pool.query(
      `insert into runs (project_id, idempotency_key, request, request_sha256, state)
       values ($1, $2, $3, $4, $5) on conflict (project_id, idempotency_key) do nothing returning ${columns}`,
      [projectId, key, requestJson, requestSha256, JSON.stringify(state)],
    );
    if (inserted.rowCount === 1) return toRow(inserted.rows[0]);
    const { rows } = await this.database.pool.query(
      `select request_sha256, ${columns} from runs where project_id = $1 and idempotency_key = $2`,
      [projectId, key],
    );
    if (rows[0].request_sha256 !== requestSha256) {
      throw new TutelageError(
        "already_exists",
        `The idempotency key "${key}" was used for another request; use a new key for a new request.`,
        { reason: "idempotency_key_reused" },
      );
    }
    return toRow(rows[0]);
  }

  /** One run of a project. Throws not_found. */
  async get(projectId: string, id: string): Promise<RunRow<Request, State>> {
    if (!isUuid(id)) throw notFound("run", id);
    const { rows } = await this.database.pool.query(`select ${columns} from runs where project_id = $1 and id = $2`, [
      projectId,
      id,
    ]);
    if (rows.length === 0) throw notFound("run", id);
    return toRow(rows[0]);
  }

  /** A page of a project's runs, newest first; `before` is the last run of the page before. */
  async list(projectId: string, limit: number, before?: { createdAt: string; id: string }) {
    const { rows } = await this.database.pool.query(
      `select ${columns} from runs where project_id = $1
         and ($3::timestamptz is null or (created_at, id) < ($3, $4::uuid))
       order by created_at desc, id desc limit $2`,
      [projectId, limit, before?.createdAt ?? null, before?.id ?? null],
    );
    return rows.map((row) => toRow<Request, State>(row));
  }

  /** Asks a run to stop. A queued one is cancelled at once, a running one when its holder has stopped. */
  async cancel(projectId: string, id: string): Promise<RunRow<Request, State>> {
    if (!isUuid(id)) throw notFound("run", id);
    await this.database.pool.query(
      `update runs set cancel_requested = true, revision = revision + 1,
         status = case when status = 'QUEUED' then 'CANCELLED' else status end,
         finished_at = case when status = 'QUEUED' then now() else finished_at end
       where project_id = $1 and id = $2 and status in ('QUEUED', 'RUNNING') and not cancel_requested`,
      [projectId, id],
    );
    return await this.get(projectId, id);
  }

  /** The run now and after each change, until it is final. Ends early when the signal aborts. */
  async *watch(projectId: string, id: string, signal: AbortSignal): AsyncGenerator<RunRow<Request, State>> {
    const subscription = this.signals.subscribe(id);
    try {
      let seenRevision = 0;
      while (!signal.aborted) {
        const run = await this.get(projectId, id);
        if (run.revision > seenRevision) {
          seenRevision = run.revision;
          yield run;
          if (isFinal(run.status)) return;
        }
        await subscription.next(this.timing.pollMs, signal);
      }
    } finally {
      subscription.close();
    }
  }

  /**
   * Works on runs until the signal aborts, `concurrency` at a time. The handler
   * gets the lease; what it returns is merged into the run's state together
   * with the final status, in one fenced transaction with `commit`'s effects.
   */
  async work(
    handler: (
      lease: Lease<Request, State>,
    ) => Promise<{ state?: Partial<State>; commit?: (transaction: Transaction) => Promise<void> }>,
    options: {
      concurrency: number;
      signal: AbortSignal;
      /** Effects that belong to a run that failed or was cancelled, in the transaction of that status. */
      onFailed?: OnFailed<Request, State>;
    },
  ): Promise<void> {
    const holder = `${hostname()}/${process.pid}/${randomUUID().slice(0, 8)}`;
    const loops = Array.from({ length: options.concurrency }, async () => {
      const subscription = this.signals.subscribe("any");
      try {
        let dueAt = 0;
        while (!options.signal.aborted) {
          const run = await this.claim(holder).catch((error: unknown) => {
            if (!options.signal.aborted) this.log.warn({ err: error }, "cannot look for work; trying again");
            return undefined;
          });
          if (run === undefined) {
            // A run that was handed back is looked for when it is due, not a whole poll later.
            const untilDueMs = dueAt > Date.now() ? dueAt - Date.now() : this.timing.pollMs;
            await subscription.next(Math.min(untilDueMs, this.timing.pollMs), options.signal);
          } else {
            const dueInMs = await this.hold(run, handler, options);
            dueAt = Date.now() + dueInMs;
          }
        }
      } finally {
        subscription.close();
      }
    });
    await Promise.all(loops);
  }

  private async claim(holder: string): Promise<RunRow<Request, State> | undefined> {
    const { rows } = await this.database.pool.query(
      `update runs set status = 'RUNNING', fence = fence + 1, lease_holder = $1,
         lease_until = now() + $2 * interval '1 millisecond', started_at = coalesce(started_at, now()),
         revision = revision + 1
       where id = (
         select id from runs
         where (status = 'QUEUED' and not_before <= now()) or (status = 'RUNNING' and lease_until < now())
         order by created_at for update skip locked limit 1)
       returning ${columns}`,
      [holder, this.timing.leaseMs],
    );
    return rows.length === 0 ? undefined : toRow(rows[0]);
  }

  /** Runs the handler under a heartbeat and stores how it ended. Never throws. Gives ms until the run is due again. */
  private async hold(
    run: RunRow<Request, State>,
    handler: Parameters<Runs<Request, State>["work"]>[0],
    { signal: shutdown, onFailed }: { signal: AbortSignal; onFailed?: OnFailed<Request, State> },
  ): Promise<number> {
    const ended = new AbortController();
    const lost = new AbortController();
    const cancelled = new AbortController();
    const signal = AbortSignal.any([lost.signal, cancelled.signal, shutdown]);
    const heartbeat = this.heartbeat(run, ended.signal, { lost, cancelled });
    const lease = this.lease(run, signal);
    try {
      if (run.cancelRequested) cancelled.abort(new RunCancelled());
      // A claim that was handed back raised the fence too, but nothing died.
      if (run.fence - run.deferrals > maxFence) {
        throw new TutelageError("internal", `The run was given up: its worker died ${maxFence} times.`, {
          reason: "worker_died_too_often",
        });
      }
      signal.throwIfAborted();
      const result = await handler(lease);
      await lease.write(async (transaction) => {
        await result.commit?.(transaction);
        await finish(transaction, run, "SUCCEEDED", { state: result.state ?? {} });
      });
      return 0;
    } catch (error) {
      await this.settle(
        run,
        lease,
        error,
        { lost: lost.signal, cancelled: cancelled.signal, shutdown },
        onFailed,
      ).catch((settleError: unknown) =>
        this.log.warn({ err: settleError, runId: run.id }, "could not store how the run ended; its lease runs out"),
      );
      return error instanceof TryLater ? error.delayMs : 0;
    } finally {
      ended.abort();
      await heartbeat;
    }
  }

  private async settle(
    run: RunRow<Request, State>,
    lease: Lease<Request, State>,
    error: unknown,
    why: { lost: AbortSignal; cancelled: AbortSignal; shutdown: AbortSignal },
    onFailed: OnFailed<Request, State> = async () => {},
  ): Promise<void> {
    if (why.lost.aborted || error instanceof LeaseLost) {
      this.log.warn({ runId: run.id, fence: run.fence }, "lease lost; work dropped");
      return;
    }
    if (why.cancelled.aborted) {
      await lease.write(async (transaction) => {
        await onFailed(transaction, run, undefined);
        await finish(transaction, run, "CANCELLED", {});
      });
      return;
    }
    const later =
      error instanceof TryLater ? error : isDatabaseAway(error) ? new TryLater(1_000, "database away") : undefined;
    if (why.shutdown.aborted || later !== undefined) {
      // Handed back: the next worker may claim it at once, or after the delay.
      const { rows } = await this.database.pool.query(
        `update runs set status = 'QUEUED', lease_until = null, lease_holder = null, revision = revision + 1,
           deferrals = deferrals + $3, not_before = now() + $4 * interval '1 millisecond'
         where id = $1 and fence = $2 and status = 'RUNNING' returning deferrals, cancel_requested`,
        [run.id, run.fence, 1, why.shutdown.aborted ? 0 : (later?.delayMs ?? 0)],
      );
      if (rows.length === 0 || rows[0].deferrals <= maxDeferrals) return;
      await this.database.pool.query(
        `update runs set status = 'FAILED', finished_at = now(), revision = revision + 1, failure = $2
         where id = $1 and status = 'QUEUED'`,
        [run.id, JSON.stringify({ code: "waited_too_long", message: `Given up waiting: ${later?.message ?? ""}` })],
      );
      return;
    }
    const failure = asTutelageError(error);
    this.log.error({ err: failure.cause ?? failure, runId: run.id, reason: failure.reason }, "run failed");
    await lease.write(async (transaction) => {
      await onFailed(transaction, run, failure);
      await finish(transaction, run, "FAILED", { failure: { code: failure.reason, message: failure.message } });
    });
  }

  private lease(run: RunRow<Request, State>, signal: AbortSignal): Lease<Request, State> {
    const write: Lease<Request, State>["write"] = (effect) =>
      this.database.drizzle.transaction(async (transaction) => {
        const held = await transaction.execute(
          sql`select 1 from runs where id = ${run.id} and fence = ${run.fence} and status = 'RUNNING' for update`,
        );
        if (held.rowCount === 0) throw new LeaseLost(run.id);
        return await effect(transaction);
      });
    return {
      run,
      fence: run.fence,
      signal,
      write,
      report: async (progress, state = {}) => {
        const { rowCount } = await this.database.pool.query(
          `update runs set progress = progress || $3::jsonb, state = state || $4::jsonb, revision = revision + 1
           where id = $1 and fence = $2 and status = 'RUNNING'`,
          [run.id, run.fence, JSON.stringify(progress), JSON.stringify(state)],
        );
        if (rowCount === 0) throw new LeaseLost(run.id);
      },
    };
  }

  /** Renews the lease until `ended`; aborts `lost` or `cancelled` when that is what it learns. */
  private async heartbeat(
    run: RunRow<Request, State>,
    ended: AbortSignal,
    outcome: { lost: AbortController; cancelled: AbortController },
  ): Promise<void> {
    const subscription = this.signals.subscribe(run.id);
    let heldUntil = Date.now() + this.timing.leaseMs;
    let nextBeat = Date.now() + this.timing.heartbeatMs;
    try {
      while (!ended.aborted && !outcome.lost.signal.aborted) {
        // A notification about this run may be a Cancel: look at once, beat on time.
        const woken = await subscription.next(Math.max(0, nextBeat - Date.now()), ended);
        if (ended.aborted) return;
        if (woken && !outcome.cancelled.signal.aborted) await sleep(50);
        const askedAt = Date.now();
        try {
          const { rows } = await this.database.pool.query(
            `update runs set lease_until = now() + $3 * interval '1 millisecond'
             where id = $1 and fence = $2 and status = 'RUNNING' returning cancel_requested`,
            [run.id, run.fence, this.timing.leaseMs],
          );
          if (rows.length === 0) {
            if (!ended.aborted) outcome.lost.abort();
            return;
          }
          heldUntil = askedAt + this.timing.leaseMs;
          if (rows[0].cancel_requested) outcome.cancelled.abort(new RunCancelled());
        } catch {
          if (Date.now() > heldUntil) outcome.lost.abort();
        }
        nextBeat = Date.now() + this.timing.heartbeatMs;
      }
    } finally {
      subscription.close();
    }
  }
}

async function finish(
  transaction: Transaction,
  run: { id: string },
  status: RunStatus,
  end: { state?: object; failure?: { code: string; message: string } },
): Promise<void> {
  await transaction.execute(sql`
    update runs set status = ${status}, finished_at = now(), lease_until = null, revision = revision + 1,
      state = state || ${JSON.stringify(end.state ?? {})}::jsonb,
      failure = ${end.failure === undefined ? null : JSON.stringify(end.failure)}::jsonb
    where id = ${run.id}`);
}

function toRow<Request, State>(row: pg.QueryResultRow): RunRow<Request, State> {
  return {
    ...(row as RunRow<Request, State>),
    progress: { ...unknownProgress, ...row.progress },
    failure: row.failure ?? undefined,
    startedAt: row.startedAt ?? undefined,
    finishedAt: row.finishedAt ?? undefined,
  };
}

export function isFinal(status: RunStatus): boolean {
  return status === "SUCCEEDED" || status === "FAILED" || status === "CANCELLED";
}

export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
}
