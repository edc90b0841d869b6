import {
  Disputes,
  ReviewDecision,
  ReviewKind,
  ReviewStatus,
  SeedAudit,
  Selection,
  Settings,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Row, RowOrigin, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Campaign, SeedData } from "./campaign.js";
import { takeOver } from "./forkstore.js";
import { gradeRound } from "./grading.js";
import type { MinedRow } from "./mining.js";
import { Decisions, type Finding, takeDecisions } from "./reviewing.js";
import { putFindings } from "./reviewstore.js";
import { wantedRows, writeOrders } from "./selection.js";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";
import { defaultSettings } from "./settings.js";

let fixture: Fixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

const row = (id: string) => Row.fromPartial({ id, input: `how much is ${id}`, output: "18", origin: RowOrigin.SEED });
const task = Task.fromPartial({ kind: TaskKind.MATH });
const finding = (id: string, iteration = 0): Finding => ({
  kind: ReviewKind.LABEL,
  row: row(id),
  evidence: { iteration, students: { answer: "a" }, teacher: { answer: "a" }, text: "", strictCorrect: false },
  proposedOutput: "a",
});
const start = async (settings: Partial<Settings> = {}) => {
  const id = await fixture.put({ task, settings: Settings.fromPartial({ ...defaultSettings, ...settings }) });
  return { id, campaign: await fixture.hold(id) };
};
const find = (campaign: Campaign, ...found: Finding[]) =>
  campaign.lease.write((transaction) => putFindings(transaction, campaign.key, found));
const decide = (id: string, seedRowId: string, decision: ReviewDecision, more = {}) =>
  fixture.client.decideReview({ projectId, id, seedRowId, decision, ...more });
const list = async (id: string, more = {}) => (await fixture.client.listReviews({ projectId, id, ...more })).reviews;
const types = async (id: string) =>
  (await fixture.store.events({ projectId, campaignId: id }, 0, 100)).map(({ type }) => type);

test("reviews are listed in the order in which they came into doubt, page by page, and by status", async () => {
  const { id, campaign } = await start();
  await find(campaign, finding("z"), finding("a"), finding("m"));
  await find(campaign, finding("a", 1));
  const first = await fixture.client.listReviews({ projectId, id, pageSize: 2 });
  expect(first.reviews.map(({ seedRowId }) => seedRowId)).toEqual(["z", "a"]);
  expect(first.reviews[1]?.evidence.map(({ iteration }) => iteration)).toEqual([0, 1]);
  const second = await fixture.client.listReviews({ projectId, id, pageSize: 2, cursor: first.nextCursor });
  expect(second).toMatchObject({ reviews: [{ seedRowId: "m", row: { output: "18" } }], nextCursor: "" });
  await decide(id, "z", ReviewDecision.ACCEPT);
  expect((await list(id, { status: ReviewStatus.OPEN })).map(({ seedRowId }) => seedRowId)).toEqual(["a", "m"]);
  await expect(
    fixture.client.listReviews({ projectId, id, status: ReviewStatus.OPEN, cursor: first.nextCursor }),
  ).rejects.toMatchObject({ reason: "cursor_invalid" });
});

test("a decision may be made twice, and changed until it is taken up", async () => {
  const { id, campaign } = await start();
  await find(campaign, finding("r1"));
  expect(await decide(id, "r1", ReviewDecision.ACCEPT, { decidedBy: "Ada" })).toMatchObject({
    status: ReviewStatus.ACCEPTED,
    decidedBy: "Ada",
  });
  await decide(id, "r1", ReviewDecision.ACCEPT);
  await decide(id, "r1", ReviewDecision.RELABEL, { output: "19" });
  expect(await takeDecisions(campaign, 0)).toEqual([
    { seedRowId: "r1", status: ReviewStatus.RELABELLED, output: "19", reading: Disputes.UNSPECIFIED },
  ]);
  expect((await types(id)).filter((type) => type === "review.decided")).toHaveLength(2);
  await expect(decide(id, "r1", ReviewDecision.ACCEPT)).rejects.toMatchObject({ reason: "review_acted_on" });
  expect(await decide(id, "r1", ReviewDecision.RELABEL, { output: "19" })).toMatchObject({ actedIteration: 0 });
  await expect(decide(id, "unknown", ReviewDecision.ACCEPT)).rejects.toMatchObject({ code: "not_found" });
});

test("what has ended takes nothing up any more, what failed may", async () => {
  const { id, campaign } = await start();
  await find(campaign, finding("r1"));
  await fixture.end(id, "FAILED");
  await decide(id, "r1", ReviewDecision.ACCEPT);
  await fixture.end(id, "SUCCEEDED");
  await decide(id, "r1", ReviewDecision.ACCEPT);
  await expect(decide(id, "r1", ReviewDecision.RELABEL, { output: "19" })).rejects.toMatchObject({
    reason: "campaign_ended",
  });
});

test("who dies between taking up a decision and storing it leaves it to a successor, unchanged", async () => {
  const { id, campaign } = await start();
  await find(campaign, finding("r1"), finding("r2"));
  await decide(id, "r1", ReviewDecision.ACCEPT);
  await campaign.enter(3, "review");
  // Dies once the decision is marked, before the step is stored.
  campaign.lease.advance = () => Promise.reject(new Error("killed"));
  await expect(takeDecisions(campaign, 3)).rejects.toThrow("killed");
  await expect(decide(id, "r1", ReviewDecision.RELABEL, { output: "19" })).rejects.toMatchObject({
    reason: "review_acted_on",
  });
  const successor = await fixture.hold(id);
  // The late holder is refused.
  await expect(find(campaign, finding("r9"))).rejects.toThrow();
  const taken = await takeDecisions(successor, 3);
  expect(taken.map(({ seedRowId }) => seedRowId)).toEqual(["r1"]);
  // What is decided later does not come into a step that is done.
  await decide(id, "r2", ReviewDecision.ACCEPT);
  expect(await takeDecisions(await fixture.hold(id), 3)).toEqual(taken);
  expect((await takeDecisions(await fixture.hold(id), 4)).map(({ seedRowId }) => seedRowId)).toEqual(["r2"]);
});

test("a campaign that waits rests until the last decision, and not while somebody has it paused", async () => {
  const { id, campaign } = await start({ seedAudit: SeedAudit.WAIT });
  await find(campaign, finding("r1"), finding("r2"));
  await expect(takeDecisions(campaign, 0)).rejects.toMatchObject({
    status: "PAUSED",
    code: "reviews_open",
    message: expect.stringContaining("2 seed rows wait for a decision"),
  });
  const rest = (code: string, asked: boolean) =>
    fixture.database.pool.query("update runs set status = 'PAUSED', rest = $2, pause_requested = $3 where id = $1", [
      id,
      JSON.stringify({ code, message: "" }),
      asked,
    ]);
  const status = async () => (await fixture.client.getCampaign({ projectId, id })).run?.status;
  await rest("reviews_open", false);
  await decide(id, "r1", ReviewDecision.ACCEPT);
  expect(await status()).toBe(RunStatus.PAUSED);
  await decide(id, "r2", ReviewDecision.ACCEPT);
  expect(await status()).toBe(RunStatus.QUEUED);
  expect((await types(id)).slice(-2)).toEqual(["review.decided", "campaign.resumed"]);
  // Somebody paused it meanwhile: it stays so, and a resume lets it go on.
  await rest("paused", true);
  await decide(id, "r2", ReviewDecision.RELABEL, { output: "20" });
  expect(await status()).toBe(RunStatus.PAUSED);
  expect(await takeDecisions(await fixture.hold(id), 0)).toHaveLength(2);
});

const seed: SeedData = {
  version: {} as SeedData["version"],
  seedRows: ["r1", "r2", "r3"].map(row),
  devRows: 0,
  testRows: 0,
  givenRows: [],
  leftOut: [],
  grewFrom: new Map(),
};
const answers: MinedRow[] = seed.seedRows.map((one) => ({
  row: one,
  correct: false,
  disputed: one.id !== "r3",
  answer: "12",
  text: "12, no, 18",
  expectedLogProbability: undefined,
}));

test("a dispute costs no call until somebody settles it, and then what the reading says", async () => {
  const { id, campaign } = await start({ selection: Selection.ERRORS_ONLY });
  const decisions = new Decisions();
  const ordered = async (iteration: number) => {
    const { mined } = await gradeRound(campaign, iteration, seed, seed.seedRows, answers, undefined, decisions);
    const standing = { iteration, attemptsSoFar: new Map(), callsLeft: 100 };
    return writeOrders(wantedRows(mined, campaign.settings), seed.seedRows, campaign.settings, standing).map(
      ({ seedRow, wrongAnswer }) => `${seedRow?.id}: ${wrongAnswer}`,
    );
  };
  expect(await ordered(0)).toEqual(["r3: 12"]);
  expect(await list(id)).toMatchObject(
    ["r1", "r2"].map((seedRowId) => ({
      seedRowId,
      kind: ReviewKind.DISPUTE,
      evidence: [{ iteration: 0, students: { answer: "12" }, text: "12, no, 18", strictCorrect: false }],
    })),
  );
  await decide(id, "r1", ReviewDecision.ACCEPT, { reading: Disputes.STRICT });
  await decide(id, "r2", ReviewDecision.ACCEPT, { reading: Disputes.LENIENT });
  expect(await ordered(1)).toEqual(["r1: 12", "r3: 12"]);
  // Settled for good: what was not yet taken up when iteration 1 was graded is the last that was noted.
  expect(await ordered(2)).toEqual(["r1: 12", "r3: 12"]);
  expect((await list(id)).map(({ evidence }) => evidence.length)).toEqual([2, 2]);
});

test("a row that is left out takes what was written from it along", async () => {
  const decisions = new Decisions();
  const settled = { output: "", reading: Disputes.UNSPECIFIED };
  decisions.take([
    { seedRowId: "r1", status: ReviewStatus.EXCLUDED, ...settled },
    { seedRowId: "r2", status: ReviewStatus.ACCEPTED, ...settled },
  ]);
  const grown = [...seed.seedRows, Row.fromPartial({ id: "s", rootRowId: "r1" })];
  expect(decisions.keep(grown).map(({ id }) => id)).toEqual(["r2", "r3"]);
});

test("a fork has the reviews of what it shares; what was not taken up there is open again", async () => {
  const { id: parent, campaign } = await start();
  await find(campaign, finding("early"), finding("late"));
  await decide(parent, "early", ReviewDecision.RELABEL, { output: "19" });
  await takeDecisions(campaign, 0);
  await find(campaign, finding("late", 1), finding("newer", 1));
  await decide(parent, "late", ReviewDecision.ACCEPT);
  await takeDecisions(campaign, 1);
  const { id, campaign: fork } = await start();
  await fork.lease.write((transaction) => takeOver(transaction, fork.key, { campaignId: parent, iteration: 1 }));
  expect(await list(id)).toMatchObject([
    { seedRowId: "early", status: ReviewStatus.RELABELLED, output: "19", actedIteration: 0 },
    { seedRowId: "late", status: ReviewStatus.OPEN, evidence: [{ iteration: 0 }], decidedAt: undefined },
  ]);
  // The step is shared, so the loop takes up the same.
  expect(await takeDecisions(fork, 0)).toMatchObject([{ seedRowId: "early", output: "19" }]);
});

test("a deleted campaign's reviews are gone", async () => {
  const { id, campaign } = await start();
  await find(campaign, finding("r1"));
  await fixture.end(id, "CANCELLED");
  await fixture.deletions.hide({ projectId, campaignId: id });
  expect(await fixture.deletions.remove({ projectId, campaignId: id })).toMatchObject({ reviews: 1, campaigns: 1 });
  const { rows } = await fixture.database.pool.query("select 1 from reviews where campaign_id = $1", [id]);
  expect(rows).toEqual([]);
});
