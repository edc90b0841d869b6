/** A training on the real student that is killed, frozen or robbed of its files, and ends as if it had not been. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { rowToLine } from "@tutelage/platform/rowfile";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainIncidentKind } from "@tutelage/proto/student/v1/student";
import { Row, RowOrigin, Split, TaskKind } from "@tutelage/proto/task/v1/task";
import { StartTrainingRunRequest, type TrainingRun } from "@tutelage/proto/training/v1/training";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { type RealStudent, startRealStudent, writeTinyModel } from "../../../tests/support/realstudent.js";
import { until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

const projectId = "default";
const totalSteps = 600;
/** A dead student is started again in seconds, or ten times that on a busy machine. */
const patienceMs = 120_000;
let home: string;
let url: string;
let database: Database;
let student: RealStudent;
let service: RunningService;
let client: Client;
let request: StartTrainingRunRequest;
/** What the training comes to when nothing happens. */
let undisturbed: Outcome;
let undisturbedSeconds: number;

interface Outcome {
  weightsSha256: string;
  losses: number[];
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-resume-"));
  url = await testDatabaseUrl();
  database = await openDatabase({ url, schema: "training", log: createLog("test", "fatal"), hasRuns: true });
  const model = await writeTinyModel(join(home, "model"));
  await writeFile(
    join(home, "profiles.yaml"),
    `profiles:
  tiny:
    model: ${model}
    recipe: {method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0.1, exact_steps: ${totalSteps}, batch_rows: 5,
      micro_batch_tokens: 1024, learning_rate: 0.002, warmup_share: 0.1, weight_decay: 0, max_grad_norm: 1,
      average_share: 0.3}
`,
  );
  const rows = Array.from({ length: 16 }, (_, index) =>
    Row.fromPartial({
      id: `row-${index}`,
      input: `the ${["film", "plot", "cast"][index % 3]} was ${index % 2 === 0 ? "bad" : "great"}`,
      output: index % 2 === 0 ? "negative" : "positive",
      split: Split.TRAIN,
      origin: RowOrigin.SEED,
    }),
  );
  const artifacts = new FileArtifactStore(join(home, "artifacts"));
  request = StartTrainingRunRequest.fromPartial({
    projectId,
    studentProfile: "tiny",
    rows: await artifacts.put("default/versions/films.jsonl", rows.map(rowToLine)),
    task: {
      name: "films",
      kind: TaskKind.CLASSIFICATION,
      promptTemplate: "Text: {input}\nSentiment:",
      labels: [{ name: "negative" }, { name: "positive" }],
    },
    seed: 7,
  });
  await startStudent();
  await start();
  const first = await succeeded(await started());
  undisturbed = await outcome(first);
  undisturbedSeconds = first.trainSeconds;
}, 240_000);
afterAll(async () => {
  client.close();
  await service.stop();
  await student.stop();
  await database.close();
  await rm(home, { recursive: true, force: true });
});

/** A student that leaves a resume point every 20 steps, where the one before listened. */
async function startStudent(): Promise<void> {
  student = await startRealStudent(home, student?.address, { STUDENT_RESUME_STEPS: "20" });
}

async function start(more: NodeJS.ProcessEnv = {}): Promise<void> {
  const profiles = { STUDENT_PROFILES: join(home, "profiles.yaml") };
  ({ service, client } = await startService(url, home, student, { ...profiles, ...more }));
}

async function stop(): Promise<void> {
  client.close();
  await service.stop();
}

const started = async () => (await client.startTrainingRun(request)).run?.id ?? "";
const get = (id: string) => client.getTrainingRun({ projectId, id });

/** Waits until the run has left some resume points, and is still under way. */
async function afterPoints(id: string): Promise<void> {
  await until(async () => ((await pointsOf(id))[0]?.step ?? 0) >= 60, patienceMs);
}

async function pointsOf(id: string): Promise<{ uri: string; step: number }[]> {
  const { rows } = await database.pool.query("select state->'resumePoints' as points from runs where id = $1", [id]);
  return rows[0].points ?? [];
}

async function succeeded(id: string): Promise<TrainingRun> {
  let last: TrainingRun | undefined;
  for await (const run of client.watchTrainingRun({ projectId, id })) last = run;
  expect(last?.run).toMatchObject({ status: RunStatus.SUCCEEDED, failure: undefined });
  return last as TrainingRun;
}

async function outcome({ run, checkpoint }: TrainingRun): Promise<Outcome> {
  const folder = fileURLToPath(checkpoint?.uri ?? "");
  const weights = await readFile(join(folder, "adapter_model.safetensors"));
  const losses: number[] = [];
  const numbers: number[] = [];
  for await (const { steps } of client.listTrainingSteps({ projectId, id: run?.id ?? "" })) {
    numbers.push(...steps.map(({ step }) => step));
    losses.push(...steps.map(({ loss }) => loss));
  }
  expect(numbers).toEqual(Array.from({ length: totalSteps }, (_, index) => index + 1));
  // Nothing is left but the checkpoint, a moment after that counts.
  await until(() => !existsSync(join(folder, "../resume")));
  return { weightsSha256: createHash("sha256").update(weights).digest("hex"), losses };
}

const incidentsOf = ({ incidents }: TrainingRun, kind: TrainIncidentKind) =>
  incidents.filter((incident) => incident.kind === kind);

test("a training whose student is killed goes on from its last resume point, to the same weights and losses", async () => {
  const id = await started();
  await afterPoints(id);
  await student.kill();
  await until(async () => incidentsOf(await get(id), TrainIncidentKind.STUDENT_LOST).length === 1);
  const [newest] = await pointsOf(id);
  await startStudent();
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
  expect(incidentsOf(done, TrainIncidentKind.STUDENT_LOST)).toHaveLength(1);
  const [resumed] = incidentsOf(done, TrainIncidentKind.RESUMED);
  expect(resumed?.step).toBe(newest?.step);
  expect(resumed?.at?.getTime()).toBeGreaterThan(Date.now() - patienceMs);
  expect(done.run?.progress?.message).toBe(`training; went on after step ${resumed?.step}`);
  await until(() => !existsSync(join(home, "artifacts/default/runs", id, "1")));
}, 240_000);

test("a training whose service is replaced goes on likewise, twice, however many died under it before", async () => {
  const id = await started();
  await afterPoints(id);
  // Each got further than the one before: only deaths since the last resume point count.
  await database.pool.query("update runs set deferrals = -50 where id = $1", [id]);
  const before = (await pointsOf(id))[0]?.step ?? 0;
  await until(async () => ((await pointsOf(id))[0]?.step ?? 0) > before, patienceMs);
  await stop();
  await start();
  const first = (await pointsOf(id))[0]?.step ?? 0;
  await until(async () => ((await pointsOf(id))[0]?.step ?? 0) > first, patienceMs);
  await stop();
  await start();
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
  expect(incidentsOf(done, TrainIncidentKind.RESUMED)).toHaveLength(2);
  expect(done.run?.fence).toBeGreaterThanOrEqual(3);
}, 240_000);

test("a torn resume point is passed over for the one before, and the run says so", async () => {
  const id = await started();
  await afterPoints(id);
  await student.kill();
  await until(async () => incidentsOf(await get(id), TrainIncidentKind.STUDENT_LOST).length === 1);
  const [newest, before] = await pointsOf(id);
  await truncate(fileURLToPath(newest?.uri ?? ""), 1_000);
  await startStudent();
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
  expect(incidentsOf(done, TrainIncidentKind.RESUME_POINT_UNUSABLE)).toMatchObject([
    { message: expect.stringContaining("digest") },
  ]);
  expect(incidentsOf(done, TrainIncidentKind.RESUMED)[0]?.step).toBe(before?.step);
}, 240_000);

test("a student that no longer moves is left with a named stall, and its successor goes on", async () => {
  await stop();
  await start({ TRAINING_STALL_SECONDS: "1" });
  const id = await started();
  await afterPoints(id);
  student.freeze();
  await until(async () => incidentsOf(await get(id), TrainIncidentKind.STALLED).length === 1, patienceMs);
  expect((await get(id)).run?.progress?.message).toContain("made no progress for 1 s");
  // As its supervisor does when it does not answer.
  await student.kill();
  await startStudent();
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
}, 240_000);

test("a paused training leaves a resume point of the step at hand, and goes on likewise", async () => {
  const id = await started();
  await afterPoints(id);
  await client.pauseTrainingRun({ projectId, id });
  await until(async () => (await get(id)).run?.status === RunStatus.PAUSED);
  const [newest] = await pointsOf(id);
  expect(newest?.step).toBe((await get(id)).lastStep?.step);
  await client.resumeTrainingRun({ projectId, id });
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
  expect(incidentsOf(done, TrainIncidentKind.RESUMED)).toHaveLength(1);
}, 240_000);

test("a training leaves a resume point before its seconds are over, and no step is paid twice", async () => {
  const maxSeconds = Math.max(1.5, undisturbedSeconds / 3);
  const { run } = await client.startTrainingRun({ ...request, maxSeconds });
  const id = run?.id ?? "";
  await until(async () => (await get(id)).run?.status === RunStatus.BUDGET_EXHAUSTED, patienceMs);
  const rested = await get(id);
  const [newest] = await pointsOf(id);
  expect(newest?.step).toBe(rested.lastStep?.step);
  expect(rested.chargedSeconds).toBeLessThan(maxSeconds);
  expect(rested.run?.rest?.code).toBe("run_training_seconds");
  const [, said] = /has used ([\d.]+) of/.exec(rested.run?.rest?.message ?? "") ?? [];
  expect(Math.abs(Number(said) - rested.chargedSeconds)).toBeLessThan(0.2);
  await client.resumeTrainingRun({ projectId, id, maxSeconds: 600 });
  const done = await succeeded(id);
  expect(await outcome(done)).toEqual(undisturbed);
  expect(incidentsOf(done, TrainIncidentKind.RESUMED)).toMatchObject([
    { message: expect.stringContaining("; 0 later steps are made again") },
  ]);
}, 240_000);

test("a cancelled training leaves no resume points", async () => {
  const id = await started();
  await afterPoints(id);
  await client.cancelTrainingRun({ projectId, id });
  await until(async () => (await get(id)).run?.status === RunStatus.CANCELLED);
  const [newest] = await pointsOf(id);
  expect(existsSync(fileURLToPath(newest?.uri ?? ""))).toBe(false);
}, 60_000);
