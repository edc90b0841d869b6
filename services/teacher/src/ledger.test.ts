import { openLease } from "@tutelage/platform/lease";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../../../tests/support/teacher-server.js";
import { until } from "../../../tests/support/waiting.js";
import {
  type Fixture,
  labelRequest,
  newCall,
  openStore,
  order,
  profileYaml,
  seedRows,
  startFixture,
  writeRequest,
} from "./service.fixture.js";
import type { GenerationLease } from "./store.js";

let server: TeacherServer;
let fixture: Fixture;
const owner = { projectId: "p", runKeyPrefix: "mine/" };

beforeAll(async () => {
  server = await startTeacherServer();
  fixture = await startFixture([profileYaml("chat", server.url, ["max_retries: 0"])]);
  const keyed = (key: string, request: ReturnType<typeof writeRequest>) =>
    fixture.run({ ...request, idempotencyKey: key });
  await keyed(
    "mine/write",
    writeRequest(
      "chat",
      seedRows.slice(0, 4).map((seed) => order(seed)),
    ),
  );
  // One of these gets no reply; it is a call all the same.
  server.options.behave = ({ input }) => (input.includes("rain") ? { kind: "empty-body" } : undefined);
  await keyed("mine/label", labelRequest("chat", seedRows.slice(3, 6)));
  server.options.behave = undefined;
  await keyed(
    "other/write",
    writeRequest(
      "chat",
      seedRows.slice(0, 5).map((seed) => order(seed)),
    ),
  );
});
afterAll(async () => {
  await fixture.stop();
  await server.stop();
});

test("the ledger has the calls of all runs of one owner, once each in whatever pages, without their texts", async () => {
  const whole = await fixture.client.listLedger(owner);
  expect(whole.calls.map(({ runKey }) => runKey)).toEqual([
    ...Array(4).fill("mine/write"),
    ...Array(whole.calls.length - 4).fill("mine/label"),
  ]);
  expect(whole.nextCursor).toBe("");
  for (const { call } of whole.calls) expect(call).toMatchObject({ prompt: "", rawReply: "", model: "test-model" });
  const paged: string[] = [];
  let cursor = "";
  do {
    const page = await fixture.client.listLedger({ ...owner, pageSize: 2, cursor });
    expect(page.runs.length > 0).toBe(cursor === "");
    paged.push(...page.calls.map(({ call }) => call?.id ?? ""));
    cursor = page.nextCursor;
  } while (cursor !== "");
  expect(paged).toEqual(whole.calls.map(({ call }) => call?.id));
});

test("each run's total is the sum of its calls, failed ones counted", async () => {
  const { calls, runs } = await fixture.client.listLedger(owner);
  expect(runs.map(({ runKey }) => runKey)).toEqual(["mine/write", "mine/label"]);
  for (const { runKey, usage, failedCalls } of runs) {
    const own = calls.flatMap((one) => (one.runKey === runKey && one.call !== undefined ? [one.call] : []));
    expect(usage?.calls).toBe(own.length);
    expect(usage?.costMicroUsd).toBe(own.reduce((sum, call) => sum + call.costMicroUsd, 0));
    expect(failedCalls).toBe(own.filter((call) => call.status === "failed").length);
  }
  expect(runs[1]?.failedCalls).toBeGreaterThan(0);
});

test("one call has its prompt and raw reply, also for a run that reused it, and for nobody else", async () => {
  const reused = await fixture.client.listLedger({ projectId: "p", runKeyPrefix: "other/" });
  expect(reused.runs[0]?.usage).toMatchObject({ calls: 1, reusedCalls: 4 });
  const { calls } = await fixture.client.listLedger(owner);
  const id = calls[0]?.call?.id ?? "";
  const mine = await fixture.client.getCall({ ...owner, id });
  expect(mine.runKey).toBe("mine/write");
  expect(mine.call?.prompt).toContain("travel agency");
  expect(mine.call?.rawReply).toContain("choices");
  expect(await fixture.client.getCall({ ...owner, runKeyPrefix: "other/", id })).toEqual({
    ...mine,
    runKey: "other/write",
  });
  for (const which of [
    { ...owner, projectId: "q", id },
    { ...owner, runKeyPrefix: "nobody/", id },
    { ...owner, id: crypto.randomUUID() },
    { ...owner, id: "7" },
  ]) {
    await expect(fixture.client.getCall(which)).rejects.toMatchObject({ reason: "teacher_call_not_found" });
  }
});

test("who follows the ledger misses no call, in whatever order calls are committed", async () => {
  const { database, store } = await openStore(fixture);
  const admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
  const { run } = await fixture.run({
    ...writeRequest("chat", [order(seedRows[0] as (typeof seedRows)[number])]),
    idempotencyKey: "followed/write",
  });
  const seen: string[] = [];
  let cursor = "";
  const follow = async () => {
    for (;;) {
      const page = await fixture.client.listLedger({ projectId: "p", runKeyPrefix: "followed/", pageSize: 1, cursor });
      seen.push(...page.calls.map(({ call }) => call?.id ?? ""));
      if (page.nextCursor === "") return;
      cursor = page.nextCursor;
    }
  };
  // A call that has its number, and whose commit waits until the test lets it go.
  await admin.query(`
    create function teacher.dawdle() returns trigger language plpgsql as $$
      begin if new.prompt = 'slow' then perform pg_advisory_xact_lock(4711); end if; return null; end $$;
    create trigger dawdle after insert on teacher.calls for each row execute function teacher.dawdle();
    select pg_advisory_lock(4711)`);
  const call = (prompt: string) => newCall({ runId: run?.id ?? "", requestDigest: prompt, prompt });
  const [slow, quick, last] = [call("slow"), call("quick"), call("last")];
  const waiting = "select 1 from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
  const keeping = [store.keep(slow)];
  await until(async () => (await admin.query(waiting)).rowCount === 1);
  keeping.push(store.keep(quick), store.keep(last));
  await until(async () => (await admin.query(waiting)).rowCount === 3);
  await follow();
  await admin.query("select pg_advisory_unlock(4711)");
  await Promise.all(keeping);
  await follow();
  await admin.query("drop trigger dawdle on teacher.calls; drop function teacher.dawdle()");
  await admin.end();
  await database.close();
  for (const { id } of [slow, quick, last]) expect(seen.filter((one) => one === id)).toHaveLength(1);
});

test("a reader misses no call either where a run ends with tries of a dead holder", async () => {
  const { database, store } = await openStore(fixture);
  const admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
  const of = async (key: string) => {
    const request = writeRequest("chat", [order(seedRows[1] as (typeof seedRows)[number])]);
    return (await fixture.run({ ...request, idempotencyKey: `ended/${key}` })).run?.id ?? "";
  };
  const [slowRun, deadRun] = [await of("slow"), await of("dead")];
  await admin.query(
    `update teacher.runs set status = 'QUEUED', not_before = now() + interval '1 hour', finished_at = null where id = $1`,
    [deadRun],
  );
  await admin.query(
    `insert into teacher.reservations (call_id, project_id, run_id, fence, request_digest, teacher_profile, model, prompt,
       prompt_tokens, completion_tokens, cost_micro_usd)
     values (gen_random_uuid(), 'p', $1, 1, 'dead', 'chat', 'test-model', 'a prompt', 7, 8, 23)`,
    [deadRun],
  );
  await admin.query(`
    create function teacher.dawdle() returns trigger language plpgsql as $$
      begin if new.prompt = 'slow' then perform pg_advisory_xact_lock(4711); end if; return null; end $$;
    create trigger dawdle after insert on teacher.calls for each row execute function teacher.dawdle();
    select pg_advisory_lock(4711)`);
  const waiting = "select 1 from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
  const keeping = store.keep(newCall({ runId: slowRun, requestDigest: "slow", prompt: "slow" }));
  await until(async () => (await admin.query(waiting)).rowCount === 1);
  let cancelled = false;
  const cancelling = fixture.client.cancelGenerationRun({ projectId: "p", id: deadRun }).then(() => {
    cancelled = true;
  });
  await until(async () => cancelled || (await admin.query(waiting)).rowCount === 2);
  // Its call would have a later number than the one that nobody sees yet.
  expect(cancelled).toBe(false);
  await admin.query("select pg_advisory_unlock(4711)");
  await Promise.all([keeping, cancelling]);
  await admin.query("drop trigger dawdle on teacher.calls; drop function teacher.dawdle()");
  const { rows } = await admin.query("select error_code from teacher.calls where run_id = $1 order by sequence", [
    deadRun,
  ]);
  expect(rows.at(-1)).toEqual({ error_code: "in_flight_at_crash" });
  await admin.end();
  await database.close();
});

test("a call is kept while its run's holder writes", async () => {
  const { database, store } = await openStore(fixture);
  const { run } = await fixture.run({
    ...writeRequest("chat", [order(seedRows[2] as (typeof seedRows)[number])]),
    idempotencyKey: "written/write",
  });
  const runId = run?.id ?? "";
  await database.pool.query(
    "update runs set status = 'RUNNING', lease_until = now() + interval '1 hour' where id = $1",
    [runId],
  );
  const held = { id: runId, fence: run?.fence ?? 0 } as GenerationLease["run"];
  const lease = openLease(database, held, new AbortController().signal);
  await lease.write(() => store.keep(newCall({ runId, requestDigest: "beside", prompt: "beside" })));
  await database.pool.query("update runs set status = 'SUCCEEDED' where id = $1", [runId]);
  await database.close();
});

test.each([
  [{ runKeyPrefix: "" }, "run_key_prefix"],
  [{ pageSize: 1_001 }, "page_size"],
  [{ cursor: "x" }, "cursor"],
  [{ projectId: "" }, "project_id"],
])("a listing with %j is refused", async (wrong, field) => {
  await expect(fixture.client.listLedger({ ...owner, ...wrong })).rejects.toMatchObject({
    code: "invalid_argument",
    fields: [{ field }],
  });
});
