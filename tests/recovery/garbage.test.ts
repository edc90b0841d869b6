/** What nothing refers to is collected; what a run that is not over has written, or is about to commit, never is. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { connect, serve } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { StartTrainingRunRequest, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { start as startTraining, settings as trainingSettings } from "@tutelage/training/start";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { log, standIn } from "../integration/gateway-fixture.js";
import { startCampaignsAndGateway } from "../support/campaignsgateway.js";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { startTestStudent, type TestStudent } from "../support/teststudent.js";
import { gate, until } from "../support/waiting.js";

const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));
const projectId = "default";
const hourMs = 3_600_000;
let home: string;
let databaseUrl: string;
let admin: pg.Client;
let student: TestStudent;
let running: RunningService[];
let training: ReturnType<typeof connect<typeof TrainingServiceDefinition>>;
let url: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-garbage-"));
  databaseUrl = await testDatabaseUrl();
  admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
  student = await startTestStudent();
  const shared = {
    TUTELAGE_HOME: home,
    LOG_LEVEL: "fatal",
    DATABASE_URL: databaseUrl,
    STUDENT_ADDRESS: student.address,
  };
  const standIns = await Promise.all(
    [standIn(TeacherServiceDefinition, {}), standIn(EvaluationServiceDefinition, {})].map((service) =>
      serve({ listen: "127.0.0.1:0", services: [service], log }),
    ),
  );
  const datasets = await startDatasets(config(datasetsSettings, { ...shared, DATASETS_LISTEN: "127.0.0.1:0" }));
  const trainings = await startTraining(config(trainingSettings, { ...shared, TRAINING_LISTEN: "127.0.0.1:0" }));
  const addresses = {
    DATASETS_ADDRESS: datasets.address,
    TRAINING_ADDRESS: trainings.address,
    TEACHER_ADDRESS: standIns[0]?.address,
    EVALUATION_ADDRESS: standIns[1]?.address,
  };
  const { campaigns, gateway } = await startCampaignsAndGateway({ ...shared, ...addresses });
  training = connect(TrainingServiceDefinition, trainings.address);
  url = `http://${gateway.address}`;
  const stops = standIns.map(({ address, stop }) => ({ name: "stand-in", address, stop: () => stop(100) }));
  running = [gateway, campaigns, trainings, datasets, ...stops];
});
afterAll(async () => {
  training.close();
  for (const service of running) await service.stop();
  await student.stop();
  await admin.end();
  await rm(home, { recursive: true, force: true });
});

const artifact = (path: string) => join(home, "artifacts", projectId, path);

/** A file of the store that was last written so long ago, its folders with it. */
async function put(path: string, ageHours = 48): Promise<string> {
  await mkdir(dirname(artifact(path)), { recursive: true });
  await writeFile(artifact(path), "0123456789");
  await age(path, ageHours);
  return path;
}

async function age(path: string, ageHours = 48): Promise<void> {
  const then = new Date(Date.now() - ageHours * hourMs);
  for (let at = artifact(path); at.length > artifact("runs").length; at = dirname(at)) await utimes(at, then, then);
}

const isThere = (path: string) =>
  stat(artifact(path)).then(
    () => true,
    () => false,
  );

async function collect(body: object = {}) {
  const answer = (await request(url).post("/v1/maintenance/gc").send(body).expect(200)).body;
  return {
    ...answer,
    found: Object.fromEntries(answer.garbage.map((one: { path: string; reason: string }) => [one.path, one.reason])),
  };
}

function tutelage(...args: string[]): Promise<{ code: number; out: string; told: string }> {
  const env = { ...process.env, TUTELAGE_URL: url };
  return new Promise((done) => {
    const child = execFile(process.execPath, [command, ...args], { env }, (_error, out, told) =>
      done({ code: child.exitCode ?? -1, out, told }),
    );
  });
}

const uuid = () => crypto.randomUUID();

test("a dry run tells, a collection removes the same, and neither touches what is young or named", async () => {
  const api = request(url);
  const dataset = (await api.post("/v1/datasets").send({ name: "kept" }).expect(201)).body.id;
  const rows = '{"input":"a","output":"1"}\n{"input":"b","output":"2"}\n';
  const imported = await api
    .post(`/v1/datasets/${dataset}/import`)
    .set("content-type", "application/x-ndjson")
    .send(rows)
    .expect(201);
  const version = `versions/${imported.body.version.digest}.jsonl`;
  expect(await isThere(version)).toBe(true);
  await age(version);

  const gone = uuid();
  const garbage = {
    [await put(`versions/${"a".repeat(64)}.jsonl`)]: "version_gone",
    [await put(`versions/${"b".repeat(64)}.jsonl.${uuid()}.tmp`)]: "unfinished_write",
    [await put(`runs/${uuid()}/1/candidates-0.jsonl`)]: "attempt_lost",
    [await put(`runs/${uuid()}/1/candidates-0.jsonl.${uuid()}.tmp`)]: "unfinished_write",
  };
  await put(`runs/${gone}/3/checkpoint/adapter_model.safetensors`);
  garbage[`runs/${gone}/3/checkpoint`] = "run_gone";
  const young = [
    await put(`versions/${"c".repeat(64)}.jsonl`, 23),
    await put(`runs/${uuid()}/1/checkpoint/adapter_model.safetensors`, 2),
    await put(`runs/${uuid()}/1/candidates-0.jsonl`, 2),
  ];
  const foreign = [await put("runs/notes/1/checkpoint/mine.txt"), await put("versions/readme.txt")];

  const told = await collect({ dry_run: true });
  expect(told).toMatchObject({ dry_run: true, count: 5, bytes: 50, found: garbage });
  for (const path of Object.keys(garbage)) expect(await isThere(path)).toBe(true);
  expect(await collect()).toMatchObject({ dry_run: false, count: 5, bytes: 50, found: garbage });
  for (const path of Object.keys(garbage)) expect(await isThere(path)).toBe(false);
  for (const path of [version, ...young, ...foreign]) expect(await isThere(path), path).toBe(true);
  expect(await collect()).toMatchObject({ count: 0, garbage: [] });

  const tooYoung = await api.post("/v1/maintenance/gc").send({ min_age_hours: 0.5 }).expect(400);
  expect(tooYoung.body.errors[0].field).toBe("min_age_hours");
  expect((await collect({ min_age_hours: 1 })).count).toBe(3);
});

test("the command tells the same in words, and refuses an age below an hour before it asks", async () => {
  const path = await put(`versions/${"d".repeat(64)}.jsonl`);
  const told = await tutelage("gc", "--dry-run");
  expect(told.code).toBe(0);
  expect(told.out).toContain(path);
  expect(told.out).toMatch(/version_gone[\s\S]*Would remove 1 thing, 10 bytes\./);
  const done = await tutelage("gc", "--min-age", "47", "--json");
  expect(JSON.parse(done.out)).toMatchObject({ dry_run: false, count: 1, bytes: 10 });
  expect(await isThere(path)).toBe(false);
  expect((await tutelage("gc")).out.trim()).toMatch(/^Removed 0 things/);
  const refused = await tutelage("gc", "--min-age", "0");
  expect([refused.code, refused.told]).toEqual([
    64,
    expect.stringContaining('--min-age: "0" is not a number of hours'),
  ]);
});

test("of a training that is not over nothing goes, however old; afterwards only what its result does not name", async () => {
  const held = gate();
  student.onStep = (_, signal) => held.pass(signal);
  const task = Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" });
  const rows = { uri: "file:///rows.jsonl", sha256: "a".repeat(64) };
  const asked = StartTrainingRunRequest.fromPartial({ projectId, studentProfile: "smollm2-135m", rows, task });
  const id = (await training.startTrainingRun(asked)).run?.id ?? "";
  await until(() => student.trained.length === 1);
  const uri = student.trained[0]?.outputUri ?? "";
  const own = fileURLToPath(uri).slice(artifact("").length + 1);
  expect(own).toBe(`runs/${id}/1/checkpoint`);
  // A checkpoint that is being written by a student that takes two days, and what an earlier attempt left.
  await put(`${own}/.adapter_model.safetensors.7.tmp`);
  await put(`${own}/adapter_model.safetensors`);
  const earlier = await put(`runs/${id}/0/checkpoint/adapter_model.safetensors`);
  expect((await collect()).count).toBe(0);
  expect(await isThere(earlier)).toBe(true);

  held.open();
  await until(async () => (await training.getTrainingRun({ projectId, id })).run?.status === RunStatus.SUCCEEDED);
  expect((await collect()).found).toEqual({ [`runs/${id}/0/checkpoint`]: "attempt_lost" });
  expect(await isThere(`${own}/adapter_model.safetensors`)).toBe(true);

  // Its export: kept while it is named, gone with its row.
  const exportId = uuid();
  const kept = await put(`runs/${id}/1/exports/${exportId}/1/export/model.safetensors`);
  const exported = { uri: `${uri.replace(/checkpoint$/, "exports")}/${exportId}/1/export` };
  await admin.query(
    `insert into exports.runs (id, project_id, idempotency_key, request, request_sha256, status, state)
     values ($1, $2, 'e', '{}', '', 'RUNNING', '{}')`,
    [exportId, projectId],
  );
  await admin.query("update exports.runs set lease_until = now() + interval '1 hour' where id = $1", [exportId]);
  expect((await collect()).count).toBe(0);
  await admin.query("update exports.runs set status = 'SUCCEEDED', state = $2 where id = $1", [exportId, { exported }]);
  expect((await collect()).count).toBe(0);
  const lost = await put(`runs/${id}/1/exports/${exportId}/7/export/model.safetensors`);
  expect((await collect()).found).toEqual({ [dirname(dirname(lost))]: "attempt_lost" });
  expect(await isThere(kept)).toBe(true);
  await admin.query("delete from exports.runs where id = $1", [exportId]);
  expect((await collect()).found).toEqual({ [dirname(dirname(kept))]: "export_gone" });
});

test("candidates of a campaign that is not over stay, and those that a step names", async () => {
  const id = uuid();
  await admin.query(
    `insert into campaigns.runs (id, project_id, idempotency_key, request, request_sha256, status, fence, lease_until)
     values ($1, $2, 'c', '{"settings": {}}', '', 'RUNNING', 2, now() + interval '1 hour')`,
    [id, projectId],
  );
  const named = await put(`runs/${id}/1/candidates-0.jsonl`);
  const lost = await put(`runs/${id}/1/candidates-1.jsonl`);
  const uri = `file://${artifact(named)}`;
  await admin.query(
    "insert into campaigns.steps (project_id, campaign_id, name, output, seconds) values ($1, $2, 's', $3, 0)",
    [projectId, id, JSON.stringify({ uri })],
  );
  expect((await collect()).count).toBe(0);
  await admin.query("update campaigns.runs set status = 'FAILED' where id = $1", [id]);
  expect((await collect()).found).toEqual({ [lost]: "attempt_lost" });
  expect(await isThere(named)).toBe(true);
});

test("a version that is being committed keeps its file, although the file is old and nothing names it yet", async () => {
  const api = request(url);
  const dataset = (await api.post("/v1/datasets").send({ name: "slow" }).expect(201)).body.id;
  // The service comes as far as its commit, and no further.
  const blocker = new pg.Client({ connectionString: databaseUrl });
  await blocker.connect();
  await blocker.query("begin");
  await blocker.query("lock table datasets.versions in share mode");
  const committing = api
    .post(`/v1/datasets/${dataset}/import`)
    .set("content-type", "application/x-ndjson")
    .send('{"input":"c","output":"3"}\n')
    .then(({ body }) => body);
  const waits =
    "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ilike '%insert into%versions%'";
  while ((await admin.query(waits)).rowCount === 0) await sleep(10);
  for (const name of await readdir(artifact("versions"))) {
    const then = new Date(Date.now() - 48 * hourMs);
    await utimes(artifact(`versions/${name}`), then, then);
  }
  const collecting = collect();
  await sleep(200);
  await blocker.query("commit");
  await blocker.end();
  const [{ version }] = await Promise.all([committing, collecting]);
  expect(await isThere(`versions/${version.digest}.jsonl`)).toBe(true);
  const rows = await api.get(`/v1/versions/${version.id}/rows`).expect(200);
  expect(rows.body.rows.map(({ input }: { input: string }) => input)).toEqual(["c"]);
});
