import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { drizzle, type NodePgDatabase, NodePgSession, NodePgTransaction } from "drizzle-orm/node-postgres";
import { PgDialect } from "drizzle-orm/pg-core";
import pg from "pg";
import { TutelageError } from "./errors.js";
import type { Logger } from "./log.js";
import { migrate, migrationsRoot, productVersion } from "./migrations.js";

/** A service's database: its own schema in one Postgres, through drizzle or plain pg. */
export interface Database {
  readonly drizzle: NodePgDatabase;
  readonly pool: pg.Pool;
  /** For statements that take as long as they need, e.g. those with all rows of a version. */
  readonly bulkPool: pg.Pool;
  /** Name of the service's schema. */
  readonly schema: string;
  readonly url: string;
  /** Throws when Postgres does not answer, or lets nobody write. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

/** A drizzle transaction, or the database outside of one. */
export type Transaction = Parameters<Parameters<NodePgDatabase["transaction"]>[0]>[0];

/**
 * A transaction waits for nothing but its database. A process that stops in the middle of one keeps its locks until
 * this passes: less than a lease (runs.ts), or a successor could not claim the run whose row is locked.
 */
const idleInTransactionMs = 5_000;
/** Postgres ends a statement after this; a Postgres that vanished, its machine with it, ends none: then we do. */
const statementMs = 300_000;
const answerMs = statementMs + 10_000;
/** Longest that a ping waits; a Postgres that is merely busy answers sooner. */
const pingMs = 5_000;

/** Set in the effects of a transaction. */
const transactions = new AsyncLocalStorage<true>();

/**
 * Throws in the effects of a transaction: it holds locks and a connection, and
 * must not wait for a network. Whoever calls out asks this first.
 */
export function refuseInTransaction(call: string): void {
  if (transactions.getStore()) throw new Error(`${call} inside of a database transaction: call before or after it.`);
}

/** A service that starts while Postgres restarts, or before it, waits for it this long. */
const startPatienceMs = 60_000;
const startLookMs = 500;

/**
 * Opens a pool and brings the service's schema up to date. Waits for a Postgres
 * that is away, a minute at most.
 */
export async function openDatabase(options: {
  url: string;
  schema: string;
  log: Logger;
  /** Most connections of this process. */
  maxConnections?: number;
  /** The service has long work: its schema gets the tables of migrations/runs first. */
  hasRuns?: boolean;
  /** Where migrations are found, and the version of the code that wants to run on them; a test gives others. */
  migrationsRoot?: string;
  version?: string;
}): Promise<Database> {
  const openPool = (limits: { query_timeout?: number; statementMs: number }) => {
    const pool = new pg.Pool({
      connectionString: options.url,
      max: options.maxConnections ?? 10,
      connectionTimeoutMillis: 10_000,
      ...(limits.query_timeout === undefined ? {} : { query_timeout: limits.query_timeout }),
      // A Postgres that vanished without a word is noticed by connections at rest, too.
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      application_name: `tutelage-${options.schema}`,
      options:
        `-c search_path=${options.schema} -c statement_timeout=${limits.statementMs} ` +
        `-c idle_in_transaction_session_timeout=${idleInTransactionMs}`,
    });
    // A connection that dies while idle is replaced by the pool; unhandled, it would end the process.
    pool.on("error", (error) => options.log.warn({ err: error }, "idle database connection lost"));
    // So would one that dies in the middle of a transaction; there the next query says so.
    pool.on("connect", (client) => client.on("error", () => {}));
    return pool;
  };
  const pool = openPool({ query_timeout: answerMs, statementMs });
  const bulkPool = openPool({ statementMs: 0 });
  const close = async () => {
    await Promise.all([pool.end(), bulkPool.end()]);
  };
  const { schema, version = productVersion } = options;
  const folders = options.hasRuns ? ["runs", schema] : [schema];
  try {
    await whenThere(options.log, async () => {
      for (const folder of folders) {
        await migrate(bulkPool, { schema, folder, root: options.migrationsRoot ?? migrationsRoot, version });
      }
    });
  } catch (error) {
    await close();
    throw error;
  }
  const database = drizzle(pool);
  database.transaction = (effect) => transact(pool, effect);
  return {
    drizzle: database,
    pool,
    bulkPool,
    schema: options.schema,
    url: options.url,
    ping: () => ping(pool),
    close,
  };
}

/**
 * Does the effect in a transaction on a connection of the pool. Not through drizzle's own: that never gives a connection
 * back that was lost before BEGIN, and gives back one that has a read-only former primary at its end.
 */
export async function transact<Result>(
  pool: pg.Pool,
  effect: (transaction: Transaction) => Promise<Result>,
): Promise<Result> {
  return await withConnection(pool, async (client) => {
    await client.query("begin");
    try {
      const dialect = new PgDialect();
      const transaction: Transaction = new NodePgTransaction(
        dialect,
        new NodePgSession<Record<string, never>, Record<string, never>>(client, dialect, undefined),
        undefined,
      );
      const result = await transactions.run(true, () => effect(transaction));
      await client.query("commit");
      return result;
    } catch (error) {
      // Closing the connection ends the transaction as well.
      if (!isDatabaseAway(error)) await client.query("rollback");
      throw error;
    }
  });
}

/** Works with a connection of the pool, which gets it back unless what failed was the connection. */
async function withConnection<Result>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<Result>,
): Promise<Result> {
  const client = await pool.connect();
  let lost: Error | undefined;
  try {
    return await work(client);
  } catch (error) {
    if (error instanceof Error && isDatabaseAway(error)) lost = error;
    throw error;
  } finally {
    client.release(lost);
  }
}

async function ping(pool: pg.Pool): Promise<void> {
  await withConnection(pool, async (client) => {
    const show = { text: "show transaction_read_only", query_timeout: pingMs } as pg.QueryConfig;
    const { rows } = await client.query<{ transaction_read_only: string }>(show);
    if (rows[0]?.transaction_read_only !== "off") throw new Error("Postgres is read-only.");
  });
}

/** Repeats an attempt while Postgres is away. */
async function whenThere(log: Logger, attempt: () => Promise<void>): Promise<void> {
  const until = Date.now() + startPatienceMs;
  for (let told = false; ; told = true) {
    try {
      return await attempt();
    } catch (error) {
      if (!isDatabaseAway(error) || Date.now() > until) throw error;
      if (!told) log.warn({ err: error }, "the database is away; waiting for it");
      await sleep(startLookMs);
    }
  }
}

/** SQLSTATE of a failed query, through drizzle's wrapper too; undefined for other errors. */
export function sqlState(error: unknown): string | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current instanceof pg.DatabaseError) return current.code;
  }
  return undefined;
}

/**
 * What a Postgres says that cannot serve now: connections end (08), it shuts down, starts or crashed (57P), has no
 * room for another client (53300), was a primary until a failover (25006), or ended a transaction that stood still
 * (25P03).
 */
const awayStates = /^(08|57P|53300|25006|25P03)/;

/** True when the failure is Postgres being away or shutting down, so that trying again later makes sense. */
export function isDatabaseAway(error: unknown): boolean {
  const state = sqlState(error);
  if (state !== undefined) return awayStates.test(state);
  for (let current = error; current instanceof Error; current = current.cause) {
    // A failure that a service named may quote anything, and so may its cause, e.g. a teacher's ECONNREFUSED.
    if (current instanceof TutelageError) return false;
    if (
      /ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|connect ENOENT|EPIPE|Connection terminated|connection timeout|timeout exceeded when trying to connect|Query read timeout|not queryable|Postgres is read-only/i.test(
        current.message,
      )
    )
      return true;
  }
  return false;
}
