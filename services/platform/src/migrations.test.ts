import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { until } from "../../../tests/support/waiting.js";
import { openDatabase } from "./database.js";
import { createLog } from "./log.js";
import { isBelow, migrationsRoot, oldestVersion } from "./migrations.js";

const log = createLog("test", "fatal");
let url: string;
let folder: string;
let admin: pg.Client;

beforeAll(async () => {
  url = await testDatabaseUrl();
  folder = await mkdtemp(join(tmpdir(), "tutelage-migrations-"));
  admin = new pg.Client({ connectionString: url });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await rm(folder, { recursive: true, force: true });
});

/** A folder of migrations of the schema "demo", as a version of the code has them. */
async function release(name: string, files: Record<string, string>): Promise<string> {
  const root = join(folder, name);
  await mkdir(join(root, "demo"), { recursive: true });
  for (const [file, sql] of Object.entries(files)) await writeFile(join(root, "demo", file), sql);
  return root;
}

const open = (version: string, root: string) =>
  openDatabase({ url, schema: "demo", log, version, migrationsRoot: root });

test("only a version below the one that a schema names refuses to start, and says what to do", async () => {
  const first = { "0001_a.sql": "create table things (id int, old text);" };
  const second = { ...first, "0002_b.sql": "alter table things add column new text;" };
  const third = { ...second, "0003_c.sql": "-- oldest version: 0.2.0\nalter table things drop column old;" };
  const roots = {
    first: await release("1", first),
    second: await release("2", second),
    third: await release("3", third),
  };

  await (await open("0.1.0", roots.first)).close();
  await (await open("0.2.0", roots.second)).close();
  // The former version starts again on the newer schema, as in a rolling upgrade.
  await (await open("0.1.0", roots.first)).close();
  await (await open("0.3.0", roots.third)).close();
  await (await open("0.2.0", roots.second)).close();
  await expect(open("0.1.0", roots.first)).rejects.toMatchObject({
    code: "failed_precondition",
    reason: "schema_too_new",
    message: expect.stringMatching(/schema "demo".*needs version 0\.2\.0 or newer, and this is 0\.1\.0\. Install/),
  });
});

test("a migration that waits for a table lets everybody else at it", { timeout: 60_000 }, async () => {
  const root = await release("4", {
    "0001_a.sql": "create table things (id int, old text);",
    "0004_d.sql": "alter table things add column newest text;",
  });
  const reader = new pg.Client({ connectionString: url });
  await reader.connect();
  await reader.query("begin");
  await reader.query("select count(*) from demo.things");
  const opening = open("0.3.0", root);
  const waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%newest%'";
  await until(async () => (await admin.query(waits)).rowCount === 1);
  // It stands behind the migration, which stands behind the reader.
  await admin.query("select count(*) from demo.things");
  await reader.end();
  await (await opening).close();
  const columns = "select 1 from information_schema.columns where table_schema = 'demo' and column_name = 'newest'";
  expect((await admin.query(columns)).rowCount).toBe(1);
});

test("every migration of ours either leaves the former version running or names the oldest that can", async () => {
  const breaking = [
    /\bdrop (table|column|function|schema)\b/i,
    /\brename\b/i,
    /\balter column \w+ (set not null|(set data )?type)\b/i,
    /\badd column (?![^,;]*\bdefault\b)[^,;]*\bnot null\b/i,
  ];
  const checked: string[] = [];
  for (const schema of await readdir(migrationsRoot)) {
    for (const file of await readdir(join(migrationsRoot, schema))) {
      const sql = await readFile(join(migrationsRoot, schema, file), "utf8");
      const statements = sql.replace(/^\s*--.*$/gm, "");
      checked.push(file);
      if (oldestVersion(sql) !== undefined) continue;
      for (const pattern of breaking) expect.soft(statements, `${schema}/${file}`).not.toMatch(pattern);
    }
  }
  expect(checked.length).toBeGreaterThan(10);
  expect(breaking.some((pattern) => pattern.test("alter table a add column b text not null"))).toBe(true);
});

test("versions are compared by number", () => {
  expect(isBelow("0.9.0", "0.10.0")).toBe(true);
  expect(isBelow("1.0.0", "0.10.0")).toBe(false);
  expect(isBelow("0.1.0", "0.1.0")).toBe(false);
});

test("a service that starts on a read-only former primary waits for the new one at its address", async () => {
  const name = new URL(url).pathname.slice(1);
  const root = join(folder, "failover");
  await mkdir(join(root, "failover"), { recursive: true });
  await writeFile(join(root, "failover/0001_a.sql"), "create table failed_over (id int);");
  await admin.query(`alter database ${name} set default_transaction_read_only = on`);
  const opening = openDatabase({ url, schema: "failover", log, version: "0.1.0", migrationsRoot: root });
  const sessions = "select 1 from pg_stat_activity where application_name = 'tutelage-failover' and datname = $1";
  await until(async () => ((await admin.query(sessions, [name])).rowCount ?? 0) > 0);
  await admin.query(`alter database ${name} reset default_transaction_read_only`);
  await (await opening).close();
}, 20_000);
