import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import {
  type Call,
  type GenerationBudget,
  type GenerationRun,
  TeacherServiceDefinition,
} from "@tutelage/proto/teacher/v1/teacher";
import pg from "pg";
import { expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTeacherServer } from "../../../tests/support/teacher-server.js";
import { order, profileYaml, row, writeRequest } from "./service.fixture.js";

const concurrency = 3;
const orders = 20;

/**
 * Runs 20 orders and kills the service with its eighth call, after many such deaths, of which each stored some results
 * first; gives the run as its successor ended it.
 */
async function killedInTheMiddle(budget?: GenerationBudget) {
  const server = await startTeacherServer({ delayMs: 100 });
  const home = await mkdtemp(join(tmpdir(), "tutelage-teacher-crash-"));
  const profiles = join(home, "profiles.yaml");
  await writeFile(profiles, `profiles:\n${profileYaml("chat", server.url, [`max_concurrency: ${concurrency}`])}\n`);
  const databaseUrl = await testDatabaseUrl();
  const main = createRequire(import.meta.url).resolve("@tutelage/teacher/main");
  const startProcess = async (): Promise<{ child: ChildProcess; address: string }> => {
    const child = fork(main, {
      env: {
        ...process.env,
        TUTELAGE_HOME: home,
        DATABASE_URL: databaseUrl,
        TEACHER_LISTEN: "127.0.0.1:0",
        TEACHER_PROFILES: profiles,
        LOG_LEVEL: "fatal",
      },
      execArgv: [],
    });
    const [{ address }] = (await once(child, "message")) as [{ address: string }];
    return { child, address };
  };

  const first = await startProcess();
  const firstClient = connect(TeacherServiceDefinition, first.address);
  const started = await firstClient.startGenerationRun({
    ...writeRequest(
      "chat",
      Array.from({ length: orders }, (_, index) => order(row(`k${index}`, `seat ${index} to Pisa`, "book_flight"))),
    ),
    budget,
  });
  const admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
  await expect.poll(() => server.calls.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(0);
  await admin.query("update teacher.runs set deferrals = -50");
  await admin.end();
  await expect.poll(() => server.calls.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(7);
  first.child.kill("SIGKILL");
  await once(first.child, "exit");
  firstClient.close();
  const atDeath = server.calls.length;
  expect(atDeath).toBeLessThan(orders);

  const second = await startProcess();
  const client = connect(TeacherServiceDefinition, second.address);
  let run: GenerationRun = started;
  const request = { projectId: "p", id: started.run?.id ?? "" };
  for await (const now of client.watchGenerationRun(request, { deadline: watchDeadlineMs })) run = now;
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(run.run?.fence).toBe(2);
  const rowIds: string[] = [];
  for await (const { results } of client.listResults(request)) rowIds.push(...results.map(({ rowId }) => rowId));
  const calls: Call[] = [];
  for await (const batch of client.listCalls(request)) calls.push(...batch.calls);
  client.close();
  second.child.kill("SIGTERM");
  await once(second.child, "exit");
  await server.stop();
  await rm(home, { recursive: true, force: true });
  return { run, rowIds, calls, sent: server.calls };
}

test("after kill -9 in the middle of a run only the calls that were in flight are paid again, and all count", {
  timeout: 60_000,
}, async () => {
  const { run, rowIds, calls, sent } = await killedInTheMiddle();
  expect(run.results).toBe(orders);
  expect(sent.length).toBeLessThanOrEqual(orders + concurrency);
  const lost = calls.filter(({ errorCode }) => errorCode === "in_flight_at_crash");
  expect(calls).toHaveLength(orders + lost.length);
  expect(lost.length).toBeGreaterThan(0);
  expect(lost.length).toBeLessThanOrEqual(concurrency);
  // Each was noted before it was sent; one may not have been sent any more.
  expect(calls.length).toBeGreaterThanOrEqual(sent.length);
  // What was asked a second time says so, and nothing else does.
  const asked = new Set(lost.map(({ requestDigest }) => requestDigest));
  for (const call of calls) {
    expect(call.afterCrash).toBe(call.status === "answered" && asked.has(call.requestDigest));
  }
  for (const call of lost) {
    expect(call).toMatchObject({ status: "failed", completionTokens: 1_024 });
    expect(call.promptTokens).toBeGreaterThan(call.prompt.length / 2);
    expect(call.costMicroUsd).toBe(call.promptTokens + 2 * 1_024);
  }
  expect(run.usage?.costMicroUsd).toBe(calls.reduce((sum, call) => sum + call.costMicroUsd, 0));
  // Results stand in the order of the orders, whoever made them.
  expect(rowIds).toEqual(Array.from({ length: orders }, (_, index) => `k${index}`));
});

test("a budget of calls holds across kill -9: what was in flight is spent", { timeout: 60_000 }, async () => {
  const { run, calls, sent } = await killedInTheMiddle({ calls: 15, rests: false });
  expect(sent.length).toBeLessThanOrEqual(15);
  expect(calls).toHaveLength(15);
  const lost = calls.filter(({ errorCode }) => errorCode === "in_flight_at_crash").length;
  expect(lost).toBeGreaterThan(0);
  expect(run).toMatchObject({ results: 15 - lost, budgetExhausted: true, ordersLeft: orders - 15 + lost });
});

test("a budget of money holds across kill -9", { timeout: 60_000 }, async () => {
  const most = 11_000;
  const { run, sent } = await killedInTheMiddle({ costMicroUsd: most, rests: false });
  expect(run.usage?.costMicroUsd).toBeLessThanOrEqual(most);
  expect(run.budgetExhausted).toBe(true);
  // By the server's count of tokens, at 1 and 2 micro-USD; a reply has fewer than 60.
  const billed = sent.reduce((sum, { prompt }) => sum + Math.ceil(prompt.length / 4) + 2 * 60, 0);
  expect(billed).toBeLessThanOrEqual(most);
});
