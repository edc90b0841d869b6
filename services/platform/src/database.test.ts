import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { until } from "../../../tests/support/waiting.js";
import { type Database, isDatabaseAway, openDatabase, type Transaction } from "./database.js";
import { connect } from "./grpc.js";
import { createLog } from "./log.js";

const maxConnections = 3;
let database: Database;
beforeAll(async () => {
  const log = createLog("test", "fatal");
  const url = await testDatabaseUrl();
  database = await openDatabase({ url, schema: "evaluation", log, hasRuns: true, maxConnections });
});
afterAll(() => database.close());

test("a transaction whose connection is lost between two statements fails as such, and ends no process", async () => {
  const lost = database.drizzle.transaction(async (transaction) => {
    const { rows } = await transaction.execute<{ pid: number }>("select pg_backend_pid() as pid");
    await database.pool.query("select pg_terminate_backend($1, 5000)", [rows[0]?.pid]);
    await transaction.execute("select 1");
  });
  await expect(lost).rejects.toSatisfy(isDatabaseAway);
  await database.ping();
});

test("a service whose connections all died just before BEGIN has as many again", async () => {
  const every = Array.from({ length: maxConnections });
  const sessions = await Promise.all(
    every.map(() => database.pool.query("select pg_backend_pid() as pid, pg_sleep(0.1)")),
  );
  const pids = new Set<number>(sessions.map(({ rows }) => rows[0].pid));
  expect(pids.size).toBe(maxConnections);
  for (const pid of pids) process.kill(pid, "SIGTERM");
  // Standing still: the pool must not see that they are gone before they are used.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  const begun = every.map(() => database.drizzle.transaction(async () => "begun"));
  for (const outcome of await Promise.allSettled(begun)) {
    expect(outcome).toMatchObject({ status: "rejected", reason: expect.toSatisfy(isDatabaseAway) });
  }
  await Promise.all(every.map(() => database.ping()));
});

test("connections to a primary that became read-only are left, and it does not count as there", async () => {
  const make = (transaction: Transaction) => transaction.execute("create table made (at timestamptz)");
  const name = new URL(database.url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: database.url });
  await admin.connect();
  try {
    // Every connection that is made from now on, until another server answers at the same address.
    await admin.query(`alter database ${name} set default_transaction_read_only = on`);
    await admin.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'tutelage-%' and datname = $1",
      [name],
    );
    await until(
      async () =>
        await database.ping().then(
          () => false,
          (error) => /read-only/.test(error.message),
        ),
    );
    await expect(database.ping()).rejects.toSatisfy(isDatabaseAway);
    // Some are at rest in the pool when the new primary is there.
    await Promise.all(Array.from({ length: maxConnections }, () => database.pool.query("select pg_sleep(0.1)")));
    await admin.query(`alter database ${name} reset default_transaction_read_only`);
    for (let lost = 0; lost < maxConnections; lost += 1) {
      await expect(database.drizzle.transaction(make)).rejects.toSatisfy(isDatabaseAway);
    }
    await database.drizzle.transaction(make);
    await database.ping();
  } finally {
    await admin.end();
  }
});

test("a Postgres that says nothing any more counts as away, and its connection is left", async () => {
  const { rows } = await database.pool.query("select pg_backend_pid() as pid");
  process.kill(rows[0].pid, "SIGSTOP");
  try {
    await expect(database.ping()).rejects.toSatisfy(isDatabaseAway);
    await database.ping();
  } finally {
    process.kill(rows[0].pid, "SIGCONT");
  }
}, 20_000);

test("a network call inside of a transaction is refused, after it is not", async () => {
  const client = connect(EvaluationServiceDefinition, "127.0.0.1:1");
  try {
    await expect(database.drizzle.transaction(() => client.getEvaluationRun({}))).rejects.toThrow(
      /GetEvaluationRun inside of a database transaction/,
    );
    await database.drizzle.transaction(async (transaction) => {
      await transaction.execute("select 1");
    });
    await expect(client.getEvaluationRun({})).rejects.toMatchObject({ code: "unavailable" });
  } finally {
    client.close();
  }
});
