/**
 * Long work that survives its worker. The run row is the job: `start` writes
 * it, a worker claims it with one `skip locked` statement that sets a lease
 * and raises a fence, a heartbeat renews the lease, and every write of the
 * holder checks the fence. A holder that died or hung is replaced when its
 * lease runs out; its late writes are refused.
 */
import { createHash, randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import type pg from "pg";
import type { Database, Transaction } from "./database.js";
import { notFound, TutelageError } from "./errors.js";
import type { Logger } from "./log.js";
import type { RestStatus } from "./rest.js";
import { RunSignals } from "./signals.js";

export type RunStatus = "QUEUED" | "RUNNING" | RestStatus | "SUCCEEDED" | "FAILED" | "CANCELLED";

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
  pauseRequested: boolean;
  /** Why it rests, and when it goes on by itself. */
  rest: { code: string; message: string } | undefined;
  wakeAt: Date | undefined;
  /** Times that something may have ended the reason for a rest. */
  resumes: number;
  fence: number;
  /** Claims that ended well: handed back with "try again later", or followed by an advance. Those above it died. */
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

/** A change of a run's status, or of what is asked of its holder. */
export type RunChange =
  /**
   * Stored; claimed for the first time; claimed again after it was handed back; claimed from a holder whose lease ran
   * out; asked to stop; and the three ends.
   */
  | { kind: "queued" | "started" | "continued" | "taken_over" | "cancelling" | "cancelled" | "succeeded" | "failed" }
  /** Asked to rest; rests, `rest` says why; goes on after a rest; tried again after a failure. */
  | { kind: "pausing" | "paused" | "budget_exhausted" | "resumed" | "retried" }
  /** Queued again by its holder, which shuts down or cannot go on now. */
  | { kind: "handed_back"; reason: string };

/** What a service does with a change, in the transaction that makes it. Gets the run as it then is. */
export type OnChange<Request, State> = (
  transaction: Transaction,
  change: RunChange,
  run: RunRow<Request, State>,
) => Promise<void>;

/** A time as milliseconds: drizzle would give a timestamp as text. */
const milliseconds = (column: string) => `(extract(epoch from ${column}) * 1000)::float8`;

/** What a run is read from. */
export const runColumns = `id, project_id as "projectId", request, state, status, cancel_requested as "cancelRequested",
  pause_requested as "pauseRequested", rest, ${milliseconds("wake_at")} as "wakeAt", resumes, fence::int as fence,
  deferrals, progress, failure, revision::int as revision, ${milliseconds("created_at")} as "createdAt",
  ${milliseconds("started_at")} as "startedAt", ${milliseconds("finished_at")} as "finishedAt"`;
export const returned = sql.raw(runColumns);

/** What a worker may do with the run that it holds. */
export interface Lease<Request, State> {
  readonly run: RunRow<Request, State>;
  readonly fence: number;
  /** Aborts when the run was cancelled or paused, the lease was lost, or the worker shuts down. */
  readonly signal: AbortSignal;
  /** Aborts when the run was cancelled, also while it was pausing: not even what is under way is waited for. */
  readonly cancelled: AbortSignal;
  /** A transaction that first checks the fence. Throws LeaseLost. */
  write<T>(effect: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** The same, for work that a successor need not do again: however many holders died before it, the run gets on. */
  advance<T>(effect: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Stores progress and, when given, the service's state, fenced. */
  report(progress: Partial<RunProgress>, state?: Partial<State>): Promise<void>;
}

export class Runs<Request, State extends object> {
  readonly signals: RunSignals;

  constructor(
    readonly database: Database,
    readonly log: Logger,
    readonly timing: LeaseTiming = defaultLeaseTiming,
    /** Called in the transaction of every change: what it writes is there exactly when the change is. */
    readonly changed: OnChange<Request, State> = async () => {},
    /** Its runs start others elsewhere: one that was ever held is stopped by a holder, which first tells those. */
    readonly ownsRuns = false,
  ) {
    this.signals = new RunSignals(database, log);
  }

  /**
   * Stores a run, or returns the one that this key already made.
   * Throws already_exists when the key was used for another request.
   * @param asked what tells requests apart, where `request` has more in it than was asked
   * @param id the run's id, where something must name it before it is stored
   * @param alongside done in the same transaction, first; it may refuse
   */
  async start(
    projectId: string,
    idempotencyKey: string,
    request: Request,
    {
      state = {},
      asked = request,
      id = randomUUID(),
      alongside = async () => {},
    }: {
      state?: Partial<State>;
      asked?: unknown;
      id?: string;
      alongside?: (transaction: Transaction) => Promise<void>;
    } = {},
  ): Promise<RunRow<Request, State>> {
    const key = idempotencyKey === "" ? randomUUID() : idempotencyKey;
    const started = await this.database.drizzle.transaction(async (transaction) => {
      await alongside(transaction);
      const { rows } = await transaction.execute(sql`
        insert into runs (project_id, idempotency_key, request, request_sha256, state, id)
        values (${projectId}, ${key}, ${JSON.stringify(request)}::jsonb, ${sha256(asked)},
          ${JSON.stringify(state)}::jsonb, ${id})
        on conflict (project_id, idempotency_key) do nothing returning ${returned}`);
      if (rows[0] === undefined) return undefined;
      const run = toRow<Request, State>(rows[0]);
      await this.changed(transaction, { kind: "queued" }, run);
      return run;
    });
    if (started !== undefined) return started;
    const first = await this.startedBy(projectId, key, asked);
    if (first === undefined) {
      throw new TutelageError(
        "aborted",
        `The run of the idempotency key "${key}" is being deleted; use a new key, or this one once it is gone.`,
        { reason: "run_being_deleted" },
      );
    }
    return first;
  }

  /**
   * The run that this key already made, or undefined.
   * Throws already_exists when it was used for another request.
   */
  async startedBy(
    projectId: string,
    idempotencyKey: string,
    asked: unknown,
  ): Promise<RunRow<Request, State> | undefined> {
    const { rows } = await this.database.pool.query(
      `select request_sha256, ${runColumns} from runs
       where project_id = $1 and idempotency_key = $2 and deleting_at is null`,
      [projectId, idempotencyKey],
    );
    if (rows.length === 0) return undefined;
    if (rows[0].request_sha256 !== sha256(asked)) {
      throw new TutelageError(
        "already_exists",
        `The idempotency key "${idempotencyKey}" was used for another request; use a new key for a new request.`,
        { reason: "idempotency_key_reused" },
      );
    }
    return toRow(rows[0]);
  }

  /** One run of a project. Throws not_found. */
  async get(projectId: string, id: string): Promise<RunRow<Request, State>> {
    if (!isUuid(id)) throw notFound("run", id);
    const { rows } = await this.database.pool.query(
      `select ${runColumns} from runs where project_id = $1 and id = $2 and deleting_at is null`,
      [projectId, id],
    );
    if (rows.length === 0) throw notFound("run", id);
    return toRow(rows[0]);
  }

  /**
   * Asks a run to stop. One without a holder is cancelled at once, unless it may own runs elsewhere; any other when its
   * holder, the present one or the next, has stopped it.
   */
  async cancel(projectId: string, id: string): Promise<RunRow<Request, State>> {
    if (!isUuid(id)) throw notFound("run", id);
    await this.database.drizzle.transaction(async (transaction) => {
      const { rows } = await transaction.execute(
        sql`update runs set cancel_requested = true, revision = revision + 1,
              status = case when status = 'RUNNING' then status when ${this.ownsRuns} and fence > 0 then 'QUEUED'
                else 'CANCELLED' end,
              finished_at = case when status = 'RUNNING' or (${this.ownsRuns} and fence > 0) then finished_at
                else now() end,
              rest = null, wake_at = null, not_before = now()
            where project_id = ${projectId} and id = ${id} and not cancel_requested
              and status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED')
            returning ${returned}`,
      );
      if (rows[0] === undefined) return;
      const run = toRow<Request, State>(rows[0]);
      await this.changed(transaction, { kind: run.status === "CANCELLED" ? "cancelled" : "cancelling" }, run);
    });
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
}

const unknownProgress: RunProgress = { done: 0, total: 0, unit: "", etaSeconds: 0, message: "" };

/** A row of the table as a run. */
export function toRow<Request, State>(row: pg.QueryResultRow): RunRow<Request, State> {
  return {
    ...(row as RunRow<Request, State>),
    progress: { ...unknownProgress, ...row.progress },
    failure: row.failure ?? undefined,
    rest: row.rest ?? undefined,
    wakeAt: row.wakeAt === null ? undefined : new Date(row.wakeAt),
    createdAt: new Date(row.createdAt),
    startedAt: row.startedAt === null ? undefined : new Date(row.startedAt),
    finishedAt: row.finishedAt === null ? undefined : new Date(row.finishedAt),
  };
}

/** Digest of what was asked. */
function sha256(value: unknown): string {
  return createHash("sha256")
    .update(JSON.stringify(withoutDefaults(value)) ?? "")
    .digest("hex");
}

/**
 * A message without fields that have their default, keys in order: a field that
 * the contract gains must not make a repeated request look like another one.
 * Undefined where nothing is left.
 */
function withoutDefaults(value: unknown): unknown {
  if (Array.isArray(value)) {
    // Items count, empty or not.
    return value.length === 0 ? undefined : value.map((item) => withoutDefaults(item) ?? null);
  }
  if (value instanceof Date) return value;
  if (typeof value === "object" && value !== null) {
    const kept = Object.entries(value)
      .map(([key, field]) => [key, withoutDefaults(field)] as const)
      .filter(([, field]) => field !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  }
  const isDefault =
    !value || (typeof value === "string" && (value.endsWith("_UNSPECIFIED") || value === "UNRECOGNIZED"));
  return isDefault ? undefined : value;
}

export function isFinal(status: RunStatus): boolean {
  return status === "SUCCEEDED" || status === "FAILED" || status === "CANCELLED";
}

/**
 * Whether a text is an id as we give them, in lower case: Postgres would find a row by the same id in capitals, and the
 * keys, paths and names that are made of the id would be others.
 */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text);
}
