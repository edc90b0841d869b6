import { RunStatus } from "@tutelage/proto/run/v1/run";
import type { GenerationBudget } from "@tutelage/proto/teacher/v1/teacher";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  startTeacherServer,
  type TeacherBehaviour,
  type TeacherServer,
} from "../../../tests/support/teacher-server.js";
import { Budget } from "./budget.js";
import { type Fixture, order, profileYaml, row, startFixture, writeRequest } from "./service.fixture.js";

const workers = 64;
let server: TeacherServer;
let fixture: Fixture;

beforeAll(async () => {
  server = await startTeacherServer();
  const profile = (name: string, ...more: string[]) =>
    profileYaml(name, server.url, [`max_concurrency: ${workers}`, "max_tokens: 100", ...more]);
  fixture = await startFixture([
    profile("steady"),
    profile("shaky", "max_retries: 4", "timeout_ms: 2000"),
    profileYaml("single", server.url, ["max_concurrency: 1", "max_tokens: 100"]),
  ]);
});
afterEach(() => {
  server.options.behave = undefined;
});
afterAll(async () => {
  await fixture.stop();
  await server.stop();
});

/** Orders of seed rows of their own, so that no reply is reused. */
function orders(name: string, count: number) {
  return Array.from({ length: count }, (_, index) =>
    order(row(`${name}-${index}`, `${name} flight ${index} to Lille`, "book_flight"), { exampleRows: [] }),
  );
}

/** Runs orders under a budget and gives what the server saw. */
async function run(profile: string, name: string, count: number, limits: Partial<GenerationBudget>) {
  const budget = { rests: false, ...limits };
  const before = server.calls.length;
  const ended = await fixture.run({ ...writeRequest(profile, orders(name, count)), budget });
  return { ended, sent: server.calls.slice(before) };
}

const never = new AbortController().signal;

const most = (costMicroUsd: number) => ({ calls: 1, tokens: 10, costMicroUsd });

test("money that others may give back is waited for; what cannot come back is not", async () => {
  const budget = new Budget({ costMicroUsd: 100, rests: false }, { calls: 3, tokens: 0, costMicroUsd: 30 });
  expect(await budget.reserve(most(60), never)).toBe(true);
  const second = budget.reserve(most(60), never);
  budget.settle(most(60), most(5));
  expect(await second).toBe(true);
  const third = budget.reserve(most(60), never);
  budget.settle(most(60), most(60));
  expect(await third).toBe(false);
  expect(budget.met).toEqual({ scope: "run", line: { name: "cost_micro_usd", used: 95, cap: 100 } });
  // Not even a cheaper one: which questions are asked must not depend on their length.
  expect(await budget.reserve(most(1), never)).toBe(false);
});

test("a try that was not sent gives everything back, and an abort ends the wait", async () => {
  const budget = new Budget({ calls: 1, rests: false }, { calls: 0, tokens: 0, costMicroUsd: 0 });
  expect(await budget.reserve(most(10), never)).toBe(true);
  const stop = new AbortController();
  const waiting = budget.reserve(most(10), stop.signal);
  stop.abort(new Error("stopped"));
  await expect(waiting).rejects.toThrow("stopped");
  budget.settle(most(10), undefined);
  expect(await budget.reserve(most(10), never)).toBe(true);
  expect(budget.exhausted).toBe(false);
});

test("64 workers make exactly 1,000 calls of a budget of 1,000", { timeout: 120_000 }, async () => {
  // The first of each worker waits for those of the others.
  server.options.behave = (call) =>
    call.number > workers
      ? undefined
      : {
          kind: "reply",
          text: JSON.stringify({ input: `slowly, ${call.input}`, output: "book_flight" }),
          delayMs: 2_000,
        };
  const { ended, sent } = await run("steady", "steady", 1_100, { calls: 1_000 });
  expect(sent).toHaveLength(1_000);
  expect(server.maxConcurrent).toBe(workers);
  expect(ended.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(ended).toMatchObject({ budgetExhausted: true, ordersLeft: 100, results: 1_000 });
  expect(ended.usage?.calls).toBe(1_000);
});

test("with refusals, cut connections and retries it is never more", { timeout: 120_000 }, async () => {
  const misfortunes: TeacherBehaviour[] = [
    { kind: "status", status: 429, headers: { "retry-after": "0" } },
    { kind: "status", status: 500 },
    { kind: "reset" },
    { kind: "reset-midway" },
    { kind: "half-json" },
  ];
  server.options.behave = ({ number }) => (number % 3 === 0 ? misfortunes[number % 5] : undefined);
  const { ended, sent } = await run("shaky", "shaky", 400, { calls: 300 });
  expect(ended.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(ended.budgetExhausted).toBe(true);
  expect(sent.length).toBeLessThanOrEqual(300);
  // A call that never left this machine would count too; none does here.
  expect(ended.usage?.calls).toBe(300);
  expect(ended.results).toBeLessThan(300);
});

test("the money wall holds by the server's count of tokens, and little is left of it", {
  timeout: 120_000,
}, async () => {
  const most = 60_000;
  let billed = 0;
  server.options.behave = (call) => {
    // The endpoint works, and bills, also where the connection is cut midway.
    const tokens = { prompt_tokens: Math.ceil(call.prompt.length / 4), completion_tokens: 40 };
    billed += tokens.prompt_tokens + 2 * tokens.completion_tokens;
    if (call.number % 10 === 0) return { kind: "reset-midway" };
    return {
      kind: "reply",
      text: JSON.stringify({ input: `again ${call.number} ${call.input}`, output: "book_flight" }),
      usage: tokens,
    };
  };
  const { ended } = await run("shaky", "money", 600, { costMicroUsd: most });
  expect(ended.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(ended.budgetExhausted).toBe(true);
  expect(billed).toBeLessThanOrEqual(ended.usage?.costMicroUsd ?? 0);
  expect(ended.usage?.costMicroUsd).toBeLessThanOrEqual(most);
  // No more than the most that one try can cost is left.
  const calls = await fixture.calls(ended);
  const dearest = Math.max(...calls.map(({ prompt }) => Buffer.byteLength(prompt) + 2 * 100));
  expect(ended.usage?.costMicroUsd).toBeGreaterThan(most - dearest);
});

test("a reply without usage counts for all that was set aside", async () => {
  server.options.behave = (call) => ({
    kind: "reply",
    text: JSON.stringify({ input: `quiet ${call.number} ${call.input}`, output: "book_flight" }),
    usage: undefined,
  });
  const { ended } = await run("single", "quiet", 1, {});
  const [call] = await fixture.calls(ended);
  expect(call?.completionTokens).toBe(100);
  expect(ended).toMatchObject({ budgetExhausted: false, ordersLeft: 0 });
});

test("stored replies are free, also when nothing may be spent", async () => {
  const first = await run("single", "stored", 3, {});
  expect(first.sent).toHaveLength(3);
  const { ended, sent } = await run("single", "stored", 5, { calls: 0 });
  expect(sent).toHaveLength(0);
  expect(ended).toMatchObject({ results: 3, budgetExhausted: true, ordersLeft: 2 });
  expect(ended.usage).toMatchObject({ calls: 0, reusedCalls: 3, costMicroUsd: 0 });
});

test("a start with the same key and another budget returns the first run", async () => {
  const request = { ...writeRequest("single", orders("same", 1)), idempotencyKey: "same-key" };
  const first = await fixture.run({ ...request, budget: { calls: 5, rests: false } });
  const again = await fixture.client.startGenerationRun(request);
  expect(again.run?.id).toBe(first.run?.id);
});

test.each([
  [{ calls: -1, rests: false }, "budget.calls"],
  [{ costMicroUsd: -5, rests: true }, "budget.cost_micro_usd"],
  [{ tokens: -2, rests: true }, "budget.tokens"],
])("a budget of %j is refused", async (budget, field) => {
  const request = { ...writeRequest("single", orders("bad", 1)), budget };
  await expect(fixture.client.startGenerationRun(request)).rejects.toMatchObject({
    code: "invalid_argument",
    fields: [{ field }],
  });
});
