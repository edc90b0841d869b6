/** What a training makes of its students: busy, several, dying, silent, or failing. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainIncidentKind } from "@tutelage/proto/student/v1/student";
import { expect, test } from "vitest";
import { startTestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import {
  client,
  database,
  home,
  idOf,
  request,
  startAnew,
  startForEachTest,
  startStudentAnew,
  stepsOf,
  stopService,
  student,
  untilFinal,
} from "./runs.fixture.js";

startForEachTest();

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
  await stopService();
  const { open, pass } = gate();
  const { open: openOther, pass: passOther } = gate();
  student.onStep = (_, signal) => pass(signal);
  other.onStep = (_, signal) => passOther(signal);
  await startAnew(both);
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
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 2 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startTrainingRun(request()));
  await until(async () => (await stepsOf(id)).length === 1);
  await student.stop();
  await until(async () => {
    const { run } = await client.getTrainingRun({ projectId: "default", id });
    return /went away|does not answer/.test(run?.progress?.message ?? "");
  });
  await startStudentAnew();
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
  await stopService();
  await startAnew(student, { TRAINING_STALL_SECONDS: "0.2" });
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
