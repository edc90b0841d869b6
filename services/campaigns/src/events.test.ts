import { setTimeout as sleep } from "node:timers/promises";
import type { RunChange } from "@tutelage/platform/runs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventOf } from "./events.js";
import { type Fixture, projectId, startFixture } from "./service.fixture.js";

let fixture: Fixture;
beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

const outcome = { summary: "better", stopReason: "iterations" } as never;
const rest = { code: "paused", message: "Somebody paused it." };
const failure = { code: "teacher_away", message: "The teacher is away." };
test.each<[RunChange, string, object]>([
  [{ kind: "queued" }, "campaign.queued", { name: "first" }],
  [{ kind: "started" }, "campaign.started", { name: "first" }],
  [{ kind: "handed_back", reason: "shutdown" }, "campaign.handed_back", { reason: "shutdown" }],
  [{ kind: "continued" }, "campaign.continued", { fence: 3 }],
  [{ kind: "taken_over" }, "campaign.taken_over", { fence: 3 }],
  [{ kind: "pausing" }, "campaign.pausing", {}],
  [{ kind: "paused" }, "campaign.paused", rest],
  [{ kind: "budget_exhausted" }, "campaign.budget_exhausted", rest],
  [{ kind: "resumed" }, "campaign.resumed", {}],
  [{ kind: "retried" }, "campaign.retried", {}],
  [{ kind: "cancelling" }, "campaign.cancelling", {}],
  [{ kind: "cancelled" }, "campaign.cancelled", {}],
  [{ kind: "succeeded" }, "campaign.finished", { summary: "better", stop_reason: "iterations" }],
  [{ kind: "failed" }, "campaign.failed", failure],
])("the event of %j", (change, type, payload) => {
  expect(eventOf(change, { request: { name: "first" }, state: { outcome }, fence: 3, failure, rest })).toEqual({
    type,
    payload,
  });
});

const events = (id: string) => fixture.store.events({ projectId, campaignId: id }, 0, 1_000);

test("a campaign's events begin when it is stored", async () => {
  const id = await fixture.put({ name: "first" });
  await fixture.client.cancelCampaign({ projectId, id });
  await fixture.client.cancelCampaign({ projectId, id });
  expect((await events(id)).map(({ sequence, type }) => [sequence, type])).toEqual([
    [1, "campaign.queued"],
    [2, "campaign.cancelled"],
  ]);
});

test("writers at the same time, some of whom fail, leave neither a gap nor a sequence twice", async () => {
  const id = await fixture.put();
  const key = { projectId, campaignId: id };
  const writers = Array.from({ length: 64 }, (_, number) =>
    fixture.database.drizzle.transaction(async (transaction) => {
      await fixture.store.putEvent(transaction, key, "phase.started", { number });
      if (number % 3 === 0) throw new Error("rolled back");
    }),
  );
  const written = (await Promise.allSettled(writers)).filter(({ status }) => status === "fulfilled").length;
  expect(written).toBe(42);
  const stored = await events(id);
  expect(stored.map(({ sequence }) => sequence)).toEqual(Array.from({ length: written + 1 }, (_, index) => index + 1));
});

test("a watcher hears each event when it is stored, in order and once", async () => {
  const id = await fixture.put();
  const key = { projectId, campaignId: id };
  const heard: number[] = [];
  const watching = (async () => {
    for await (const { event } of fixture.client.watchCampaign({ ...key, id, afterSequence: 0 })) {
      if (event === undefined) continue;
      heard.push(event.sequence);
      // The next is stored only when this one was heard: none waits for another change of the campaign.
      if (event.sequence === 20) return;
      await fixture.database.drizzle.transaction((transaction) =>
        fixture.store.putEvent(transaction, key, "phase.started", {}),
      );
    }
  })();
  await watching;
  expect(heard).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
});

test("a watcher that is cut off after every event, while others write, goes on exactly where it was", async () => {
  const id = await fixture.put();
  const key = { projectId, campaignId: id };
  const total = 40;
  const writing = Promise.all(
    Array.from({ length: total - 1 }, async (_, number) => {
      await sleep(number * 10);
      await fixture.database.drizzle.transaction((transaction) =>
        fixture.store.putEvent(transaction, key, "phase.started", { number }),
      );
    }),
  );
  const heard: number[] = [];
  while (heard.length < total) {
    const cut = new AbortController();
    const afterSequence = heard.at(-1) ?? 0;
    try {
      for await (const { event } of fixture.client.watchCampaign(
        { projectId, id, afterSequence },
        { signal: cut.signal },
      )) {
        if (event === undefined) continue;
        heard.push(event.sequence);
        break;
      }
    } finally {
      cut.abort();
    }
  }
  await writing;
  expect(heard).toEqual(Array.from({ length: total }, (_, index) => index + 1));
});
