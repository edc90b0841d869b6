/** Pause, resume, cancel and retry of whole campaigns: what stops, how soon, and that nothing of it is paid again. */
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "@tutelage/platform/grpc";
import { StudentServiceDefinition } from "@tutelage/proto/student/v1/student";
import { type CampaignView, call } from "@tutelage/standalone/trial";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { labelOf } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { type CampaignFixture, longRecipe, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;
let student: ReturnType<typeof connect<StudentServiceDefinition>>;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  student = connect(StudentServiceDefinition, fixture.stack.addresses.student);
}, slow);
beforeEach(() => {
  fixture.teacher.options = { labelOf };
});
afterAll(async () => {
  student?.close();
  await fixture?.stop();
}, slow);

interface Ledger {
  totals: { purpose: string; calls: number; failed_calls: number; reused_calls: number }[];
}

const get = (id: string) => call<CampaignView>(fixture.stack, "GET", `/v1/campaigns/${id}`);
const ask = (id: string, action: string) => call<CampaignView>(fixture.stack, "POST", `/v1/campaigns/${id}/${action}`);
const slotHolder = async () => (await student.getDevice({})).slotHolder;
const untilStatus = (id: string, ...statuses: string[]) => fixture.untilStatus(id, ...statuses);

/** A campaign's first training runs, with the number of times that each was claimed. */
async function trainings(id: string, limit: number): Promise<object[]> {
  const client = new pg.Client({ connectionString: fixture.databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query(
      "select id, fence from training.runs where starts_with(idempotency_key, $1) order by created_at limit $2",
      [id, limit],
    );
    return rows;
  } finally {
    await client.end();
  }
}

async function eventTypes(id: string): Promise<string[]> {
  const response = await fetch(`${fixture.stack.url}/v1/campaigns/${id}/events`);
  return [...(await response.text()).matchAll(/^event: (campaign\.\w+)$/gm)]
    .map(([, type]) => type ?? "")
    .filter((type) => !["campaign.snapshot", "campaign.progress"].includes(type));
}

test(
  "a pause lets the calls under way settle and begins no other; the campaign goes on and pays for nothing twice",
  async () => {
    const { teacher } = fixture;
    const delayMs = 1_500;
    teacher.options.delayMs = delayMs;
    const before = teacher.calls.length;
    const id = await fixture.begin("paused", { seed: 21 });
    await until(() => teacher.calls.length > before);
    expect((await ask(id, "pause")).run.status).toBe("pausing");
    // The holder hears of it by a notification; what it had begun by then has begun.
    await sleep(300);
    const begun = teacher.calls.length;
    expect((await get(id)).run.status).toBe("pausing");
    const paused = await untilStatus(id, "paused");
    expect(paused.run.rest?.code).toBe("paused");
    expect(teacher.calls.length).toBe(begun);
    // All that was under way is in the ledger.
    const { totals } = await call<Ledger>(fixture.stack, "GET", `/v1/campaigns/${id}/ledger`);
    expect(totals.reduce((sum, one) => sum + one.calls, 0)).toBe(begun - before);
    await sleep(delayMs);
    expect([teacher.calls.length, (await get(id)).run.status]).toEqual([begun, "paused"]);

    teacher.options.delayMs = undefined;
    expect((await ask(id, "resume")).run).not.toHaveProperty("rest");
    const ended = await untilStatus(id, "succeeded", "failed");
    expect(ended.run.status).toBe("succeeded");
    const made = teacher.calls.slice(before);
    expect(ended.usage?.calls).toBe(made.length);
    // Orders of the same row are told apart by their examples and their number, blind labels by the text.
    const labels = made.filter(({ wants }) => wants === "label").map(({ prompt }) => prompt);
    expect(new Set(labels).size).toBe(labels.length);
    expect(await eventTypes(id)).toEqual([
      "campaign.queued",
      "campaign.started",
      "campaign.pausing",
      "campaign.paused",
      "campaign.resumed",
      "campaign.continued",
      "campaign.finished",
    ]);
    await expect(ask(id, "pause")).rejects.toThrow("cannot be paused");
    await expect(ask(id, "resume")).rejects.toThrow("cannot be resumed");
    await expect(ask(id, "retry")).rejects.toThrow("cannot be tried again");
  },
  slow,
);

test(
  "a pause frees the student from a training, a resume gives it back, and a cancel frees it within 5 s",
  async () => {
    const id = await fixture.begin("long", { seed: 22, preflight: false, recipe: longRecipe });
    const trains = async () => (await slotHolder()) !== "";
    await until(trains, slow);
    await ask(id, "pause");
    await untilStatus(id, "paused");
    expect(await slotHolder()).toBe("");
    await sleep(1_500);
    expect(await slotHolder()).toBe("");

    await ask(id, "resume");
    await until(trains, slow);
    const at = performance.now();
    await ask(id, "cancel");
    await until(async () => !(await trains()));
    expect(performance.now() - at).toBeLessThan(5_000);
    await untilStatus(id, "cancelled");
    // One that rests is cancelled at once.
    const resting = await fixture.begin("resting", { seed: 22, preflight: false, recipe: longRecipe });
    await until(trains, slow);
    await ask(resting, "pause");
    await untilStatus(resting, "paused");
    expect((await ask(resting, "cancel")).run.status).toBe("cancelled");
    await expect(ask(resting, "retry")).rejects.toThrow("was cancelled");
  },
  slow,
);

test(
  "a retry goes on from the step that failed: students are not trained again, answered calls not made again",
  async () => {
    const { teacher } = fixture;
    // After the pre-flight the key is refused.
    let refused = false;
    teacher.options.behave = () => (refused ? { kind: "status", status: 401 } : undefined);
    const id = await fixture.begin("refused", { seed: 23 });
    await until(async () => (await get(id)).phase === "cross_fit", slow);
    refused = true;
    const failed = await untilStatus(id, "failed");
    expect(failed.run.failure?.code).toBe("teacher_unauthorized");
    const answered = failed.usage?.calls ?? 0;
    const kept = await trainings(id, 1_000);
    expect(kept.length).toBeGreaterThan(0);
    // It fails with the same cause as long as that lasts.
    await ask(id, "retry");
    expect((await untilStatus(id, "failed")).run.failure?.code).toBe("teacher_unauthorized");
    refused = false;
    const before = teacher.calls.length;
    expect((await ask(id, "retry")).run).not.toHaveProperty("failure");
    const ended = await untilStatus(id, "succeeded", "failed");
    expect(ended.run.status).toBe("succeeded");
    expect(answered).toBeGreaterThan(0);
    // The refused calls cost nothing, but they were calls.
    expect((ended.usage?.calls ?? 0) - answered - (teacher.calls.length - before)).toBeGreaterThan(0);
    const types = await eventTypes(id);
    expect(types.filter((type) => type === "campaign.retried")).toHaveLength(2);
    // What was trained before the failure was not claimed again.
    expect(await trainings(id, kept.length)).toEqual(kept);
  },
  slow,
);

test(
  "a retry after a pre-flight that failed asks the teacher anew",
  async () => {
    const { teacher } = fixture;
    teacher.options.behave = ({ wants }) => (wants === "write" ? { kind: "reply", text: "no idea" } : undefined);
    const id = await fixture.begin("preflight", { seed: 24 });
    expect((await untilStatus(id, "failed")).run.failure?.code).toBe("teacher_preflight_failed");
    teacher.options.behave = undefined;
    await ask(id, "retry");
    expect((await untilStatus(id, "succeeded", "failed")).run.status).toBe("succeeded");
  },
  slow,
);
