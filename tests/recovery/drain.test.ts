/** SIGTERM: leases are handed over at once, streams end with a reason, and nothing that was paid is asked again. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { EvaluationServiceDefinition, StartEvaluationRunRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { StartGenerationRunRequest, TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { StartTrainingRunRequest, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { startOf } from "@tutelage/standalone/homelock";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { slow, startCampaignFixture } from "../integration/campaign-fixture.js";
import { testDatabaseUrl } from "../support/database.js";
import { type ServiceProcess, startServiceProcess } from "../support/serviceprocess.js";
import { startTeacherServer } from "../support/teacher-server.js";
import { startTestStudent } from "../support/teststudent.js";
import { gate, until } from "../support/waiting.js";
import { asking } from "./evidence.js";

const projectId = "default";
/** Whoever stops a service, a supervisor say, kills it after ten seconds. */
const stopLimitMs = 10_000;

let home: string;
let databaseUrl: string;
let admin: pg.Client;
const processes: ServiceProcess[] = [];

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-drain-"));
  databaseUrl = await testDatabaseUrl();
  admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
});
afterAll(async () => {
  await Promise.all(processes.map(async ({ child, end }) => child.exitCode === null && (await end("SIGKILL"))));
  await admin.end();
  await rm(home, { recursive: true, force: true });
});

async function startProcess(name: "training" | "evaluation" | "teacher", environment: NodeJS.ProcessEnv) {
  const started = await startServiceProcess(name, {
    TUTELAGE_HOME: home,
    DATABASE_URL: databaseUrl,
    ...environment,
  });
  processes.push(started);
  return started;
}

/** Whether the first holder's lease is left to lapse. */
async function leftToLapse(schema: string, id: string): Promise<boolean> {
  const { rowCount } = await admin.query(
    `select 1 from ${schema}.runs where id = $1 and status = 'RUNNING' and fence = 1`,
    [id],
  );
  return rowCount !== 0;
}

/** A watch that has begun, and how it ends. */
async function begun(watch: AsyncIterable<unknown>): Promise<{ end: Promise<unknown> }> {
  const iterator = watch[Symbol.asyncIterator]();
  await iterator.next();
  const end = (async () => {
    try {
      while ((await iterator.next()).done !== true);
      return "without a reason";
    } catch (error) {
      return error;
    }
  })();
  return { end };
}

const task = Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" });
const rows = { uri: "file:///rows.jsonl", sha256: "a".repeat(64) };

test("training: the other replica has the run as soon as the first has gone", { timeout: 60_000 }, async () => {
  const student = await startTestStudent();
  const held = gate();
  student.onStep = (_, signal) => held.pass(signal);
  const environment = { STUDENT_ADDRESS: student.address };
  const first = await startProcess("training", environment);
  const client = connect(TrainingServiceDefinition, first.address);
  const asked = { projectId, studentProfile: "smollm2-135m", rows, task };
  const id = (await client.startTrainingRun(StartTrainingRunRequest.fromPartial(asked))).run?.id ?? "";
  await until(() => student.trained.length === 1);
  const second = await startProcess("training", environment);
  const watch = await begun(client.watchTrainingRun({ projectId, id }, { deadline: watchDeadlineMs }));
  const { code, ms } = await first.end("SIGTERM");
  expect(code).toBe(0);
  expect(ms).toBeLessThan(stopLimitMs);
  expect(await leftToLapse("training", id)).toBe(false);
  expect(await watch.end).toMatchObject({ code: "unavailable", reason: "service_stopping" });
  client.close();

  await until(() => student.trained.length === 2);
  expect(student.trained[1]?.fence).toBe(2);
  held.open();
  const other = connect(TrainingServiceDefinition, second.address);
  await until(async () => (await other.getTrainingRun({ projectId, id })).run?.status === RunStatus.SUCCEEDED);
  other.close();
  await second.end("SIGTERM");
  await student.stop();
});

test("evaluation hands over, too, also a run that waits for the student", { timeout: 60_000 }, async () => {
  const student = await startTestStudent();
  student.busy = true;
  const first = await startProcess("evaluation", { STUDENT_ADDRESS: student.address });
  const client = connect(EvaluationServiceDefinition, first.address);
  const line = '{"id":"a","input":"one","output":"1"}\n';
  const { uri, sha256 } = await new FileArtifactStore(join(home, "artifacts")).put(`${projectId}/rows.jsonl`, [line]);
  const asked = { projectId, model: "file:/model", rows: { uri, sha256 }, task };
  const id = (await client.startEvaluationRun(StartEvaluationRunRequest.fromPartial(asked))).run?.id ?? "";
  await until(() => student.predicted.length > 0);
  const watch = await begun(client.watchEvaluationRun({ projectId, id }, { deadline: watchDeadlineMs }));
  const { code, ms } = await first.end("SIGTERM");
  expect([code, ms < stopLimitMs]).toEqual([0, true]);
  const { rows: stored } = await admin.query("select status, lease_holder from evaluation.runs where id = $1", [id]);
  expect(stored).toEqual([{ status: "QUEUED", lease_holder: null }]);
  expect(await watch.end).toMatchObject({ code: "unavailable", reason: "service_stopping" });
  client.close();
  await student.stop();
});

test("teacher: calls under way end before the run is handed over, so that none is paid twice", {
  timeout: 60_000,
}, async () => {
  const orders = 8;
  const server = await startTeacherServer({ delayMs: 1_000 });
  const profiles = join(home, "teachers.yaml");
  await writeFile(
    profiles,
    `profiles:\n  - { name: chat, provider: openai-compatible, base_url: ${server.url}, model: test-model, max_concurrency: 2 }\n`,
  );
  const environment = { TEACHER_PROFILES: profiles };
  const first = await startProcess("teacher", environment);
  const client = connect(TeacherServiceDefinition, first.address);
  const seedRow = (index: number) => ({ id: `k${index}`, input: `seat ${index} to Pisa`, output: "book_flight" });
  const asked = StartGenerationRunRequest.fromPartial({
    projectId,
    teacherProfile: "chat",
    task: {
      ...task,
      kind: TaskKind.CLASSIFICATION,
      promptTemplate: "Message: {input}\nIntent:",
      labels: [{ name: "book_flight" }, { name: "cancel" }],
    },
    work: {
      $case: "write",
      value: {
        orders: Array.from({ length: orders }, (_, index) => ({
          seedRow: seedRow(index),
          exampleRows: [seedRow(index + orders)],
          count: 1,
          maxAttempts: 1,
        })),
      },
    },
  });
  const id = (await client.startGenerationRun(asked)).run?.id ?? "";
  await until(() => server.calls.length === 2);
  const second = await startProcess("teacher", environment);
  const { code, ms } = await first.end("SIGTERM");
  client.close();
  expect([code, ms < stopLimitMs]).toEqual([0, true]);
  expect(await leftToLapse("teacher", id)).toBe(false);
  const other = connect(TeacherServiceDefinition, second.address);
  await until(
    async () => (await other.getGenerationRun({ projectId, id })).run?.status === RunStatus.SUCCEEDED,
    30_000,
  );
  expect(server.calls).toHaveLength(orders);
  expect(new Set(server.calls.map(({ prompt }) => prompt)).size).toBe(orders);
  other.close();
  await second.end("SIGTERM");
  await server.stop();
});

test("each process of a stack, told to stop in the middle of a campaign, has gone in time; the campaign is handed over and goes on", {
  timeout: slow,
}, async () => {
  const fixture = await startCampaignFixture();
  const { stack } = fixture;
  try {
    // A campaign lasts as long as its teacher takes.
    fixture.teacher.options.delayMs = 400;
    const id = await fixture.begin("storm", {});
    const api = request(stack.url);
    const campaign = async () => (await api.get(`/v1/campaigns/${id}`)).body;
    await until(async () => ((await campaign()).phase ?? "") !== "", 60_000);
    for (const name of ["campaigns", "teacher", "training", "evaluation", "datasets", "student", "gateway"] as const) {
      const pid = stack.pidOf(name) ?? 0;
      const began = Date.now();
      process.kill(pid, "SIGTERM");
      await until(async () => (await startOf(pid)) === undefined, stopLimitMs);
      expect(Date.now() - began, name).toBeLessThan(stopLimitMs);
      await until(async () => (await api.get("/ready").catch(() => undefined))?.status === 200, 60_000);
    }
    await until(
      async () => ["succeeded", "failed"].includes((await campaign().catch(() => undefined))?.run?.status),
      120_000,
    );
    expect((await campaign()).run).toMatchObject({ status: "succeeded" });
    const events = await storedEvents(fixture.databaseUrl, id);
    expect(events).toContain("campaign.handed_back");
    expect(events).toContain("campaign.continued");
    expect(events).not.toContain("campaign.taken_over");
  } finally {
    await fixture.stop();
  }
});

async function storedEvents(url: string, campaignId: string): Promise<string[]> {
  const { rows: stored } = await asking(url, (client) =>
    client.query("select type from campaigns.events where campaign_id = $1 order by sequence", [campaignId]),
  );
  return stored.map(({ type }) => type);
}
