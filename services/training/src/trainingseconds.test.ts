/** Caps on the seconds of training: of a run, and of a project's month. */
import { setTimeout as sleep } from "node:timers/promises";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import type { TrainingRun } from "@tutelage/proto/training/v1/training";
import { expect, test } from "vitest";
import { client, idOf, request, startForEachTest, student, untilFinal } from "./runs.fixture.js";

startForEachTest();

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
