/** Deleting generation runs on the real wire: replies go, what was paid stays as numbers. */
import { RunStatus } from "@tutelage/proto/run/v1/run";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../../../tests/support/teacher-server.js";
import { until } from "../../../tests/support/waiting.js";
import { settleEarlierHolders } from "./reservations.js";
import {
  type Fixture,
  newCall,
  openStore,
  order,
  profileYaml,
  row,
  startFixture,
  writeRequest,
} from "./service.fixture.js";
import type { GenerationLease } from "./store.js";

let server: TeacherServer;
let fixture: Fixture;
let admin: pg.Client;

beforeAll(async () => {
  server = await startTeacherServer({ labelOf: () => "book_flight" });
  fixture = await startFixture([profileYaml("chat", server.url)]);
  admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin?.end();
  await fixture?.stop();
  await server?.stop();
});
beforeEach(() => {
  server.options.delayMs = 0;
});

/** Whether a statement waits for a lock. */
const waitingFor = (statement: string) =>
  `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike '${statement}%'`;

/** Rows of every table but the list of migrations. */
const left = async (): Promise<Record<string, number>> =>
  (
    await admin.query(
      `select ${["runs", "calls", "results", "ledger", "reservations"].map((name) => `(select count(*)::int from teacher.${name}) as ${name}`).join(", ")}`,
    )
  ).rows[0];
const usage = () => fixture.client.getProjectUsage({ projectId: "p" });
const remove = (keyPrefix: string) => fixture.client.deleteGenerationRuns({ projectId: "p", keyPrefix });
const asking = (key: string, text: string, count = 2) => ({
  ...writeRequest("chat", [order(row(key, text, "book_flight"), { count, maxAttempts: count })]),
  idempotencyKey: key,
});

test("every table is counted here", async () => {
  const { rows } = await admin.query("select table_name from information_schema.tables where table_schema = 'teacher'");
  expect(rows.map((one) => one.table_name).sort()).toEqual([
    "applied_migrations",
    // Of teacher profiles, which are nobody's: no project has anything in them.
    "breakers",
    "calls",
    "ledger",
    // A project's accounts, which stay.
    "month_caps",
    "month_notices",
    "month_spending",
    // Numbers of claims, which refuse late ones after a deletion, too.
    "owner_fences",
    "reservations",
    "results",
    "runs",
    "schema_version",
    "senders",
  ]);
});

test("a run goes with results and calls, and leaves numbers: no word of prompt or reply, and the same account", async () => {
  await fixture.run(asking("a/one", "take me to Kiruna at dawn"));
  const before = await usage();
  expect(before).toMatchObject({ calls: 2, reusedCalls: 0 });
  expect(before.costMicroUsd).toBeGreaterThan(0);
  expect((await remove("a/")).counts).toEqual({ generation_runs: 1, teacher_results: 2, teacher_calls: 2 });
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 2, reservations: 0 });
  expect(await usage()).toEqual(before);
  const { rows } = await admin.query("select l::text as text from teacher.ledger l");
  for (const { text } of rows) expect(text).not.toMatch(/Kiruna|dawn|choices|book_flight/);
  expect(await remove("a/")).toEqual({ counts: {}, artifactBytes: 0 });
  await admin.query("truncate teacher.ledger");
});

test("a reply that another run reused lives as long as that run, and is not paid again", async () => {
  const text = "a window seat to Turin";
  await fixture.run(asking("a/one", text));
  const second = await fixture.run({ ...asking("a/one", text), idempotencyKey: "b/one" });
  expect(second.usage).toMatchObject({ calls: 0, reusedCalls: 2, costMicroUsd: 0 });
  const results = await fixture.results(second);
  const before = await usage();
  expect((await remove("a/")).counts).toEqual({ generation_runs: 1, teacher_results: 2 });
  expect(await left()).toEqual({ runs: 1, calls: 2, results: 2, ledger: 0, reservations: 0 });
  expect(await fixture.results(second)).toEqual(results);
  // Its own account is what it was: the calls are not booked on it.
  const view = await fixture.client.getGenerationRun({ projectId: "p", id: second.run?.id ?? "" });
  expect(view.usage).toMatchObject({ calls: 0, reusedCalls: 2, costMicroUsd: 0 });
  const asked = server.calls.length;
  const third = await fixture.run({ ...asking("a/one", text), idempotencyKey: "c/one" });
  expect([server.calls.length, third.usage?.reusedCalls]).toEqual([asked, 2]);
  // The last one that needs them takes them along.
  await remove("b/");
  expect(await left()).toMatchObject({ calls: 2, ledger: 0 });
  expect((await remove("c/")).counts).toEqual({ generation_runs: 1, teacher_results: 2, teacher_calls: 2 });
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 2, reservations: 0 });
  expect({ ...(await usage()), reusedCalls: 0, savedMicroUsd: 0 }).toEqual({
    ...before,
    reusedCalls: 0,
    savedMicroUsd: 0,
  });
  await admin.query("truncate teacher.ledger");
});

test("a reply that is deleted after it was found and before it is reused is asked for anew", async () => {
  const text = "a ferry to Patmos";
  await fixture.run(asking("e/one", text, 1));
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  // What a deletion does, up to its commit.
  await blocker.query("begin");
  await blocker.query("delete from teacher.results");
  await blocker.query("delete from teacher.calls");
  const second = fixture.run({ ...asking("e/one", text, 1), idempotencyKey: "f/one" });
  await until(async () => (await admin.query(waitingFor("insert into%results"))).rowCount !== 0);
  await blocker.query("commit");
  await blocker.end();
  expect((await second).run?.status).toBe(RunStatus.SUCCEEDED);
  expect((await second).usage).toMatchObject({ calls: 1, reusedCalls: 0 });
  await remove("e/");
  await remove("f/");
  await admin.query("truncate teacher.ledger");
});

test("a reply that another run reuses in the middle of its deletion stays", async () => {
  const text = "a mule to Matera";
  await fixture.run(asking("g/one", text, 1));
  const second = await fixture.run({ ...asking("g/one", text, 1), idempotencyKey: "h/one" });
  const { rows } = await admin.query("delete from teacher.results where run_id = $1 returning call_id", [
    second.run?.id,
  ]);
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  await blocker.query("begin");
  await blocker.query(
    `insert into teacher.results (project_id, run_id, position, attempt, row_id, call_id, reused, outcome)
     values ('p', $1, 0, 0, 'g/one', $2, true, '{}')`,
    [second.run?.id, rows[0].call_id],
  );
  const removing = remove("g/");
  await until(async () => (await admin.query(waitingFor("%delete from calls"))).rowCount !== 0);
  await blocker.query("commit");
  await blocker.end();
  expect((await removing).counts).toEqual({ generation_runs: 1, teacher_results: 1 });
  expect(await left()).toEqual({ runs: 1, calls: 1, results: 1, ledger: 0, reservations: 0 });
  await remove("h/");
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 1, reservations: 0 });
  await admin.query("truncate teacher.ledger");
});

test("a call that ends after its run was deleted leaves its numbers only", async () => {
  const { database, store } = await openStore(fixture);
  const call = newCall({
    status: "answered",
    prompt: "a secret question",
    rawReply: "a secret answer",
    reply: { text: "a secret answer" } as never,
    promptTokens: 3,
    completionTokens: 4,
    costMicroUsd: 11,
  });
  await store.keep(call);
  await store.keep(call);
  await database.close();
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 1, reservations: 0 });
  expect(await usage()).toMatchObject({ calls: 1, promptTokens: 3, completionTokens: 4, costMicroUsd: 11 });
  await admin.query("truncate teacher.ledger");
});

test("a run at work is stopped first, and the calls that it was making are on the account", async () => {
  server.options.delayMs = 300;
  const asked = server.calls.length;
  const run = await fixture.client.startGenerationRun(asking("w/one", "a sleeper to Narvik", 2));
  await until(() => server.calls.length === asked + 2);
  expect((await remove("w/")).counts).toMatchObject({ generation_runs: 1 });
  await expect(fixture.client.getGenerationRun({ projectId: "p", id: run.run?.id ?? "" })).rejects.toMatchObject({
    code: "not_found",
  });
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 2, reservations: 0 });
  await admin.query("truncate teacher.ledger");
});

test("a deletion that died is not seen half, and the next call goes on", async () => {
  const run = await fixture.run(asking("d/one", "the first bus to Plovdiv"));
  await admin.query("update teacher.runs set deleting_at = now()");
  const which = { projectId: "p", id: run.run?.id ?? "" };
  await expect(fixture.client.getGenerationRun(which)).rejects.toMatchObject({ code: "not_found" });
  await expect(fixture.results(run)).rejects.toMatchObject({ code: "not_found" });
  await remove("d/");
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 2, reservations: 0 });
  await expect(remove("")).rejects.toMatchObject({ fields: [{ field: "key_prefix" }] });
  await expect(fixture.client.getProjectUsage({ projectId: "" })).rejects.toMatchObject({
    fields: [{ field: "project_id" }],
  });
});

test("a run that is cancelled gives its calls up at once, counts them in full, and can be deleted", async () => {
  server.options.behave = ({ prompt }) => (prompt.includes("Narvik") ? { kind: "hang" } : undefined);
  const started = await fixture.client.startGenerationRun(asking("slow/one", "a sleeper to Narvik"));
  const asked = server.calls.length;
  await until(async () => server.calls.length === asked + 2);
  const began = performance.now();
  await fixture.client.cancelGenerationRun({ projectId: "p", id: started.run?.id ?? "" });
  const ended = await fixture.ended(started);
  // The profile's timeout_ms is a minute.
  expect(performance.now() - began).toBeLessThan(10_000);
  expect(ended.run?.status).toBe(RunStatus.CANCELLED);
  const calls = await fixture.calls(ended);
  expect(calls.map(({ status, errorCode }) => [status, errorCode])).toEqual([
    ["failed", "call_stopped"],
    ["failed", "call_stopped"],
  ]);
  for (const call of calls) expect(call.costMicroUsd).toBe(call.promptTokens + 2 * 1_024);
  expect(ended.usage?.costMicroUsd).toBe(calls.reduce((sum, call) => sum + call.costMicroUsd, 0));
  expect((await remove("slow/")).counts).toEqual({ generation_runs: 1, teacher_calls: 2 });
  server.options.behave = undefined;
  await admin.query("truncate teacher.ledger");
});

test("what a dead holder had under way is counted when its run is deleted, or cancelled before anyone took it over", async () => {
  const put = async (key: string) => {
    const { run } = await fixture.run(asking(key, `a lift to ${key}`, 1));
    await admin.query(
      `insert into teacher.reservations (call_id, project_id, run_id, fence, request_digest, teacher_profile, model, prompt,
         prompt_tokens, completion_tokens, cost_micro_usd)
       values (gen_random_uuid(), 'p', $1, 1, 'digest', 'chat', 'test-model', 'a prompt', 7, 8, 23)`,
      [run?.id],
    );
    return run?.id ?? "";
  };
  await put("dead/one");
  expect((await usage()).calls).toBe(1);
  await remove("dead/");
  expect(await left()).toEqual({ runs: 0, calls: 0, results: 0, ledger: 2, reservations: 0 });
  expect((await usage()).calls).toBe(2);
  const id = await put("dead/two");
  // As a killed process leaves it.
  await admin.query(
    "update teacher.runs set status = 'RUNNING', finished_at = null, cancel_requested = true, lease_until = now() where id = $1",
    [id],
  );
  const ended = await fixture.ended(await fixture.client.getGenerationRun({ projectId: "p", id }));
  expect(ended.run?.status).toBe(RunStatus.CANCELLED);
  expect((await fixture.calls(ended)).map(({ errorCode }) => errorCode)).toEqual(["", "in_flight_at_crash"]);
  expect(await left()).toMatchObject({ reservations: 0 });
  await remove("dead/");
  await admin.query("truncate teacher.ledger");
});

test("the reply of a holder that only hung takes the place of the call that its successor counted", async () => {
  const { database, store } = await openStore(fixture);
  const { run } = await fixture.run(asking("hung/one", "a slow boat to Bergen", 1));
  const runId = run?.id ?? "";
  const id = crypto.randomUUID();
  await admin.query(
    `insert into teacher.reservations (call_id, project_id, run_id, fence, request_digest, teacher_profile, model, prompt,
       prompt_tokens, completion_tokens, cost_micro_usd)
     values ($1, 'p', $2, 1, 'digest', 'chat', 'test-model', 'a prompt', 700, 800, 2300)`,
    [id, runId],
  );
  const shown = async () =>
    (
      await admin.query(
        "select status, error_code, cost_micro_usd::int as cost from teacher.calls where run_id = $1 order by sequence",
        [runId],
      )
    ).rows.at(-1);
  const holder = (fence: number) => ({ run: { projectId: "p", id: runId }, fence }) as GenerationLease;
  await settleEarlierHolders(database, holder(1));
  expect(await shown()).toMatchObject({ status: "answered" });
  expect(await left()).toMatchObject({ calls: 1, reservations: 1 });
  await settleEarlierHolders(database, holder(2));
  expect(await shown()).toEqual({ status: "failed", error_code: "in_flight_at_crash", cost: 2_300 });
  const call = newCall({
    id,
    runId,
    status: "answered",
    // Answered after all: the error that was noted for it goes.
    errorCode: "",
    rawReply: "{}",
    reply: { text: "late" } as never,
    promptTokens: 7,
    completionTokens: 8,
    costMicroUsd: 23,
  });
  await store.keep(call);
  await store.keep({ ...call, costMicroUsd: 99 });
  expect(await shown()).toEqual({ status: "answered", error_code: "", cost: 23 });
  expect(await left()).toMatchObject({ calls: 2, reservations: 0 });
  await database.close();
  await remove("hung/");
  await admin.query("truncate teacher.ledger");
});
