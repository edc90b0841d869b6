import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainIncidentKind } from "@tutelage/proto/student/v1/student";
import { RowSource } from "@tutelage/proto/task/v1/task";
import { TrainingRun } from "@tutelage/proto/training/v1/training";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Services } from "./clients.js";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";
import { trainStudent } from "./students.js";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(async () => {
  await fixture.stop();
});

test("what came of a training that ended unwatched is told in the campaign's events, once", async () => {
  const run = TrainingRun.fromPartial({
    run: { id: "11111111-1111-4111-8111-111111111111", projectId, status: RunStatus.SUCCEEDED },
    checkpoint: { uri: "file:///checkpoint" },
    incidents: [
      { kind: TrainIncidentKind.STUDENT_LOST, step: 31, message: "The student went away." },
      { kind: TrainIncidentKind.RESUMED, step: 30, message: "Went on after step 30 of 60." },
    ],
    chargedSeconds: 55,
    budgetNotices: [{ name: "training_seconds", month: "2026-11", percent: 50, used: 55, cap: 100 }],
  });
  const training = { startTrainingRun: async () => run } as unknown as Services["training"];
  const id = await fixture.put();
  const name = "iteration/0/train";
  for (let pass = 0; pass < 2; pass += 1) {
    const campaign = await fixture.hold(id, { training });
    await trainStudent(campaign, name, { rows: RowSource.fromPartial({}), seed: 1 });
  }
  const events = await fixture.store.events({ projectId, campaignId: id }, 0, 100);
  const told = events.filter(({ type }) => type === "training.incident");
  expect(told.map(({ payloadJson }) => JSON.parse(payloadJson))).toEqual([
    expect.objectContaining({ step: name, kind: "student_lost", training_step: 31, message: "The student went away." }),
    expect.objectContaining({ step: name, kind: "resumed", training_step: 30, training_run_id: run.run?.id }),
  ]);
  const marks = events.filter(({ type }) => type === "budget.threshold");
  expect(marks.map(({ payloadJson }) => JSON.parse(payloadJson))).toEqual([
    { scope: "project", name: "training_seconds", month: "2026-11", percent: 50, used: 55, cap: 100 },
  ]);
});
