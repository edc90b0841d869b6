import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { type Database, isDatabaseAway, openDatabase } from "./database.js";
import { connect } from "./grpc.js";
import { createLog } from "./log.js";

let database: Database;
beforeAll(async () => {
  const log = createLog("test", "fatal");
  database = await openDatabase({ url: await testDatabaseUrl(), schema: "evaluation", log, hasRuns: true });
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
