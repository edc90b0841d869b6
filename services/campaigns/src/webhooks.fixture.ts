/** What tests of webhooks share: a campaigns service on a real Postgres, and a receiver over real HTTP. */
import { randomUUID } from "node:crypto";
import { afterEach, beforeEach } from "vitest";
import { startReceiver, type WebhookReceiver } from "../../../tests/support/webhook-receiver.js";
import { type Fixture, startFixture } from "./service.fixture.js";

export let fixture: Fixture;
export let receiver: WebhookReceiver;
/** A project of its own for each test. */
export let projectId: string;
/** Of what a test has started beside. */
export const stops: (() => Promise<void>)[] = [];

/** Starts both anew for each test of the file. */
export function startForEachTest(): void {
  beforeEach(async () => {
    fixture = await startFixture();
    receiver = await startReceiver();
    projectId = `p-${randomUUID()}`;
  });
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
    await receiver.stop();
    await fixture.stop();
  });
}

export const dispatch = (timing: Parameters<Fixture["dispatch"]>[0] = {}) => {
  const stop = fixture.dispatch(timing);
  stops.push(stop);
  return stop;
};
export const create = async (more: { url?: string; eventTypes?: string[] } = {}) => {
  const { webhook, secret } = await fixture.webhooks.createWebhook({ projectId, url: receiver.url, ...more });
  return { id: webhook?.id ?? "", secret };
};
/** A new campaign, which writes "campaign.queued". */
export const queue = (project = projectId) => fixture.put({ projectId: project });
export const emit = (campaignId: string, type: "phase.started" | "campaign.finished" = "phase.started") =>
  fixture.database.drizzle.transaction((transaction) =>
    fixture.store.putEvent(transaction, { projectId, campaignId }, type, { phase: "train" }),
  );
export const listed = async (webhookId: string) =>
  (await fixture.webhooks.listDeliveries({ projectId, webhookId, pageSize: 1_000 })).deliveries;
/** Whether a try is under way. */
export const isSending = async (webhookId: string): Promise<boolean> => {
  const { rows } = await fixture.database.pool.query(
    "select exists (select 1 from deliveries where webhook_id = $1 and sending_until is not null) as sending",
    [webhookId],
  );
  return rows[0].sending;
};
/** Lets time pass for all webhooks and deliveries. */
export const pass = async (seconds: number) => {
  const ago = `interval '${seconds} seconds'`;
  await fixture.database.pool.query(
    `update deliveries set due_at = due_at - ${ago}, give_up_at = give_up_at - ${ago}, finished_at = finished_at - ${ago},
       sending_until = sending_until - ${ago}`,
  );
  await fixture.database.pool.query(
    `update webhooks set paused_until = paused_until - ${ago}, previous_secret_until = previous_secret_until - ${ago}`,
  );
};
export const secondsUntil = (date: Date | undefined) => ((date?.getTime() ?? 0) - Date.now()) / 1_000;
