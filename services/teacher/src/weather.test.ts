import { setTimeout as sleep } from "node:timers/promises";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { BreakerState, type GenerationRun } from "@tutelage/proto/teacher/v1/teacher";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../../../tests/support/teacher-server.js";
import { teacherWeather } from "../../../tests/support/teacher-weather.js";
import { until } from "../../../tests/support/waiting.js";
import { type Fixture, openStore, order, profileYaml, row, startFixture, writeRequest } from "./service.fixture.js";
import { WeatherStore } from "./weatherstore.js";

const quickBreaker = "breaker: { failures: 2, first_probe_ms: 100, longest_probe_ms: 400 }";
let server: TeacherServer;
let standIn: TeacherServer;
let profiles: string[];
let fixture: Fixture;

beforeAll(async () => {
  [server, standIn] = await Promise.all([startTeacherServer(), startTeacherServer()]);
  const profile = (name: string, ...more: string[]) => profileYaml(name, server.url, ["max_retries: 1", ...more]);
  profiles = [
    ...["dead", "impatient", "rested", "reborn", "poisoned"].map((name) => profile(name, quickBreaker)),
    profile("busy", "max_concurrency: 16"),
    profile("pausing"),
    profile("shared", quickBreaker),
    profile("replaced", quickBreaker, "fallback: standing-in"),
    profileYaml("standing-in", standIn.url),
    profileYaml("calm", standIn.url, ["seed_field: seed"]),
    profileYaml("stormy", server.url, [
      "seed_field: seed",
      "breaker: { failures: 5, first_probe_ms: 100, longest_probe_ms: 400 }",
    ]),
  ];
  fixture = await startFixture(profiles);
});
afterEach(() => {
  server.options.behave = undefined;
});
afterAll(async () => {
  await fixture.stop();
  await Promise.all([server.stop(), standIn.stop()]);
});

/** Orders that nobody asked before. */
const orders = (name: string, count: number) =>
  Array.from({ length: count }, (_, index) => order(row(`${name}${index}`, `to ${name} ${index}`, "book_flight")));
/** As if the time that the provider asked for were over. */
async function closeBreaker(name: string): Promise<void> {
  const { database } = await openStore(fixture);
  await database.pool.query("update breakers set state = 'closed' where teacher_profile = $1", [name]);
  await database.close();
  // Within this time a replica looks again.
  await sleep(600);
}
const weatherOf = async (name: string) => await fixture.client.getTeacherProfile({ projectId: "p", name });

test("a run waits in its queue for a provider that is away, and goes on by itself when it answers again", async () => {
  const sentBefore = server.calls.length;
  // It dies in the midst of a run, with slow replies still on their way.
  server.options.behave = ({ number }) =>
    number <= sentBefore + 10 ? { kind: "good", delayMs: (number % 5) * 100 } : { kind: "reset" };
  const started = await fixture.client.startGenerationRun(writeRequest("dead", orders("dead", 40)));
  const waiting = await fixture.waiting(started);
  expect(waiting.waiting).toMatchObject({ profile: "dead", code: "teacher_unavailable" });
  expect(waiting.run?.progress?.message).toContain('waiting for teacher "dead"');
  const { breaker } = await weatherOf("dead");
  expect([BreakerState.OPEN, BreakerState.HALF_OPEN]).toContain(breaker?.state);
  expect(breaker).toMatchObject({ code: "teacher_unavailable", reason: expect.stringContaining("connection") });
  await until(async () => ((await weatherOf("dead")).breaker?.failedProbes ?? 0) > 0);
  // It was tried a few times, with one call each.
  const sent = server.calls.length - sentBefore;
  expect(sent).toBeLessThan(40);
  server.options.behave = undefined;
  const run = await fixture.ended(started);
  expect(run).toMatchObject({ results: 40, waiting: undefined, run: { status: RunStatus.SUCCEEDED } });
  expect((await fixture.results(run)).every(({ outcome }) => outcome?.$case === "candidate")).toBe(true);
  expect((await weatherOf("dead")).breaker).toMatchObject({
    state: BreakerState.CLOSED,
    code: "",
    openedAt: undefined,
  });
});

test("its patience is bounded: then the run fails with the provider's failure", async () => {
  server.options.behave = () => ({ kind: "status", status: 503 });
  const run = await fixture.run({ ...writeRequest("impatient", orders("impatient", 3)), patienceSeconds: 1 });
  expect(run.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "teacher_unavailable" } });
  expect(run.run?.failure?.message).toMatch(/waited \d+ of at most 1 seconds.*503/);
  expect(run.waiting).toBeUndefined();
  // 503 turns the request away: nothing was billed.
  expect(run.usage?.costMicroUsd).toBe(0);
});

test("what a run has waited before it was paused does not count when it goes on", async () => {
  server.options.behave = () => ({ kind: "status", status: 503 });
  const started = await fixture.client.startGenerationRun({
    ...writeRequest("rested", orders("rested", 3)),
    patienceSeconds: 60,
  });
  await fixture.waiting(started);
  const which = { projectId: "p", id: started.run?.id ?? "" };
  await fixture.client.pauseGenerationRun(which);
  await until(async () => (await fixture.client.getGenerationRun(which)).run?.status === RunStatus.PAUSED);
  const { database } = await openStore(fixture);
  const longAgo = new Date(Date.now() - 3_600_000);
  const { rowCount } = await database.pool.query(
    "update runs set state = jsonb_set(state, '{waiting,since}', to_jsonb($2::text)) where id = $1",
    [which.id, longAgo.toISOString()],
  );
  expect(rowCount).toBe(1);
  await database.close();
  await fixture.client.resumeGenerationRun(which);
  const waiting = await fixture.waiting(started);
  expect(waiting.waiting?.since?.getTime()).toBeGreaterThan(longAgo.getTime());
  server.options.behave = undefined;
  expect((await fixture.ended(started)).run?.status).toBe(RunStatus.SUCCEEDED);
});

test("a run that waits is cancelled at once", async () => {
  server.options.behave = () => ({ kind: "status", status: 503 });
  const started = await fixture.client.startGenerationRun(writeRequest("reborn", orders("reborn", 3)));
  await fixture.waiting(started);
  const which = { projectId: "p", id: started.run?.id ?? "" };
  await fixture.client.cancelGenerationRun(which);
  expect((await fixture.ended(started)).run?.status).toBe(RunStatus.CANCELLED);
});

test("a provider that takes four calls at once gets about four, and no attempt is lost to its refusals", async () => {
  const isOpen = ({ ended }: { ended: string }) => ended === "open";
  server.options.behave = () =>
    server.calls.filter(isOpen).length > 4 ? { kind: "status", status: 429 } : { kind: "good", delayMs: 200 };
  const run = await fixture.run(writeRequest("busy", orders("busy", 60)));
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  const results = await fixture.results(run);
  expect(results.map(({ outcome }) => outcome?.$case)).toEqual(Array(60).fill("candidate"));
  expect(results.every(({ teacherProfile }) => teacherProfile === "busy")).toBe(true);
  const refused = (await fixture.calls(run)).filter(({ errorCode }) => errorCode === "teacher_rate_limited");
  expect(refused.length).toBeGreaterThan(0);
  const { senders, maxConcurrency } = await weatherOf("busy");
  expect(maxConcurrency).toBe(16);
  expect(senders).toHaveLength(1);
  expect(senders[0]?.concurrency).toBeLessThan(12);
});

test.each([
  ["seconds", () => "120"],
  ["a date", () => new Date(Date.now() + 120_000).toUTCString()],
])("a long Retry-After as %s is waited for in the queue, and not called meanwhile", async (_, header) => {
  server.options.behave = () => ({ kind: "status", status: 429, headers: { "retry-after": header() } });
  const run = await fixture.waiting(
    await fixture.client.startGenerationRun(writeRequest("pausing", orders("pausing", 1))),
  );
  expect(run.waiting?.code).toBe("teacher_rate_limited");
  const leftMs = (run.waiting?.until?.getTime() ?? 0) - Date.now();
  expect(leftMs).toBeGreaterThan(100_000);
  expect(leftMs).toBeLessThan(121_000);
  const sent = server.calls.length;
  const other = await fixture.client.startGenerationRun(writeRequest("pausing", orders("patient", 1)));
  await fixture.waiting(other);
  expect(server.calls.length).toBe(sent);
  for (const one of [run, other]) {
    await fixture.client.cancelGenerationRun({ projectId: "p", id: one.run?.id ?? "" });
  }
  await closeBreaker("pausing");
});

test("a call that its provider answers with an error again and again is given up, where no other call tells more", async () => {
  server.options.behave = () => ({ kind: "status", status: 500 });
  const run = await fixture.run(
    writeRequest("poisoned", [order(row("poison", "to the end of the world", "book_flight"), { maxAttempts: 1 })]),
  );
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  const [result] = await fixture.results(run);
  expect(result?.outcome).toMatchObject({ $case: "rejection", value: { code: "provider_error" } });
  expect(run.usage?.calls).toBe(20);
}, 60_000);

test("what one replica learns holds for all, and one of them tries for all", async () => {
  const other = await startFixture(profiles, { databaseUrl: fixture.databaseUrl });
  server.options.behave = () => ({ kind: "status", status: 503, delayMs: 100 });
  const first = await fixture.client.startGenerationRun(writeRequest("shared", orders("shared", 2)));
  await fixture.waiting(first);
  const sent = server.calls.length;
  // Runs of both, of which each claims some.
  const runs = await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      other.client.startGenerationRun(writeRequest("shared", orders(`shared${index}-`, 3))),
    ),
  );
  await Promise.all(runs.map((run) => other.waiting(run)));
  await sleep(1_000);
  // Probes come after 100, 200, 400, 400, … ms, one call each.
  expect(server.calls.length - sent).toBeLessThan(12);
  expect(server.maxConcurrent).toBeGreaterThan(1);
  server.options.behave = undefined;
  for (const run of [first, ...runs]) {
    expect((await other.ended(run)).run?.status).toBe(RunStatus.SUCCEEDED);
  }
  await other.stop();
});

test("the same orders come to the same rows in bad weather as in calm, and none is paid for twice", async () => {
  const storm = teacherWeather({
    seed: 3,
    shares: { busy: 0.1, broken: 0.1, overloaded: 0.05, reset: 0.1, halfReply: 0.1, halfJson: 0.05 },
    mostFaults: 3,
    latencyMs: { from: 0, to: 30 },
  });
  server.options.behave = storm;
  const sent = server.calls.length;
  const [rough, calm] = await Promise.all([
    fixture.run(writeRequest("stormy", orders("sea", 50))),
    fixture.run(writeRequest("calm", orders("sea", 50))),
  ]);
  const outcomes = async (run: GenerationRun) => (await fixture.results(run)).map(({ outcome }) => outcome);
  expect(await outcomes(rough)).toEqual(await outcomes(calm));
  expect(rough.results).toBe(50);
  const calls = server.calls.slice(sent);
  expect(calls.length).toBeGreaterThan(65);
  const answered = calls.filter(({ ended }) => ended === "answered").map(({ key }) => key);
  expect(new Set(answered).size).toBe(50);
  expect(answered).toHaveLength(50);
}, 60_000);

test("a holder that dies while it tries the provider is replaced when it has lost its run", async () => {
  const { database } = await openStore(fixture);
  const store = new WeatherStore(database);
  await store.open("tried", { code: "teacher_timeout", reason: "late", probeInMs: 0 });
  const { rows } = await database.pool.query(
    `insert into runs (project_id, idempotency_key, request, request_sha256, status, fence, lease_until)
     values ('p', 'prober', '{}', '', 'RUNNING', 4, now() + interval '2 s') returning id`,
  );
  const holder = { runId: rows[0].id, fence: 4 };
  const other = { runId: crypto.randomUUID(), fence: 1 };
  expect(await store.takeProbe("tried", holder, 60_000)).toBe(true);
  expect(await store.takeProbe("tried", other, 60_000)).toBe(false);
  // Somebody else has the run now; nothing is left of it for the service to work on.
  await database.pool.query("delete from runs where id = $1", [holder.runId]);
  expect(await store.takeProbe("tried", other, 60_000)).toBe(true);
  await database.close();
});

test("another profile writes while the provider is away; each result and call says which", async () => {
  server.options.behave = () => ({ kind: "reset" });
  const away = await fixture.run(writeRequest("replaced", orders("replaced", 6)));
  expect(away.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(away.waiting).toBeUndefined();
  const results = await fixture.results(away);
  expect(results).toHaveLength(6);
  expect(new Set(results.map(({ teacherProfile }) => teacherProfile))).toEqual(new Set(["standing-in"]));
  const calls = await fixture.calls(away);
  expect(new Set(calls.map(({ teacherProfile, status }) => `${teacherProfile} ${status}`))).toEqual(
    new Set(["replaced failed", "standing-in answered"]),
  );
  server.options.behave = undefined;
  await expect
    .poll(
      async () => {
        const run = await fixture.run(writeRequest("replaced", orders(`back${server.calls.length}-`, 1)));
        return (await fixture.results(run))[0]?.teacherProfile;
      },
      { timeout: 10_000 },
    )
    .toBe("replaced");
  expect((await fixture.client.listTeacherProfiles({ projectId: "p" })).profiles).toContainEqual(
    expect.objectContaining({ name: "replaced", fallback: "standing-in" }),
  );
});
