/**
 * Brings a schema up to date: forward only, and while processes of the former
 * version still run on it. A migration that those could not live with names
 * the oldest version that can, in a line "-- oldest version: 0.2.0"; the schema
 * remembers the newest such line, and a process below it does not start.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { TutelageError } from "./errors.js";

/** Where the migrations lie, a folder a schema. */
export const migrationsRoot = fileURLToPath(new URL("../../../migrations/", import.meta.url));

/** This code's version. */
export const productVersion: string = JSON.parse(
  readFileSync(new URL("../package.json", import.meta.url), "utf8"),
).version;

/** A migration that waits for a table keeps all others from it, too: it lets them go on and tries again. */
const lockTimeoutMs = 3_000;
const lockPatienceMs = 120_000;
const lockNotAvailable = "55P03";
/** Below every other. */
const noVersion = "0.0.0";

export interface Migrations {
  schema: string;
  folder: string;
  /** Folder of the folders. */
  root: string;
  /** Of the code that wants to run on the schema. */
  version: string;
}

/**
 * Applies <root>/<folder>/*.sql to a schema, in order of name, each once. All
 * in one transaction under an advisory lock, so that replicas that start
 * together do not collide. An applied file must not change afterwards.
 * Throws failed_precondition, schema_too_new, where the schema needs newer code.
 */
export async function migrate(pool: pg.Pool, migrations: Migrations): Promise<void> {
  const until = Date.now() + lockPatienceMs;
  for (;;) {
    try {
      await migrateOnce(pool, migrations);
      return;
    } catch (error) {
      if ((error as pg.DatabaseError).code !== lockNotAvailable || Date.now() > until) throw error;
      await sleep(500);
    }
  }
}

async function migrateOnce(pool: pg.Pool, { schema, folder, root, version }: Migrations): Promise<void> {
  const directory = join(root, folder);
  const names = (await readdir(directory)).filter((name) => name.endsWith(".sql")).sort();
  const client = await pool.connect();
  let failure: Error | undefined;
  try {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock(hashtext($1))", [`tutelage migrations ${schema}`]);
    await client.query(`set local lock_timeout = ${lockTimeoutMs}`);
    await client.query(`create schema if not exists ${schema}`);
    await client.query(
      `create table if not exists ${schema}.applied_migrations (
         name text primary key, sha256 text not null, applied_at timestamptz not null default now());
       create table if not exists ${schema}.schema_version (
         only_row boolean primary key default true check (only_row),
         oldest_version text not null, since timestamptz not null default now())`,
    );
    const known = await client.query(`select oldest_version from ${schema}.schema_version`);
    const required: string = known.rows[0]?.oldest_version ?? noVersion;
    if (isBelow(version, required)) {
      throw new TutelageError(
        "failed_precondition",
        `A newer Tutelage has changed the schema "${schema}" of this database: it needs version ${required} or newer, and this is ${version}. Install ${required} or newer, or restore the backup from before the upgrade.`,
        { reason: "schema_too_new" },
      );
    }
    const applied = new Map<string, string>(
      (await client.query(`select name, sha256 from ${schema}.applied_migrations`)).rows.map((row) => [
        row.name,
        row.sha256,
      ]),
    );
    let oldest = required;
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
      const named = oldestVersion(sql) ?? noVersion;
      if (isBelow(oldest, named)) oldest = named;
    }
    if (oldest !== required) {
      await client.query(
        `insert into ${schema}.schema_version (oldest_version) values ($1)
         on conflict (only_row) do update set oldest_version = $1, since = now()`,
        [oldest],
      );
    }
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    failure = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    // The next try may be on another connection's server: this one's may be a former primary.
    client.release(failure);
  }
}

/** The oldest version that a migration says can live with it; undefined when the former one can. */
export function oldestVersion(migration: string): string | undefined {
  return /^-- oldest version: (\d+\.\d+\.\d+)$/m.exec(migration)?.[1];
}

/** Whether a version, "1.2.3", is below another. */
export function isBelow(version: string, other: string): boolean {
  const [mine, theirs] = [version, other].map((text) => text.split(".").map(Number));
  for (let part = 0; part < 3; part += 1) {
    const difference = (mine?.[part] ?? 0) - (theirs?.[part] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
