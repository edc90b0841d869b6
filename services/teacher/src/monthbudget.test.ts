/** A project's month as a wall for all its runs, in whatever process; and runs that rest at a wall. */
import { RunStatus } from "@tutelage/proto/run/v1/run";
import type { GenerationBudget, GenerationRun } from "@tutelage/proto/teacher/v1/teacher";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  startTeacherServer,
  type TeacherBehaviour,
  type TeacherServer,
} from "../../../tests/support/teacher-server.js";
import { type Fixture, order, profileYaml, row, startFixture, writeRequest } from "./service.fixture.js";

/** Two services with two runs each, of 16 calls at once each: 64 workers. */
const perRun = 16;
let server: TeacherServer;
let fixtures: Fixture[];

beforeAll(async () => {
  server = await startTeacherServer();
  const profiles = [
    profileYaml("wide", server.url, [`max_concurrency: ${2 * perRun}`, "max_tokens: 100", "timeout_ms: 2000"]),
    profileYaml("single", server.url, ["max_concurrency: 1", "max_tokens: 100", "max_retries: 0"]),
  ];
  const first = await startFixture(profiles);
  fixtures = [first, await startFixture(profiles, { databaseUrl: first.databaseUrl })];
});
afterEach(() => {
  server.options.behave = undefined;
});
afterAll(async () => {
  for (const fixture of fixtures) await fixture.stop();
  await server.stop();
});

const first = () => fixtures[0] as Fixture;
const budgetOf = (budget: Partial<GenerationBudget>): GenerationBudget => ({ rests: true, ...budget });

function request(projectId: string, profile: string, name: string, count: number, budget = budgetOf({})) {
  const orders = Array.from({ length: count }, (_, index) =>
    order(row(`${name}-${index}`, `${name} flight ${index} to Lille`, "book_flight"), { exampleRows: [] }),
  );
  return { ...writeRequest(profile, orders), projectId, budget };
}

/** Waits until a run has ended or rests. */
async function settled(fixture: Fixture, run: GenerationRun): Promise<GenerationRun> {
  const which = { projectId: run.run?.projectId ?? "", id: run.run?.id ?? "" };
  for await (const now of fixture.client.watchGenerationRun(which, { deadline: 60_000 })) {
    if (![RunStatus.QUEUED, RunStatus.RUNNING].includes(now.run?.status ?? RunStatus.QUEUED)) return now;
  }
  throw new Error("The watch ended before the run.");
}

/** Small and quick: its sequence is the seed's. */
function randomOf(seed: number): () => number {
  let state = seed * 2_654_435_761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
}

const misfortunes: TeacherBehaviour[] = [
  { kind: "status", status: 500 },
  { kind: "reset" },
  { kind: "reset-midway" },
  { kind: "half-json" },
];

test.each(Array.from({ length: 20 }, (_, seed) => seed))(
  "64 workers of four runs in two services make exactly 1,000 calls of a project's 1,000: seed %i",
  { timeout: 120_000 },
  async (seed) => {
    const projectId = `wall-${seed}`;
    const random = randomOf(seed);
    // Every other seed has misfortunes, and then it is never more.
    const isSteady = seed % 2 === 0;
    server.options.behave = (call) => {
      if (!isSteady && random() < 0.2) return misfortunes[Math.floor(random() * misfortunes.length)];
      const text = JSON.stringify({ input: `wave ${seed} ${call.input}`, output: "book_flight" });
      return { kind: "reply", text, delayMs: Math.floor(random() * 4) };
    };
    await first().client.setMonthBudget({ projectId, caps: [{ name: "teacher_calls", cap: 1_000 }] });
    const before = server.calls.length;
    const runs = await Promise.all(
      fixtures.flatMap((fixture, service) =>
        [0, 1].map(async (number) => {
          const asked = request(projectId, "wide", `s${seed}-${service}-${number}`, 275);
          return await settled(fixture, await fixture.client.startGenerationRun(asked));
        }),
      ),
    );
    const sent = server.calls.length - before;
    if (isSteady) expect(sent).toBe(1_000);
    else expect(sent).toBeLessThanOrEqual(1_000);
    expect(runs.some(({ run }) => run?.status === RunStatus.BUDGET_EXHAUSTED)).toBe(true);
    for (const { run } of runs) {
      if (run?.status !== RunStatus.BUDGET_EXHAUSTED) continue;
      expect(run.rest).toMatchObject({ code: "project_teacher_calls" });
      expect(run.rest?.until?.getUTCDate()).toBe(1);
    }
    const { lines } = await first().client.getMonthBudget({ projectId });
    expect(lines.find(({ name }) => name === "teacher_calls")).toMatchObject({ used: 1_000, cap: 1_000 });
    const marks = runs.flatMap(({ budgetNotices }) => budgetNotices.map(({ percent }) => percent));
    expect(marks.sort((a, b) => a - b)).toEqual([50, 80, 95]);
  },
);

test("a month counts what calls used, not what was set aside; a raised cap lets a run go on", async () => {
  const projectId = "tokens";
  await first().client.setMonthBudget({ projectId, caps: [{ name: "teacher_tokens", cap: 3_000 }] });
  const rested = await settled(first(), await first().client.startGenerationRun(request(projectId, "single", "t", 20)));
  expect(rested.run).toMatchObject({ status: RunStatus.BUDGET_EXHAUSTED, rest: { code: "project_teacher_tokens" } });
  const tokensOf = ({ usage }: GenerationRun) => (usage?.promptTokens ?? 0) + (usage?.completionTokens ?? 0);
  const line = async () =>
    (await first().client.getMonthBudget({ projectId })).lines.find(({ name }) => name === "teacher_tokens");
  expect((await line())?.used).toBe(tokensOf(rested));
  expect(tokensOf(rested)).toBeLessThanOrEqual(3_000);
  expect(rested.usage?.calls).toBeGreaterThan(0);

  const sent = server.calls.length;
  await first().client.setMonthBudget({ projectId, caps: [{ name: "teacher_tokens", cap: 0 }] });
  const which = { projectId, id: rested.run?.id ?? "" };
  await first().client.resumeGenerationRun(which);
  const ended = await first().ended(rested);
  expect(ended.run?.status).toBe(RunStatus.SUCCEEDED);
  // What it had is kept, and not asked again.
  expect(server.calls.length - sent).toBe(20 - (rested.usage?.calls ?? 0));
  expect((await line())?.used).toBe(tokensOf(ended));
});

test("a run that rests at its own wall goes on with a larger budget, and one that may not rest ends there", async () => {
  const projectId = "own";
  const asked = request(projectId, "single", "own", 6, budgetOf({ calls: 2 }));
  const rested = await settled(first(), await first().client.startGenerationRun(asked));
  expect(rested).toMatchObject({ run: { rest: { code: "run_teacher_calls" } }, usage: { calls: 2 }, ordersLeft: 4 });
  const which = { projectId, id: rested.run?.id ?? "" };
  // As large as before: it looks, and rests again without a call.
  await first().client.resumeGenerationRun(which);
  expect((await settled(first(), rested)).usage?.calls).toBe(2);
  await first().client.resumeGenerationRun({ ...which, budget: budgetOf({ calls: 100 }) });
  const ended = await first().ended(rested);
  expect(ended).toMatchObject({ run: { status: RunStatus.SUCCEEDED }, usage: { calls: 6 }, budgetExhausted: false });

  await first().client.setMonthBudget({ projectId, caps: [{ name: "teacher_calls", cap: 8 }] });
  const cut = await first().run(request(projectId, "single", "cut", 6, { rests: false }));
  expect(cut).toMatchObject({ run: { status: RunStatus.SUCCEEDED }, usage: { calls: 2 }, budgetExhausted: true });
});

test("a mark that a profile's test passed is told of by the next run, and one that a campaign's run passed is not told again", async () => {
  const projectId = "told";
  await first().client.setMonthBudget({ projectId, caps: [{ name: "teacher_calls", cap: 10 }] });
  const run = async (keyPrefix: string, name: string, count: number) => {
    const asked = { ...request(projectId, "single", name, count), idempotencyKey: `${keyPrefix}write` };
    const { budgetNotices } = await first().run(asked);
    await first().client.deleteGenerationRuns({ projectId, keyPrefix });
    return budgetNotices.map(({ percent }) => percent);
  };
  expect(await run("profile-test/1/", "tested", 6)).toEqual([50]);
  expect(await run(`${crypto.randomUUID()}/`, "owned", 1)).toEqual([50]);
  expect(await run(`${crypto.randomUUID()}/`, "after", 1)).toEqual([80]);
});

test("a cap on tokens within a run is a wall, and a call of unknown usage counts for the most", async () => {
  server.options.behave = (call) => ({
    kind: "reply",
    text: JSON.stringify({ input: `quiet ${call.number} ${call.input}`, output: "book_flight" }),
    usage: undefined,
  });
  const asked = request("unknown", "single", "unknown", 50, budgetOf({ tokens: 10_000 }));
  const rested = await settled(first(), await first().client.startGenerationRun(asked));
  const used = (rested.usage?.promptTokens ?? 0) + (rested.usage?.completionTokens ?? 0);
  expect(rested.run?.rest?.code).toBe("run_teacher_tokens");
  expect(used).toBeLessThanOrEqual(10_000);
  expect(used).toBeGreaterThan(8_000);
});
