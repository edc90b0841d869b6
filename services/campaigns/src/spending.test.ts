import { Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { type GenerationBudget, Usage } from "@tutelage/proto/teacher/v1/teacher";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";
import { budgetBeside, halfOf } from "./spending.js";

let fixture: Fixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

type Limits = Partial<GenerationBudget>;

test.each<[Limits, Limits, Limits]>([
  [{}, {}, { calls: undefined, costMicroUsd: undefined }],
  [{ calls: 7 }, { calls: 4 }, { calls: 3, costMicroUsd: undefined }],
  [
    { calls: 3, costMicroUsd: 10 },
    { calls: 4, costMicroUsd: 5 },
    { calls: 0, costMicroUsd: 5 },
  ],
  [{ costMicroUsd: 10 }, {}, { calls: undefined, costMicroUsd: 10 }],
  [{ tokens: 9 }, { tokens: 10 }, { tokens: 0 }],
])("of %j, when %j is kept, %j may be used", (left, kept, used) => {
  expect(budgetBeside({ rests: true, ...left }, kept)).toEqual({ rests: true, ...used });
});

test("half of a budget is rounded up, so that what is beside it is never more", () => {
  expect(halfOf({ calls: 7, costMicroUsd: 1, rests: false })).toEqual({ calls: 4, costMicroUsd: 1, rests: false });
  expect(halfOf({ rests: true })).toEqual({ rests: true });
});

test("who met the wall orders nothing more until a cap is raised, however often the loop passes there", async () => {
  const id = await fixture.put({
    settings: { maxTeacherCalls: 100, maxCostMicroUsd: 1_000, finishAtBudget: Switch.ON } as never,
  });
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
  await first.spending.fixCaps("iteration/0/caps");
  await first.spending.addUsage("preflight/write", usage);
  await first.spending.addUsage("preflight/write", usage);
  expect(first.spending.budgetLeft).toEqual({ calls: 60, costMicroUsd: 10, rests: false });
  expect(first.spending.callsLeft).toBe(60);
  first.spending.meetWall();
  expect(first.spending.callsLeft).toBe(0);
  await first.spending.fixCaps("iteration/1/caps");
  expect(first.spending.callsLeft).toBe(0);
  await fixture.client.updateCampaign({ projectId, id, maxCostMicroUsd: 2_000 });
  await first.spending.fixCaps("iteration/1/caps");
  expect(first.spending.callsLeft).toBe(0);
  await first.spending.fixCaps("iteration/2/caps");
  expect([first.spending.callsLeft, first.spending.budgetLeft.costMicroUsd]).toEqual([60, 1_010]);

  // A successor reads the same caps in the same steps.
  const second = await fixture.hold(id);
  await second.spending.fixCaps("iteration/0/caps");
  await second.spending.addUsage("preflight/write", usage);
  second.spending.meetWall();
  await second.spending.fixCaps("iteration/1/caps");
  expect(second.spending.callsLeft).toBe(0);
  await second.spending.fixCaps("iteration/2/caps");
  expect(second.spending.callsLeft).toBe(60);
});

test("a campaign that a cap stops whole orders as if there were none, and its runs rest at what is left", async () => {
  const id = await fixture.put({ settings: { maxTeacherTokens: 100, maxTrainingSeconds: 60 } as never });
  const campaign = await fixture.hold(id);
  await campaign.spending.fixCaps("iteration/0/caps");
  expect(campaign.spending.callsLeft).toBe(Number.MAX_SAFE_INTEGER);
  const usage = {
    calls: 1,
    reusedCalls: 0,
    promptTokens: 50,
    completionTokens: 40,
    costMicroUsd: 0,
    teacherSeconds: 1,
    savedMicroUsd: 0,
  };
  await campaign.spending.addUsage("preflight/write", usage);
  await campaign.spending.addTraining("plain/0/train", 50);
  await campaign.spending.addTraining("plain/0/train", 50);
  expect(await campaign.spending.budgetNow()).toEqual({ tokens: 10, rests: true });
  expect(await campaign.spending.trainingSecondsLeft()).toBe(10);
  await fixture.client.updateCampaign({ projectId, id, maxTeacherTokens: 0, maxTrainingSeconds: 0 });
  // No step holds the former caps.
  expect(await campaign.spending.budgetNow()).toEqual({ rests: true });
  expect(await campaign.spending.trainingSecondsLeft()).toBe(Number.MAX_SAFE_INTEGER);
  const told = (await fixture.store.events({ projectId, campaignId: id }, 0, 100)).filter(
    ({ type }) => type === "budget.threshold",
  );
  expect(told.map(({ payloadJson }) => JSON.parse(payloadJson)).map(({ name, percent }) => [name, percent])).toEqual([
    ["teacher_tokens", 50],
    ["teacher_tokens", 80],
    ["training_seconds", 50],
    ["training_seconds", 80],
  ]);
});

test("in each shared iteration what is left is what the campaign had left that did it", async () => {
  const usage = Usage.fromPartial({ calls: 10 });
  const settings = { maxTeacherCalls: 100, finishAtBudget: Switch.ON, iterations: 5 };
  // The grandparent did iteration 0, the parent, which forked there, iterations 1 and 2.
  const shared = [
    { until: 1, settings },
    { until: 3, settings },
  ];
  const id = await fixture.put({ settings: settings as never });
  await fixture.database.pool.query("update runs set request = request || $2 where id = $1", [
    id,
    { fork: { campaignId: "", root: "", iteration: 3, retries: 0, shared } },
  ]);
  const names = ["preflight/write", ...[0, 1, 2].map((number) => `iteration/${number}/generate`)];
  for (const name of names) {
    await fixture.database.pool.query(
      "insert into steps (project_id, campaign_id, name, output, seconds, shared) values ($1, $2, $3, '{}', 1, true)",
      [projectId, id, name],
    );
  }
  const campaign = await fixture.hold(id);
  const pass = async (name: string) => {
    await campaign.step(name, async () => expect.fail("it is shared"));
    await campaign.spending.addUsage(name, usage);
  };
  const left: unknown[] = [];
  await pass("preflight/write");
  for (const number of [0, 1, 2]) {
    campaign.at(number);
    await campaign.spending.fixCaps(`iteration/${number}/caps`);
    left.push(campaign.spending.callsLeft);
    await pass(`iteration/${number}/generate`);
  }
  campaign.at(3);
  await campaign.spending.fixCaps("iteration/3/caps");
  left.push(campaign.spending.callsLeft);
  expect(left).toEqual([90, 100, 90, 100]);
});
