import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { nextCursor } from "@tutelage/platform/page";
import { type Candidate, Candidate as CandidateMessage, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DeletionStore } from "./deletionstore.js";
import { presets } from "./presets.js";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";

let fixture: Fixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

describe("listing", () => {
  const project = { projectId: "listing" };
  const dataset = crypto.randomUUID();
  let middle: Date;
  const names = async (filter: object) =>
    (await fixture.client.listCampaigns({ ...project, ...filter })).campaigns.map(({ request }) => request?.name);

  beforeAll(async () => {
    const first = await fixture.put({ ...project, name: "Support, first try", datasetId: dataset }, { tags: ["best"] });
    await fixture.end(first, "SUCCEEDED");
    await fixture.end(await fixture.put({ ...project, name: "100% sure", datasetId: dataset }), "FAILED");
    await sleep(5);
    middle = new Date();
    await sleep(5);
    await fixture.put({ ...project, name: "support again" });
    await fixture.put({ projectId: "another", name: "support of another" });
  });

  test.each([
    [{}, ["support again", "100% sure", "Support, first try"]],
    [{ nameContains: "SUPPORT" }, ["support again", "Support, first try"]],
    [{ nameContains: "0%" }, ["100% sure"]],
    [{ nameContains: "_" }, []],
    [{ statuses: [RunStatus.FAILED, RunStatus.QUEUED] }, ["support again", "100% sure"]],
    [{ datasetId: dataset, statuses: [RunStatus.SUCCEEDED] }, ["Support, first try"]],
    [{ datasetId: dataset.toUpperCase() }, ["100% sure", "Support, first try"]],
    [{ tag: "best" }, ["Support, first try"]],
    [{ tag: "bes" }, []],
  ])("by %j", async (filter, expected) => {
    expect(await names(filter)).toEqual(expected);
  });

  test("by time: since is inclusive, before is not", async () => {
    expect(await names({ createdSince: middle })).toEqual(["support again"]);
    expect(await names({ createdBefore: middle })).toEqual(["100% sure", "Support, first try"]);
    const { campaigns } = await fixture.client.listCampaigns({ ...project, statuses: [RunStatus.FAILED] });
    const at = campaigns[0]?.run?.createdAt as Date;
    expect(await names({ createdSince: at, createdBefore: middle })).toEqual(["100% sure"]);
  });

  test("pages neither repeat nor leave out a campaign, while others start in the same millisecond", async () => {
    const own = { projectId: "paging" };
    const put = () => Promise.all(Array.from({ length: 3 }, () => fixture.put(own)));
    const ids = new Set([...(await put()), ...(await put())]);
    const seen: string[] = [];
    let cursor = "";
    do {
      const page = await fixture.client.listCampaigns({ ...own, pageSize: 2, cursor });
      seen.push(...page.campaigns.map(({ run }) => run?.id ?? ""));
      cursor = page.nextCursor;
      await put();
    } while (cursor !== "");
    expect(seen).toHaveLength(ids.size);
    expect(new Set(seen)).toEqual(ids);
  });

  test("a full last page is known to be the last", async () => {
    const page = await fixture.client.listCampaigns({ ...project, pageSize: 3 });
    expect([page.campaigns.length, page.nextCursor]).toEqual([3, ""]);
  });

  test.each([
    [{ datasetId: "support" }, "dataset_id"],
    [{ statuses: [RunStatus.UNSPECIFIED] }, "statuses"],
    [{ createdSince: new Date(2), createdBefore: new Date(1) }, "created_before"],
    [{ nameContains: "a\u0000" }, "name_contains"],
    [{ cursor: "WyJ4Il0" }, "cursor"],
    [
      { cursor: nextCursor("campaigns default", true, { createdAt: "2026-02-31 00:00:00+00", id: randomUUID() }) },
      "cursor",
    ],
    [{ pageSize: 1_001 }, "page_size"],
    [{ projectId: "" }, "project_id"],
  ])("%j is refused by name", async (filter, field) => {
    await expect(fixture.client.listCampaigns({ ...project, ...filter })).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  });
});

describe("changing", () => {
  test("a name, a note and tags stay what they are until they are given", async () => {
    const id = await fixture.put({ name: "before" });
    const which = { projectId, id };
    const changed = await fixture.client.updateCampaign({
      ...which,
      name: "after",
      note: "the one for the talk",
      tags: { values: ["talk", "keep"] },
    });
    expect(changed).toMatchObject({ request: { name: "after" }, note: "the one for the talk", tags: ["talk", "keep"] });
    expect(await fixture.client.updateCampaign(which)).toMatchObject({ note: changed.note, tags: changed.tags });
    await fixture.client.updateCampaign({ ...which, note: "", tags: { values: [] } });
    expect(await fixture.client.getCampaign(which)).toMatchObject({ request: { name: "after" }, note: "", tags: [] });
    // The state that the loop keeps is still there, and a final campaign can be annotated too.
    await fixture.end(id, "SUCCEEDED");
    expect((await fixture.client.updateCampaign({ ...which, note: "done" })).note).toBe("done");
  });

  test("a cap is raised, for the loop to read; not lowered, and not once the campaign has ended", async () => {
    const id = await fixture.put({ settings: { maxTeacherCalls: 100, maxCostMicroUsd: 5 } as never });
    const which = { projectId, id };
    const raised = await fixture.client.updateCampaign({ ...which, maxTeacherCalls: 200, maxCostMicroUsd: 0 });
    expect(raised.request?.settings).toMatchObject({ maxTeacherCalls: 200, maxCostMicroUsd: 0, folds: 3 });
    const caps = { maxTeacherCalls: 200, maxTeacherTokens: 0, maxCostMicroUsd: 0, maxTrainingSeconds: 0 };
    expect(await fixture.store.caps({ projectId, campaignId: id })).toEqual(caps);
    for (const [lower, field] of [
      [{ maxTeacherCalls: 199 }, "max_teacher_calls"],
      [{ maxCostMicroUsd: 10 }, "max_cost_micro_usd"],
    ] as const) {
      await expect(fixture.client.updateCampaign({ ...which, name: "x", ...lower })).rejects.toMatchObject({
        reason: "cap_lowered",
        fields: [{ field }],
      });
    }
    expect((await fixture.client.getCampaign(which)).request?.name).toBe("");
    await fixture.end(id, "SUCCEEDED");
    await fixture.client.updateCampaign({ ...which, maxTeacherCalls: 200 });
    await expect(fixture.client.updateCampaign({ ...which, maxTeacherCalls: 0 })).rejects.toMatchObject({
      code: "failed_precondition",
      reason: "campaign_ended",
    });
  });

  test("a raised cap lets a campaign go on that it stopped, and no other change does; a paused one stays paused", async () => {
    const put = () => fixture.put({ settings: { maxTeacherCalls: 10 } as never });
    const statusOf = async (id: string) => (await fixture.client.getCampaign({ projectId, id })).run?.status;
    const id = await put();
    await fixture.end(id, "BUDGET_EXHAUSTED");
    await fixture.client.updateCampaign({ projectId, id, note: "no more money" });
    expect(await statusOf(id)).toBe(RunStatus.BUDGET_EXHAUSTED);
    const raised = await fixture.client.updateCampaign({ projectId, id, maxTeacherCalls: 20 });
    expect(raised.run?.status).toBe(RunStatus.QUEUED);

    const paused = await put();
    await fixture.client.pauseCampaign({ projectId, id: paused });
    await fixture.client.updateCampaign({ projectId, id: paused, maxTeacherCalls: 20 });
    expect(await statusOf(paused)).toBe(RunStatus.PAUSED);

    const others = { projectId: "exhausted" };
    const other = await fixture.put(others);
    await fixture.end(other, "BUDGET_EXHAUSTED");
    await fixture.end(id, "BUDGET_EXHAUSTED");
    expect((await fixture.client.resumeExhaustedCampaigns(others)).resumed).toBe(1);
    expect((await fixture.client.getCampaign({ ...others, id: other })).run?.status).toBe(RunStatus.QUEUED);
    expect(await statusOf(id)).toBe(RunStatus.BUDGET_EXHAUSTED);
  });

  test("a loop that runs again finds the caps that it ordered under, and reads raised ones at its next iteration", async () => {
    const id = await fixture.put({ settings: { maxTeacherCalls: 100, finishAtBudget: Switch.ON } as never });
    const first = await fixture.hold(id);
    await first.spending.fixCaps("iteration/0/caps");
    expect(first.spending.callsLeft).toBe(100);
    await fixture.client.updateCampaign({ projectId, id, maxTeacherCalls: 300 });
    expect(first.spending.callsLeft).toBe(100);
    const successor = await fixture.hold(id);
    await successor.spending.fixCaps("iteration/0/caps");
    expect(successor.spending.callsLeft).toBe(100);
    await successor.spending.fixCaps("iteration/1/caps");
    expect(successor.spending.callsLeft).toBe(300);
  });

  test.each([
    [{ name: " " }, "name"],
    [{ name: "x".repeat(201) }, "name"],
    [{ note: "a\u0000" }, "note"],
    [{ tags: { values: ["a", "a"] } }, "tags[1]"],
    [{ tags: { values: [""] } }, "tags[0]"],
    [{ tags: { values: Array.from({ length: 21 }, (_, index) => `${index}`) } }, "tags"],
    [{ maxTeacherCalls: -1 }, "max_teacher_calls"],
  ])("%j is refused by name", async (change, field) => {
    const id = await fixture.put({ settings: { maxTeacherCalls: 1 } as never });
    await expect(fixture.client.updateCampaign({ projectId, id, ...change })).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  });

  test("another project's campaign is not found", async () => {
    const id = await fixture.put();
    await expect(fixture.client.updateCampaign({ projectId: "other", id, name: "mine" })).rejects.toMatchObject({
      reason: "campaign_not_found",
    });
  });
});

test("a forecast follows the newest campaign that succeeded, but no fork: its time is that of a part", async () => {
  const like = { projectId: "forecasts", studentProfile: "small", teacherProfile: "large" };
  const newest = () => fixture.store.newestLike(like.projectId, like.studentProfile, like.teacherProfile);
  const whole = await fixture.put(like);
  const fork = await fixture.put(like);
  for (const id of [whole, fork]) await fixture.end(id, "SUCCEEDED");
  expect(await newest()).toBe(fork);
  const { pool } = fixture.database;
  await pool.query(`update runs set request = request || '{"fork": {}}' where id = $1`, [fork]);
  expect(await newest()).toBe(whole);
});

test("candidates are narrowed, and a row leads to the candidate that it was, in its campaign only", async () => {
  const datasetId = crypto.randomUUID();
  const id = await fixture.put({ name: "grower" }, { datasetId });
  const twin = await fixture.put({ name: "twin" }, { datasetId: crypto.randomUUID() });
  const candidate = (number: number, more: Partial<Candidate>): Candidate =>
    CandidateMessage.fromPartial({ number, iteration: number % 2, seedRowId: `seed${number % 3}`, ...more } as never);
  const candidates = [
    candidate(0, { accepted: true, rowId: "row0" }),
    candidate(1, { rejection: "near_duplicate" }),
    candidate(2, { rejection: "label_doubted" }),
    candidate(3, { accepted: true, rowId: "row3", callId: "call3", probability: 0.75 }),
    candidate(4, { rejection: "near_duplicate" }),
  ];
  for (const campaignId of [id, twin]) {
    await fixture.database.drizzle.transaction((transaction) =>
      fixture.store.candidates.put(transaction, { projectId, campaignId }, candidates),
    );
  }
  const numbers = async (filter: object) =>
    (await fixture.client.listCandidates({ projectId, id, iteration: -1, ...filter })).candidates.map(
      (one) => one.number,
    );
  expect(await numbers({ accepted: true })).toEqual([0, 3]);
  expect(await numbers({ accepted: false })).toEqual([1, 2, 4]);
  expect(await numbers({ rejection: "near_duplicate" })).toEqual([1, 4]);
  expect(await numbers({ seedRowId: "seed0" })).toEqual([0, 3]);
  await expect(numbers({ rejection: "\u0000" })).rejects.toMatchObject({ fields: [{ field: "rejection" }] });
  await expect(numbers({ seedRowId: "\u0000" })).rejects.toMatchObject({ fields: [{ field: "seed_row_id" }] });
  expect(await numbers({ seedRowId: "seed1", rejection: "near_duplicate", iteration: 0 })).toEqual([4]);
  const first = await fixture.client.listCandidates({ projectId, id, iteration: -1, accepted: false, pageSize: 2 });
  expect(await numbers({ accepted: false, cursor: first.nextCursor })).toEqual([4]);

  const of = (rowId: string, dataset: string = datasetId, project = projectId) =>
    fixture.client.getCandidateOfRow({ projectId: project, datasetId: dataset, rowId });
  expect(await of("row3")).toEqual({ campaignId: id, campaignName: "grower", candidate: candidates[3] });
  for (const wrong of [
    ["row9", datasetId, projectId],
    ["row3", crypto.randomUUID(), projectId],
    ["row3", datasetId, "other"],
  ] as const) {
    await expect(of(wrong[0], wrong[1], wrong[2])).rejects.toMatchObject({ reason: "candidate_of_row_not_found" });
  }
});

describe("tasks", () => {
  const own = Task.fromPartial({
    name: "intents",
    kind: TaskKind.CLASSIFICATION,
    promptTemplate: "{input}\nThe customer wants to",
    labels: [{ name: "pay" }, { name: "leave" }],
  });
  const put = (task: Partial<Task> | undefined) =>
    fixture.client.putTask({ projectId, ...(task === undefined ? {} : { task }) });

  test("a task is stored, replaced, listed after the presets, and deleted; another project does not see it", async () => {
    await put(own);
    const stored = await put({ ...own, rowNoun: "messages" });
    expect(stored).toMatchObject({ preset: false, task: { rowNoun: "messages" }, updatedAt: expect.any(Date) });
    expect(await fixture.client.getTask({ projectId, name: "intents" })).toEqual(stored);
    const { tasks } = await fixture.client.listTasks({ projectId });
    expect(tasks.map(({ task, preset }) => [task?.name, preset])).toEqual([
      ...[...presets.keys()].map((name) => [name, true]),
      ["intents", false],
    ]);
    const elsewhere = { projectId: "other", name: "intents" };
    await expect(fixture.client.getTask(elsewhere)).rejects.toMatchObject({ reason: "task_not_found" });
    await expect(fixture.client.deleteTask(elsewhere)).rejects.toMatchObject({ reason: "task_not_found" });
    await expect(fixture.client.deleteTask({ projectId, name: "\u0000" })).rejects.toMatchObject({ code: "not_found" });
    await fixture.client.deleteTask({ projectId, name: "intents" });
    await expect(fixture.client.getTask({ projectId, name: "intents" })).rejects.toMatchObject({ code: "not_found" });
  });

  test.each([
    [undefined, "task"],
    [{ ...own, name: "no spaces" }, "task.name"],
    [{ ...own, promptTemplate: "Intent:" }, "task.prompt_template"],
    [{ ...own, labels: own.labels.slice(1) }, "task.labels"],
    [{ ...own, rowNoun: "a\u0000" }, "task.row_noun"],
  ])("a task that no campaign could have is refused: %#", async (task, field) => {
    await expect(put(task)).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field }] });
  });

  test("a preset is neither replaced nor deleted", async () => {
    await expect(put({ ...own, name: "sentiment" })).rejects.toMatchObject({ reason: "task_is_preset" });
    await expect(fixture.client.deleteTask({ projectId, name: "sentiment" })).rejects.toMatchObject({
      code: "failed_precondition",
    });
    expect((await fixture.client.getTask({ projectId, name: "sentiment" })).preset).toBe(true);
  });

  test("a campaign names a task that is there, and not beside one of its own", async () => {
    const start = (more: object) => fixture.client.startCampaign({ projectId, ...more });
    await expect(start({ taskName: "nothing" })).rejects.toMatchObject({
      reason: "unknown_task",
      message: expect.stringMatching(/there is no task "nothing"; there are: .*sentiment/),
    });
    await expect(start({ taskName: "sentiment", task: own })).rejects.toMatchObject({
      fields: [{ field: "task_name" }],
    });
  });
});

test("a page of long candidates ends where it would grow too large", async () => {
  const id = await fixture.put({ name: "long" });
  const long = Array.from({ length: 4 }, (_, number) =>
    CandidateMessage.fromPartial({ number, iteration: 0, input: "x".repeat(7_000_000) }),
  );
  await fixture.database.drizzle.transaction((transaction) =>
    fixture.store.candidates.put(transaction, { projectId, campaignId: id }, long),
  );
  const page = (cursor: string) =>
    fixture.client.listCandidates({ projectId, id, iteration: -1, pageSize: 1_000, cursor });
  const first = await page("");
  const second = await page(first.nextCursor);
  expect([first, second].map(({ candidates }) => candidates.map(({ number }) => number))).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect(second.nextCursor).toBe("");
});

test.each([
  [{ name: "a\u0000" }, "name"],
  [{ idempotencyKey: "a\u0000" }, "idempotency_key"],
  [{ datasetId: "a\u0000" }, "dataset_id"],
  [{ studentProfile: "a\u0000" }, "student_profile"],
  [{ taskName: "a\u0000" }, "task_name"],
  [{ task: { teacherInstructions: "a\u0000" } }, "task.teacher_instructions"],
  [{ task: { labels: [{ name: "a", description: "\u0000" }] } }, "task.labels[0].description"],
])("a campaign with a text that cannot be stored is refused before anything is asked: %j", async (change, field) => {
  const refused = { code: "invalid_argument", fields: [{ field }] };
  await expect(fixture.client.startCampaign({ projectId, ...change })).rejects.toMatchObject(refused);
  const estimate = fixture.client.estimateCampaign({ campaign: { projectId, ...change } });
  await expect(estimate).rejects.toMatchObject(refused);
});

test("a deletion that fails does not show a campaign that a later deletion has hidden", async () => {
  const deletions = new DeletionStore(fixture.database);
  const key = { projectId, campaignId: await fixture.put() };
  await fixture.end(key.campaignId, "FAILED");
  const hidden = async () => (await deletions.look(key))?.deleting;
  const first = await deletions.hide(key);
  const second = await deletions.hide(key);
  await deletions.unhide(key, first);
  expect(await hidden()).toBe(true);
  await deletions.unhide(key, second);
  expect(await hidden()).toBe(false);
});
