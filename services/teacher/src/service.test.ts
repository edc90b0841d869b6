import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Split } from "@tutelage/proto/task/v1/task";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../../../tests/support/teacher-server.js";
import {
  type Fixture,
  labelRequest,
  order,
  profileYaml,
  row,
  seedRows,
  startFixture,
  task,
  writeRequest,
} from "./service.fixture.js";

let server: TeacherServer;
let fixture: Fixture;

const profilesFor = (url: string) => [
  profileYaml("chat", url, ["max_retries: 2", "max_concurrency: 4"]),
  profileYaml("base", url, ["api: completions"]),
  profileYaml("letters", url, ["scores_labels: true"]),
];

beforeAll(async () => {
  server = await startTeacherServer({ labelOf: (text) => (/rain|hot/.test(text) ? "weather" : "book_flight") });
  fixture = await startFixture(profilesFor(server.url));
});
afterEach(() => {
  server.options.behave = undefined;
  server.options.delayMs = undefined;
  server.maxConcurrent = 0;
});
afterAll(async () => {
  await fixture.stop();
  await server.stop();
});

const candidates = (results: Awaited<ReturnType<Fixture["results"]>>) =>
  results.map(({ outcome }) => (outcome?.$case === "candidate" ? outcome.value : undefined));

test("a task's worked example is what the teacher is shown", async () => {
  const asked = writeRequest("chat", [order(seedRows[0] as (typeof seedRows)[number])]);
  const workedExample = {
    input: "get me on a train to Ghent",
    output: "book_flight",
    wrongAnswer: "weather",
    newInput: "I want to be in Turin by air",
    newOutput: "book_flight",
  };
  const run = await fixture.run({ ...asked, task: { ...task, workedExample } });
  const [call] = await fixture.calls(run);
  expect(call?.prompt).toContain("get me on a train to Ghent");
  expect(call?.prompt).toContain("I want to be in Turin by air");
  expect(call?.prompt).not.toContain("two seats to Oslo");
});

test("orders become candidates in the order of the orders, with a ledger that adds up", async () => {
  // The first orders answer last.
  server.options.behave = (call) => ({
    kind: "reply",
    text: JSON.stringify({ input: `another way to say ${call.input}`, output: call.output }),
    delayMs: call.input.includes("Lisbon") ? 150 : 0,
  });
  const run = await fixture.run(
    writeRequest(
      "chat",
      seedRows.map((seed) => order(seed)),
    ),
  );
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(run.run?.progress).toMatchObject({ done: seedRows.length, total: seedRows.length, unit: "orders" });
  const results = await fixture.results(run);
  expect(results.map(({ rowId }) => rowId)).toEqual(seedRows.map(({ id }) => id));
  expect(candidates(results)[0]).toMatchObject({
    input: "another way to say I need a plane to Lisbon on Monday",
    output: "book_flight",
  });
  const calls = await fixture.calls(run);
  expect(calls).toHaveLength(seedRows.length);
  expect(new Set(calls.map(({ id }) => id))).toEqual(new Set(results.map(({ callId }) => callId)));
  const sum = (of: (call: (typeof calls)[number]) => number) => calls.reduce((total, call) => total + of(call), 0);
  expect(run.usage).toMatchObject({
    calls: calls.length,
    reusedCalls: 0,
    promptTokens: sum(({ promptTokens }) => promptTokens),
    costMicroUsd: sum(({ promptTokens, completionTokens }) => promptTokens + 2 * completionTokens),
  });
  expect(run.usage?.teacherSeconds).toBeGreaterThan(0.14);
  expect(run.usage?.teacherSeconds).toBeLessThan(sum(({ durationMs }) => durationMs) / 1_000 + 0.001);
  expect(calls.every(({ prompt, rawReply }) => prompt.includes("travel agency") && rawReply.includes("choices"))).toBe(
    true,
  );
});

test("the same work is paid once across runs, and another replicate pays anew", async () => {
  const orders = [order(row("p1", "one way to Madrid tonight", "book_flight"), { count: 3, maxAttempts: 3 })];
  const first = await fixture.run(writeRequest("chat", orders));
  const asked = server.calls.length;
  const again = await fixture.run(writeRequest("chat", orders));
  expect(server.calls.length).toBe(asked);
  expect(again.usage).toMatchObject({ calls: 0, reusedCalls: 3, costMicroUsd: 0 });
  expect(await fixture.results(again)).toEqual(await fixture.results(first));
  const replicate = await fixture.run({ ...writeRequest("chat", orders), replicateSeed: 1 });
  expect(replicate.usage).toMatchObject({ calls: 3, reusedCalls: 0 });
  const otherProject = await fixture.run({ ...writeRequest("chat", orders), projectId: "q" });
  expect(otherProject.usage).toMatchObject({ calls: 3, reusedCalls: 0 });
  const later = await fixture.run(writeRequest("chat", [{ ...(orders[0] as (typeof orders)[0]), firstAttempt: 3 }]));
  expect(later.usage).toMatchObject({ calls: 3, reusedCalls: 0 });
  expect((await fixture.results(later)).map(({ attempt }) => attempt)).toEqual([3, 4, 5]);
});

test("two runs that ask the same at the same time pay once", async () => {
  server.options.delayMs = 100;
  const request = writeRequest("chat", [order(row("s1", "get me to Vienna by noon", "book_flight"))]);
  const before = server.calls.length;
  const runs = await Promise.all([fixture.run(request), fixture.run(request)]);
  expect(server.calls.length - before).toBe(1);
  expect(runs.map(({ usage }) => usage?.calls).sort()).toEqual([0, 1]);
});

test("attempts are bounded: rubbish is rejected with its reason and asked again up to max_attempts", async () => {
  const texts = ["no idea", '{"input": "x', JSON.stringify({ input: "a hop to Bonn", output: "hotel" }), "", "rubbish"];
  let next = 0;
  server.options.behave = () => ({ kind: "reply", text: texts[next++ % texts.length] as string });
  const run = await fixture.run(
    writeRequest("chat", [order(row("b1", "to Bonn on Friday", "book_flight"), { count: 1, maxAttempts: 5 })]),
  );
  const results = await fixture.results(run);
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(results.map(({ outcome }) => outcome?.$case === "rejection" && outcome.value.code)).toEqual([
    "unparseable",
    "unparseable",
    "unknown_label",
    "empty_reply",
    "unparseable",
  ]);
  expect(results.map(({ attempt }) => attempt)).toEqual([0, 1, 2, 3, 4]);
});

test("only what is missing is asked again", async () => {
  let bad = 1;
  server.options.behave = () => (bad-- > 0 ? { kind: "reply", text: "sorry" } : undefined);
  const run = await fixture.run(
    writeRequest("chat", [order(row("m1", "a ticket to Malmo", "book_flight"), { count: 3, maxAttempts: 10 })]),
  );
  expect(run.usage?.calls).toBe(4);
  expect(candidates(await fixture.results(run)).filter(Boolean)).toHaveLength(3);
});

test("no more calls are open at once than the profile allows, over all runs", async () => {
  server.options.delayMs = 30;
  await Promise.all(
    ["a", "b"].map((name) =>
      fixture.run(
        writeRequest(
          "chat",
          Array.from({ length: 12 }, (_, i) => order(row(`${name}${i}`, `trip ${name} ${i} to Kiel`, "book_flight"))),
        ),
      ),
    ),
  );
  expect(server.maxConcurrent).toBe(4);
});

test("cancel stops new calls and gives up those in flight, which are on the account", async () => {
  server.options.delayMs = 3_000;
  const before = server.calls.length;
  const orders = Array.from({ length: 40 }, (_, i) => order(row(`x${i}`, `flight number ${i} to Graz`, "book_flight")));
  const started = await fixture.client.startGenerationRun(writeRequest("chat", orders));
  await expect.poll(() => server.calls.length - before).toBe(4);
  await fixture.client.cancelGenerationRun({ projectId: "p", id: started.run?.id ?? "" });
  const run = await fixture.ended(started);
  expect(run.run?.status).toBe(RunStatus.CANCELLED);
  expect(server.calls.length - before).toBe(4);
  expect((await fixture.calls(run)).map(({ errorCode }) => errorCode)).toEqual(Array(4).fill("call_stopped"));
  expect(run.results).toBe(0);
});

test("after a restart in the middle only calls that were in flight are made again", async () => {
  server.options.delayMs = 60;
  const own = await startFixture(profilesFor(server.url));
  const before = server.calls.length;
  const orders = Array.from({ length: 24 }, (_, i) => order(row(`r${i}`, `seat ${i} to Turin`, "book_flight")));
  const started = await own.client.startGenerationRun(writeRequest("chat", orders));
  await expect.poll(() => server.calls.length - before, { timeout: 5_000 }).toBeGreaterThan(8);
  await own.stop();
  const stopped = server.calls.length - before;
  expect(stopped).toBeLessThan(24);
  const second = await startFixture(profilesFor(server.url), { databaseUrl: own.databaseUrl });
  const run = await second.ended(started);
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(run.results).toBe(24);
  // The stop let calls in flight end, so nothing at all was paid twice.
  expect(server.calls.length - before).toBe(24);
  await second.stop();
});

test("a late holder's reply is refused, and the reply that was stored counts", async () => {
  server.options.delayMs = 500;
  const before = server.calls.length;
  const started = await fixture.client.startGenerationRun(
    writeRequest("chat", [order(row("l1", "a seat to Nice", "book_flight"))]),
  );
  await expect.poll(() => server.calls.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(before);
  // Another worker took the run over: the fence went up while the call was in flight.
  const client = new pg.Client({ connectionString: fixture.databaseUrl });
  await client.connect();
  await client.query(
    "update teacher.runs set fence = fence + 1, lease_until = now() + interval '700 ms' where id = $1",
    [started.run?.id],
  );
  await client.end();
  const run = await fixture.ended(started);
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(run.run?.fence).toBe(3);
  expect(run.results).toBe(1);
  expect(await fixture.calls(run)).toHaveLength(1);
});

test("a base model behind completions continues a list of the label", async () => {
  const run = await fixture.run(writeRequest("base", [order(seedRows[0] as (typeof seedRows)[0])]));
  expect(candidates(await fixture.results(run))[0]?.output).toBe("book_flight");
  const { body } = server.calls.at(-1) ?? {};
  expect(body).toMatchObject({ stop: ["\n"] });
  expect(body?.prompt).toMatch(
    /^A list of messages \(wants to book a flight\):\n(- .*\n){2}- I need a plane to Lisbon on Monday\n- (two seats|fly me)$/,
  );
});

test("labels are given blind, without the row among its own examples", async () => {
  const before = server.calls.length;
  const run = await fixture.run(labelRequest("chat", seedRows));
  expect(
    (await fixture.results(run)).map(({ outcome }) => outcome?.$case === "labeling" && outcome.value.label),
  ).toEqual([...["book_flight", "book_flight", "book_flight", "book_flight", "book_flight", "weather", "weather"]]);
  for (const call of server.calls.slice(before)) {
    expect(call.prompt.split(call.input)).toHaveLength(2);
    expect(call.body.temperature).toBe(0);
  }
});

test("a base model labels by continuing, and a letter's log-probabilities give likelihoods", async () => {
  const rain = row("n1", "any rain in Bergen?", "book_flight");
  const said = await fixture.run(labelRequest("base", [rain]));
  expect((await fixture.results(said))[0]?.outcome).toMatchObject({ value: { label: "weather", likelihoods: [] } });
  server.options.behave = () => ({
    kind: "reply",
    text: "C",
    topLogprobs: [
      { token: "C", logprob: Math.log(0.6) },
      { token: " C", logprob: Math.log(0.1) },
      { token: "A", logprob: Math.log(0.2) },
      { token: "The", logprob: Math.log(0.05) },
    ],
  });
  const scored = await fixture.run(labelRequest("letters", [rain]));
  const [result] = await fixture.results(scored);
  expect(result?.outcome).toMatchObject({ $case: "labeling", value: { label: "weather" } });
  const likelihoods = result?.outcome?.$case === "labeling" ? result.outcome.value.likelihoods : [];
  expect(likelihoods.map(({ label }) => label)).toEqual(["book_flight", "cancel", "weather"]);
  expect(likelihoods.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0)).toBeCloseTo(1, 6);
  expect(Math.exp(likelihoods[2]?.logProbability ?? 0)).toBeCloseTo(0.7 / (0.9 + 0.05 / Math.E), 3);
});

test("a reply that begins with no letter is read as text, and never counts for the first label", async () => {
  const topLogprobs = [
    { token: "The", logprob: Math.log(0.7) },
    { token: "**", logprob: Math.log(0.2) },
  ];
  server.options.behave = ({ input }) => ({
    kind: "reply",
    text: input.includes("Oslo") ? "The answer is" : "(C)",
    topLogprobs,
  });
  const run = await fixture.run(
    labelRequest("letters", [
      row("t1", "any snow in Oslo?", "book_flight"),
      row("t2", "any hail in Rome?", "book_flight"),
    ]),
  );
  const [unread, read] = await fixture.results(run);
  expect(unread?.outcome).toMatchObject({ $case: "rejection", value: { code: "unknown_label" } });
  expect(read?.outcome).toMatchObject({ $case: "labeling", value: { label: "weather", likelihoods: [] } });
});

test("bad requests name the field, and an unknown profile lists the known ones", async () => {
  const good = writeRequest("chat", [order(seedRows[0] as (typeof seedRows)[0])]);
  const refused = async (request: typeof good, field: string) =>
    await expect(fixture.client.startGenerationRun(request)).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  await refused({ ...good, projectId: "" }, "project_id");
  await refused({ ...good, teacherProfile: "gpt" }, "teacher_profile");
  await refused({ ...good, task: undefined }, "task");
  await refused({ ...good, work: undefined }, "work");
  await refused(writeRequest("chat", []), "write.orders");
  const seed = seedRows[0] as (typeof seedRows)[0];
  await refused(writeRequest("chat", [order(seed, { count: 4 })]), "write.orders.0.max_attempts");
  await refused(writeRequest("chat", [order({ ...seed, split: Split.TEST })]), "write.orders.0.seed_row.split");
  await refused(writeRequest("chat", [order({ ...seed, output: "hotel" })]), "write.orders.0.seed_row.output");
  await refused(writeRequest("chat", [order({ ...seed, input: "a\0b" })]), "write.orders.0.seed_row.input");
});

test("the same key returns the first run, and other projects see nothing of it", async () => {
  const request = { ...writeRequest("chat", [order(seedRows[0] as (typeof seedRows)[0])]), idempotencyKey: "k" };
  const first = await fixture.client.startGenerationRun(request);
  expect((await fixture.client.startGenerationRun(request)).run?.id).toBe(first.run?.id);
  await expect(fixture.client.startGenerationRun({ ...request, replicateSeed: 9 })).rejects.toMatchObject({
    code: "already_exists",
  });
  const foreign = { projectId: "other", id: first.run?.id ?? "" };
  await expect(fixture.client.getGenerationRun(foreign)).rejects.toMatchObject({ code: "not_found" });
  await expect(fixture.client.cancelGenerationRun(foreign)).rejects.toMatchObject({ code: "not_found" });
  await expect(fixture.results({ ...first, run: { ...first.run, projectId: "other" } as never })).rejects.toMatchObject(
    {
      code: "not_found",
    },
  );
  await fixture.ended(first);
});

test("profiles are listed without their keys", async () => {
  const { profiles } = await fixture.client.listTeacherProfiles({ projectId: "p" });
  expect(profiles.map(({ name, scoresLabels }) => [name, scoresLabels])).toEqual([
    ["base", false],
    ["chat", false],
    ["gemma3-270m", true],
    ["letters", true],
  ]);
  expect(profiles[1]?.promptMicroUsdPerMillionTokens).toBe(1_000_000);
});
