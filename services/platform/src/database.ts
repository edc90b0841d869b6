import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import pg from "pg";
import { TutelageError } from "./errors.js";
import type { Logger } from "./log.js";

/** A service's database: its own schema in one Postgres, through drizzle or plain pg. */
export interface Database {
  readonly drizzle: NodePgDatabase;
  readonly pool: pg.Pool;
  /** Name of the service's schema. */
  readonly schema: string;
  readonly url: string;
  /** SELECT 1; throws when Postgres does not answer. */
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

/** Set in the effects of a transaction. */
const transactions = new AsyncLocalStorage<true>();

/**
 * Throws in the effects of a transaction: it holds locks and a connection, and
 * must not wait for a network. Whoever calls out asks this first.
 */
export function refuseInTransaction(call: string): void {
  if (transactions.getStore()) throw new Error(`${call} inside of a database transaction: call before or after it.`);
}

const migrationsRoot = fileURLToPath(new URL("../../../migrations/", import.meta.url));

/** Opens a pool and brings the service's schema up to date. */
export async function openDatabase(options: {
  url: string;
  schema: string;
  log: Logger;
  /** Most connections of this process. */
  maxConnections?: number;
  /** The service has long work: its schema gets the tables of migrations/runs first. */
  hasRuns?: boolean;
}): Promise<Database> {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.maxConnections ?? 10,
    connectionTimeoutMillis: 10_000,
    application_name: `tutelage-${options.schema}`,
    options:
      `-c search_path=${options.schema} -c statement_timeout=300000 ` +
      `-c idle_in_transaction_session_timeout=${idleInTransactionMs}`,
  });
  // A connection that dies while idle is replaced by the pool; unhandled, it would end the process.
  pool.on("error", (error) => options.log.warn({ err: error }, "idle database connection lost"));
  // So would one that dies in the middle of a transaction; there the next query says so.
  pool.on("connect", (client) => client.on("error", () => {}));
  try {
    if (options.hasRuns) await migrate(pool, options.schema, "runs");
    await migrate(pool, options.schema, options.schema);
  } catch (error) {
    await pool.end();
    throw error;
  }
  const database = drizzle(pool);
  const transact = database.transaction.bind(database);
  database.transaction = (effect, config) =>
    transact((transaction) => transactions.run(true, () => effect(transaction)), config);
  return {
    drizzle: database,
    pool,
    schema: options.schema,
    url: options.url,
    ping: async () => {
      await pool.query("select 1");
    },
    close: () => pool.end(),
  };
}

/**
 * Applies migrations/<folder>/*.sql to a schema, in order of name, each once.
 * All in one transaction under an advisory lock, so that replicas that start
 * together do not collide. An applied file must not change afterwards.
 */
async function migrate(pool: pg.Pool, schema: string, folder: string): Promise<void> {
  const directory = join(migrationsRoot, folder);
  const names = (await readdir(directory)).filter((name) => name.endsWith(".sql")).sort();
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock(hashtext($1))", [`tutelage migrations ${schema}`]);
    await client.query(`create schema if not exists ${schema}`);
    await client.query(
      `create table if not exists ${schema}.applied_migrations (
         name text primary key, sha256 text not null, applied_at timestamptz not null default now())`,
    );
    const applied = new Map<string, string>(
      (await client.query(`select name, sha256 from ${schema}.applied_migrations`)).rows.map((row) => [
        row.name,
        row.sha256,
      ]),
    );
    for (const fileName of names) {
      const name = `${folder}/${fileName}`;
      const sql = await readFile(join(directory, fileName), "utf8");
      const sha256 = createHash("sha256").update(sql).digest("hex");
      const before = applied.get(name);
      if (before === sha256) continue;
      if (before !== undefined) {
        throw new Error(`Migration ${name} changed after it was applied to schema ${schema}; add a new file instead.`);
      }
      await client.query(`set local search_path to ${schema}`);
      await client.query(sql);
      await client.query(`insert into ${schema}.applied_migrations (name, sha256) values ($1, $2)`, [name, sha256]);
    }
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

/** SQLSTATE of a failed query, through drizzle's wrapper too; undefined for other errors. */
export function sqlState(error: unknown): string | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current instanceof pg.DatabaseError) return current.code;
  }
  return undefined;
}

/** True when the failure is Postgres being away or shutting down, so that trying again later makes sense. */
export function isDatabaseAway(error: unknown): boolean {
  const state = sqlState(error);
  // 25P03: a transaction of ours stood still, and Postgres ended it with its connection.
  if (state !== undefined) return state.startsWith("08") || state.startsWith("57P") || state === "25P03";
  for (let current = error; current instanceof Error; current = current.cause) {
    // A failure that a service named may quote anything, and so may its cause, e.g. a teacher's ECONNREFUSED.
    if (current instanceof TutelageError) return false;
    if (
      /ECONNREFUSED|ECONNRESET|ETIMEDOUT|connect ENOENT|EPIPE|Connection terminated|not queryable|connection timeout|timeout exceeded when trying to connect/i.test(
        current.message,
      )
    )
      return true;
  }
  return false;
}
