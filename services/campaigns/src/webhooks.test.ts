/** Webhooks: made, changed, looked through and deleted. */
import { setTimeout as sleep } from "node:timers/promises";
import { DeliveryStatus } from "@tutelage/proto/campaigns/v1/webhooks";
import { expect, test } from "vitest";
import { until } from "../../../tests/support/waiting.js";
import {
  create,
  dispatch,
  emit,
  fixture,
  listed,
  pass,
  projectId,
  queue,
  receiver,
  secondsUntil,
  startForEachTest,
} from "./webhooks.fixture.js";

startForEachTest();

test("after a rotation both secrets sign for a while, then the new one alone", async () => {
  dispatch();
  const { id, secret: first } = await create();
  const rotated = await fixture.webhooks.rotateWebhookSecret({ projectId, id, overlapSeconds: 600 });
  expect(secondsUntil(rotated.webhook?.previousSecretUntil)).toBeGreaterThan(590);
  const sent = async () => {
    const before = receiver.received.length;
    await fixture.webhooks.testWebhook({ projectId, id });
    await until(() => receiver.received.length > before);
    const got = receiver.received[before];
    if (got === undefined) throw new Error("unreachable");
    expect(got.body.type).toBe("webhook.test");
    return [first, rotated.secret].map((secret) => receiver.isSigned(got, secret));
  };
  expect(await sent()).toEqual([true, true]);
  await pass(601);
  expect(await sent()).toEqual([false, true]);
  const third = await fixture.webhooks.rotateWebhookSecret({ projectId, id, overlapSeconds: 0 });
  expect(await sent()).toEqual([false, false]);
  expect(receiver.isSigned(receiver.received.at(-1) as never, third.secret)).toBe(true);
});

test("no campaign waits for a webhook that is being changed or deleted, and deletion leaves nothing to send", async () => {
  const { id } = await create();
  const campaignId = await queue();
  const client = await fixture.database.pool.connect();
  try {
    await client.query("begin");
    await client.query("delete from webhooks where id = $1", [id]);
    // Writes for the webhook that it still sees, and does not wait for the deletion.
    await emit(campaignId);
    await client.query("commit");
  } finally {
    client.release();
  }
  dispatch();
  await sleep(200);
  expect(receiver.received).toHaveLength(0);
  await fixture.deliveries.tidy(30);
  const { rows } = await fixture.database.pool.query("select count(*)::int as n from deliveries");
  expect(rows[0].n).toBe(0);
  const other = await create();
  await emit(campaignId);
  await until(async () => (await listed(other.id))[0]?.status === DeliveryStatus.DELIVERED);
  await fixture.webhooks.deleteWebhook({ projectId, id: other.id });
  await expect(listed(other.id)).rejects.toMatchObject({ reason: "webhook_not_found" });
});

test("deliveries come in pages, narrowed by status and campaign", async () => {
  const { id } = await create();
  const campaignId = await queue();
  for (let count = 0; count < 4; count++) await emit(campaignId);
  await queue();
  const page = (more: object) => fixture.webhooks.listDeliveries({ projectId, webhookId: id, ...more });
  const seen: number[] = [];
  let cursor = "";
  do {
    const { deliveries, nextCursor } = await page({ pageSize: 2, campaignId, cursor });
    seen.push(...deliveries.map(({ sequence }) => sequence));
    cursor = nextCursor;
    await emit(campaignId);
  } while (cursor !== "");
  expect(seen).toEqual([5, 4, 3, 2, 1]);
  expect((await page({ status: DeliveryStatus.DELIVERED })).deliveries).toEqual([]);
  await expect(page({ cursor: "x" })).rejects.toMatchObject({ fields: [{ field: "cursor" }] });
  await expect(page({ campaignId: "x" })).rejects.toMatchObject({ reason: "campaign_not_found" });
});

test("a URL is one webhook's in its project, and what another project has is not found", async () => {
  const { id } = await create();
  await expect(create()).rejects.toMatchObject({ reason: "webhook_url_taken", fields: [{ field: "url" }] });
  const other = await fixture.webhooks.createWebhook({ projectId: "another", url: receiver.url });
  expect(other.webhook?.id).not.toBe(id);
  const second = await create({ url: `${receiver.url}/2` });
  const change = fixture.webhooks.updateWebhook({ projectId, id: second.id, url: receiver.url });
  await expect(change).rejects.toMatchObject({ reason: "webhook_url_taken" });
  await queue();
  const [delivery] = await listed(id);
  const which = { projectId: "another", id, webhookId: id, overlapSeconds: 0 };
  const theirs = { projectId: "another", webhookId: other.webhook?.id ?? "", id: delivery?.id ?? "" };
  for (const attempt of [
    () => fixture.webhooks.getWebhook(which),
    () => fixture.webhooks.updateWebhook({ ...which, enabled: false }),
    () => fixture.webhooks.deleteWebhook(which),
    () => fixture.webhooks.rotateWebhookSecret(which),
    () => fixture.webhooks.testWebhook(which),
    () => fixture.webhooks.listDeliveries(which),
    () => fixture.webhooks.redeliverDead(which),
    () => fixture.webhooks.getDelivery(theirs),
    () => fixture.webhooks.redeliver(theirs),
    () => fixture.webhooks.getDelivery({ projectId, webhookId: second.id, id: delivery?.id ?? "" }),
    () => fixture.webhooks.getWebhook({ projectId, id: "x" }),
    () => fixture.webhooks.getDelivery({ projectId, webhookId: id, id: "x" }),
  ])
    await expect(attempt()).rejects.toMatchObject({ code: "not_found" });
  expect((await fixture.webhooks.getWebhook({ projectId, id })).enabled).toBe(true);
});

test("a project has at most fifty webhooks", async () => {
  for (let number = 0; number < 50; number++) await create({ url: `https://example.com/${number}` });
  await expect(create()).rejects.toMatchObject({ code: "resource_exhausted", reason: "too_many_webhooks" });
});

test.each([
  [{ url: "http://example.com/" }, "url"],
  [{ url: "https://example.com/\u0000" }, "url"],
  [{ url: "https://example.com/", description: "x".repeat(501) }, "description"],
  [{ url: "https://example.com/", eventTypes: ["campaign.finished", "campaign.ended"] }, "event_types[1]"],
])("%j is refused by its field", async (given, field) => {
  const refused = { code: "invalid_argument", fields: [{ field }] };
  await expect(fixture.webhooks.createWebhook({ projectId, ...given })).rejects.toMatchObject(refused);
  const { id } = await create({ url: "https://example.com/own" });
  const { eventTypes, ...rest } = { eventTypes: undefined, ...given };
  const change = { ...rest, ...(eventTypes === undefined ? {} : { eventTypes: { values: eventTypes } }) };
  await expect(fixture.webhooks.updateWebhook({ projectId, id, ...change })).rejects.toMatchObject(refused);
});
