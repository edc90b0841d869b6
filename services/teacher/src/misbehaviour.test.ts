import { PassThrough } from "node:stream";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import pg from "pg";
import pino from "pino";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  startTeacherServer,
  type TeacherBehaviour,
  type TeacherServer,
} from "../../../tests/support/teacher-server.js";
import { type Fixture, order, profileYaml, row, startFixture, writeRequest } from "./service.fixture.js";

const canary = "sk-canary-1f4c9d";
const logged: string[] = [];
let server: TeacherServer;
let fixture: Fixture;
let seeds = 0;

beforeAll(async () => {
  process.env.TEACHER_TEST_KEY = canary;
  const sink = new PassThrough().on("data", (chunk: Buffer) => logged.push(chunk.toString()));
  server = await startTeacherServer({ models: ["test-model"] });
  const profile = (name: string, ...more: string[]) =>
    profileYaml(name, server.url, [
      ...["api_key: env:TEACHER_TEST_KEY", "max_retries: 1", "timeout_ms: 1500"],
      ...more,
    ]);
  fixture = await startFixture(
    [
      profile("good"),
      profile("seeded", "seed_field: seed"),
      profile("unknown-model", "model: nobody"),
      profileYaml("no-key", server.url, ["api_key: env:TEACHER_TEST_NO_SUCH_KEY"]),
    ],
    { log: pino({ level: "trace" }, sink) },
  );
});
afterEach(() => {
  server.options.behave = undefined;
});
afterAll(async () => {
  await fixture.stop();
  await server.stop();
});

/** A run of one order of a seed row of its own, so that no reply is reused. */
async function runOnce(profile = "good") {
  seeds += 1;
  const run = await fixture.run(
    writeRequest(profile, [order(row(`seed-${seeds}`, `flight ${seeds} to Lille`, "book_flight"), { maxAttempts: 1 })]),
  );
  const [result] = await fixture.results(run);
  return { run, outcome: result?.outcome, calls: await fixture.calls(run) };
}

/** Answers the first request of a prompt badly, and the next one well. */
const onceBadly = (behaviour: TeacherBehaviour) => {
  server.options.behave = (call) => (call.time === 1 ? behaviour : undefined);
};

test.each<[string, TeacherBehaviour, string]>([
  ["500", { kind: "status", status: 500 }, "teacher_unavailable"],
  ["503 with a page", { kind: "status", status: 503, body: "<html>down</html>" }, "teacher_unavailable"],
  ["408", { kind: "status", status: 408 }, "teacher_timeout"],
  ["409", { kind: "status", status: 409 }, "teacher_unavailable"],
  ["a page with status 200", { kind: "html" }, "teacher_bad_reply"],
  ["half a JSON", { kind: "half-json" }, "teacher_bad_reply"],
  ["an empty body", { kind: "empty-body" }, "teacher_bad_reply"],
  ["JSON that is no completion", { kind: "status", status: 200, body: '{"ok":true}' }, "teacher_bad_reply"],
  ["a reset connection", { kind: "reset" }, "teacher_unavailable"],
  ["a connection cut midway", { kind: "reset-midway" }, "teacher_unavailable"],
  ["no answer", { kind: "hang" }, "teacher_timeout"],
  ["a reply without end", { kind: "huge", bytes: 5_000_000 }, "teacher_reply_too_big"],
])("%s is tried again, and both calls are in the ledger", async (_, behaviour, code) => {
  onceBadly(behaviour);
  const { run, outcome, calls } = await runOnce();
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(outcome?.$case).toBe("candidate");
  expect(calls.map(({ status, errorCode }) => [status, errorCode])).toEqual([
    ["failed", code],
    ["answered", ""],
  ]);
  expect(calls[0]?.requestDigest).toBe(calls[1]?.requestDigest);
  expect(run.usage?.calls).toBe(2);
});

test("every try of a call has the same mark, and the seed goes where the profile says", async () => {
  onceBadly({ kind: "reset-midway" });
  await runOnce("seeded");
  const [first, second] = server.calls.slice(-2);
  expect([first?.try, first?.ended, second?.try, second?.ended]).toEqual([1, "cut", 2, "answered"]);
  expect(second?.key).toMatch(/^[0-9a-f]{64}$/);
  expect(second?.body.seed).toBe(first?.body.seed);
  expect(first?.seed).toBeGreaterThanOrEqual(0);
  await runOnce();
  expect(server.calls.at(-1)?.body).not.toHaveProperty("seed");
});

test("retries are bounded, and the attempt is then rejected as the provider's error; the run goes on", async () => {
  server.options.behave = () => ({ kind: "html" });
  const { run, outcome, calls } = await runOnce();
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(outcome).toMatchObject({ $case: "rejection", value: { code: "provider_error" } });
  expect(outcome?.$case === "rejection" && outcome.value.message).toContain("teacher_bad_reply");
  expect(calls).toHaveLength(2);
  // The provider may bill such a reply: the most that it can have cost is counted.
  expect(calls.every(({ costMicroUsd }) => costMicroUsd > 0)).toBe(true);
});

test.each<[TeacherBehaviour, boolean]>([
  [{ kind: "status", status: 500 }, true],
  [{ kind: "status", status: 502 }, true],
  [{ kind: "status", status: 408 }, true],
  [{ kind: "reset-midway" }, true],
  [{ kind: "status", status: 503 }, false],
  [{ kind: "status", status: 429, headers: { "retry-after": "0" } }, false],
  [{ kind: "status", status: 409 }, false],
])(
  "after %j the model may have worked: %s; then all that was set aside counts, else nothing",
  async (behaviour, may) => {
    onceBadly(behaviour);
    const { calls } = await runOnce();
    expect(calls.map(({ status }) => status)).toEqual(["failed", "answered"]);
    const [failed] = calls;
    expect(failed?.completionTokens).toBe(may ? 1_024 : 0);
    expect(failed?.costMicroUsd).toBe((failed?.promptTokens ?? 0) + 2 * (failed?.completionTokens ?? 0));
    expect((failed?.promptTokens ?? 0) > 0).toBe(may);
  },
);

test("a failed call may be made again by a later run", async () => {
  server.options.behave = () => ({ kind: "html" });
  const orders = [order(row("again", "flight again to Metz", "book_flight"), { maxAttempts: 1 })];
  await fixture.run(writeRequest("good", orders));
  server.options.behave = undefined;
  const run = await fixture.run(writeRequest("good", orders));
  expect((await fixture.results(run))[0]?.outcome?.$case).toBe("candidate");
});

test("429 waits as long as the provider asks, in seconds or as a date", async () => {
  for (const header of [() => "1", () => new Date(Date.now() + 2_000).toUTCString()]) {
    onceBadly({ kind: "status", status: 429, headers: { "retry-after": header() } });
    const began = performance.now();
    const { outcome } = await runOnce();
    expect(outcome?.$case).toBe("candidate");
    // A date has whole seconds: up to one of the two may be gone already.
    expect(performance.now() - began).toBeGreaterThan(950);
  }
});

test.each<[string, TeacherBehaviour, string]>([
  ["401", { kind: "status", status: 401 }, "teacher_unauthorized"],
  ["403", { kind: "status", status: 403 }, "teacher_unauthorized"],
  [
    "an exhausted quota",
    { kind: "status", status: 429, body: '{"error":{"code":"insufficient_quota"}}' },
    "teacher_quota_exhausted",
  ],
  ["a redirect", { kind: "status", status: 302, headers: { location: "http://127.0.0.1:1/" } }, "teacher_redirected"],
])("%s fails the run at once", async (_, behaviour, code) => {
  server.options.behave = () => behaviour;
  const { run, calls } = await runOnce();
  expect(run.run).toMatchObject({ status: RunStatus.FAILED, failure: { code } });
  expect(calls.map(({ errorCode }) => errorCode)).toEqual([code]);
});

test("an unknown model and a missing key fail the run with their names", async () => {
  expect((await runOnce("unknown-model")).run.run?.failure).toMatchObject({ code: "teacher_model_not_found" });
  const { run } = await runOnce("no-key");
  expect(run.run?.failure?.code).toBe("teacher_key_missing");
  expect(run.run?.failure?.message).toContain("env:TEACHER_TEST_NO_SUCH_KEY");
});

test("400 is not tried again", async () => {
  server.options.behave = () => ({ kind: "status", status: 400 });
  const { outcome, calls } = await runOnce();
  expect(outcome).toMatchObject({ $case: "rejection", value: { code: "provider_error" } });
  expect(calls.map(({ errorCode }) => errorCode)).toEqual(["teacher_refused_request"]);
});

test("a truncated reply is rejected as such", async () => {
  server.options.behave = () => ({ kind: "reply", text: '{"input": "a long', finish: "length" });
  expect((await runOnce()).outcome).toMatchObject({ value: { code: "truncated" } });
});

test.each([
  [undefined],
  [{ prompt_tokens: -5, completion_tokens: "many" }],
  [{ prompt_tokens: 0, completion_tokens: 0 }],
  [{ prompt_tokens: 120, completion_tokens: 0 }],
])("usage %j is not believed: an upper bound is counted", async (usage) => {
  server.options.behave = (call) => ({
    kind: "reply",
    text: JSON.stringify({ input: `see ${call.input}`, output: "book_flight" }),
    usage,
  });
  const { calls } = await runOnce();
  expect(calls[0]?.promptTokens).toBeGreaterThan(100);
  expect(calls[0]?.completionTokens).toBeGreaterThan(10);
  expect(calls[0]?.costMicroUsd).toBeGreaterThan(120);
});

test("text that Postgres cannot hold does not break the run", async () => {
  server.options.behave = () => ({
    kind: "reply",
    text: JSON.stringify({ input: "a \u0000 flight \ud83d to Pau", output: "book_flight" }),
  });
  const { outcome } = await runOnce();
  expect(outcome).toMatchObject({ $case: "candidate", value: { input: "a \ufffd flight \ufffd to Pau" } });
});

test("the key goes to the provider and nowhere else, not even when the provider repeats it", async () => {
  server.options.behave = (call) => ({
    kind: "status",
    status: 401,
    body: JSON.stringify({ error: { message: `Incorrect API key provided: ${call.authorization}` } }),
  });
  const { run, calls } = await runOnce();
  expect(server.calls.at(-1)?.authorization).toBe(`Bearer ${canary}`);
  expect(run.run?.failure?.message).toContain("[redacted]");
  expect(JSON.stringify([run, calls])).not.toContain(canary);
  server.options.behave = (call) => ({
    kind: "reply",
    text: JSON.stringify({ input: `${call.authorization} to Brest`, output: "book_flight" }),
  });
  await runOnce();
  const client = new pg.Client({ connectionString: fixture.databaseUrl });
  await client.connect();
  for (const table of ["calls", "results", "runs"]) {
    const { rows } = await client.query(`select count(*)::int as found from teacher.${table} t where t::text like $1`, [
      `%${canary}%`,
    ]);
    expect(rows[0].found).toBe(0);
  }
  await client.end();
  expect(logged.length).toBeGreaterThan(10);
  expect(logged.join("")).not.toContain(canary);
  // Nor are prompts and replies logged.
  expect(logged.join("")).not.toContain("Lille");
});
