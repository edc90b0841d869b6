import type { GenerationBudget } from "@tutelage/proto/teacher/v1/teacher";
import { afterAll, beforeAll, expect, test } from "vitest";
import { budgetBeside, halfOf } from "./campaign.js";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";

let fixture: Fixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

test.each<[GenerationBudget, GenerationBudget, GenerationBudget]>([
  [{}, {}, { calls: undefined, costMicroUsd: undefined }],
  [{ calls: 7 }, { calls: 4 }, { calls: 3, costMicroUsd: undefined }],
  [
    { calls: 3, costMicroUsd: 10 },
    { calls: 4, costMicroUsd: 5 },
    { calls: 0, costMicroUsd: 5 },
  ],
  [{ costMicroUsd: 10 }, {}, { calls: undefined, costMicroUsd: 10 }],
])("of %j, when %j is kept, %j may be used", (left, kept, used) => {
  expect(budgetBeside(left, kept)).toEqual(used);
});

test("half of a budget is rounded up, so that what is beside it is never more", () => {
  expect(halfOf({ calls: 7, costMicroUsd: 1 })).toEqual({ calls: 4, costMicroUsd: 1 });
  expect(halfOf({})).toEqual({ calls: undefined, costMicroUsd: undefined });
});

test("who met the wall orders nothing more until a cap is raised, however often the loop passes there", async () => {
  const id = await fixture.put({ settings: { maxTeacherCalls: 100, maxCostMicroUsd: 1_000 } as never });
  const usage = {
    calls: 40,
    reusedCalls: 9,
    promptTokens: 1,
    completionTokens: 1,
    costMicroUsd: 990,
    teacherSeconds: 1,
    savedMicroUsd: 0,
  };
  const first = await fixture.hold(id);
  await first.fixCaps("iteration/0/caps");
  await first.addUsage("preflight/write", usage);
  await first.addUsage("preflight/write", usage);
  expect(first.budgetLeft).toEqual({ calls: 60, costMicroUsd: 10 });
  expect(first.callsLeft).toBe(60);
  first.meetWall();
  expect(first.callsLeft).toBe(0);
  await first.fixCaps("iteration/1/caps");
  expect(first.callsLeft).toBe(0);
  await fixture.client.updateCampaign({ projectId, id, maxCostMicroUsd: 2_000 });
  await first.fixCaps("iteration/1/caps");
  expect(first.callsLeft).toBe(0);
  await first.fixCaps("iteration/2/caps");
  expect([first.callsLeft, first.budgetLeft.costMicroUsd]).toEqual([60, 1_010]);

  // A successor reads the same caps in the same steps.
  const second = await fixture.hold(id);
  await second.fixCaps("iteration/0/caps");
  await second.addUsage("preflight/write", usage);
  second.meetWall();
  await second.fixCaps("iteration/1/caps");
  expect(second.callsLeft).toBe(0);
  await second.fixCaps("iteration/2/caps");
  expect(second.callsLeft).toBe(60);
});
