/** Deliveries to a receiver that fails in every way. */
import { setTimeout as sleep } from "node:timers/promises";
import { DeliveryStatus } from "@tutelage/proto/campaigns/v1/webhooks";
import { expect, test } from "vitest";
import { until } from "../../../tests/support/waiting.js";
import { startReceiver } from "../../../tests/support/webhook-receiver.js";
import {
  create,
  dispatch,
  emit,
  fixture,
  isSending,
  listed,
  pass,
  projectId,
  queue,
  receiver,
  secondsUntil,
  startForEachTest,
  stops,
} from "./webhooks.fixture.js";

startForEachTest();

test("an event arrives signed, with an id of its own; the secret is given once", async () => {
  dispatch();
  const { id, secret } = await create();
  const campaignId = await queue();
  await until(() => receiver.received.length === 1);
  const [got] = receiver.received;
  if (got === undefined) throw new Error("unreachable");
  expect(receiver.isSigned(got, secret)).toBe(true);
  expect(Math.abs(got.timestamp - Date.now() / 1_000)).toBeLessThan(60);
  expect(got.body).toEqual({
    type: "campaign.queued",
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    data: { project_id: projectId, campaign_id: campaignId, sequence: 1, payload: { name: "" } },
  });
  await until(async () => (await listed(id))[0]?.status === DeliveryStatus.DELIVERED);
  const [delivery] = await listed(id);
  expect(delivery).toMatchObject({ id: got.id, campaignId, sequence: 1, attempts: 1, lastHttpStatus: 204, body: "" });
  expect(await fixture.webhooks.getDelivery({ projectId, webhookId: id, id: got.id })).toMatchObject({
    body: got.text,
  });
  const shown = JSON.stringify([
    await fixture.webhooks.getWebhook({ projectId, id }),
    await fixture.webhooks.listWebhooks({ projectId }),
    await fixture.webhooks.updateWebhook({ projectId, id, description: "mine" }),
    await listed(id),
  ]);
  expect(shown).not.toContain(secret.slice("whsec_".length));
});

test("only what a webhook wants is sent, nothing of another project, and nothing that was rolled back", async () => {
  dispatch();
  const { id } = await create({ eventTypes: ["campaign.finished", "campaign.cancelled"] });
  const campaignId = await queue();
  await emit(campaignId, "phase.started");
  await queue("another");
  const rolledBack = fixture.database.drizzle.transaction(async (transaction) => {
    await fixture.store.putEvent(transaction, { projectId, campaignId }, "campaign.finished", {});
    throw new Error("rolled back");
  });
  await expect(rolledBack).rejects.toThrow("rolled back");
  await fixture.client.cancelCampaign({ projectId, id: campaignId });
  await until(() => receiver.received.length > 0);
  await fixture.webhooks.updateWebhook({ projectId, id, eventTypes: { values: [] } });
  await queue();
  await until(() => receiver.received.length > 1);
  expect(receiver.received.map(({ body }) => body.type)).toEqual(["campaign.cancelled", "campaign.queued"]);
  expect(receiver.received[0]?.body.data.sequence).toBe(3);
});

test("what fails is tried again, under the same id and with the same body", async () => {
  dispatch({ timeoutMs: 300 });
  const { id, secret } = await create();
  const failures = [{ status: 500 }, "reset", "hang", { status: 404 }] as const;
  receiver.behave = () => failures[receiver.received.length - 1] ?? { status: 200 };
  await queue();
  const errors = ["HTTP 500", "cannot be reached: ", "no answer within 0.3 s", "HTTP 404"];
  for (const [index, error] of errors.entries()) {
    await until(async () => (await listed(id))[0]?.lastError.startsWith(error) ?? false);
    const [delivery] = await listed(id);
    expect(delivery).toMatchObject({ status: DeliveryStatus.PENDING, attempts: index + 1 });
    const delay = 5 * 3 ** index;
    expect(secondsUntil(delivery?.dueAt)).toBeGreaterThan(0.7 * delay - 1);
    expect(secondsUntil(delivery?.dueAt)).toBeLessThan(1.2 * delay + 1);
    await pass(1.2 * delay);
  }
  await until(async () => (await listed(id))[0]?.status === DeliveryStatus.DELIVERED);
  expect((await listed(id))[0]).toMatchObject({ attempts: 5, lastError: "", lastHttpStatus: 200, dueAt: undefined });
  expect(new Set(receiver.received.map((got) => got.id)).size).toBe(1);
  expect(new Set(receiver.received.map((got) => got.text)).size).toBe(1);
  expect(receiver.received.every((got) => receiver.isSigned(got, secret))).toBe(true);
});

test("receivers that hang keep no other one waiting, and a body that never ends is no failure", async () => {
  const others = await Promise.all(Array.from({ length: 40 }, () => startReceiver()));
  stops.push(...others.map(({ stop }) => stop));
  dispatch({ timeoutMs: 5_000 });
  for (const hanging of others) {
    hanging.behave = () => "hang";
    await create({ url: hanging.url });
  }
  receiver.behave = () => "hang-after-status";
  const { id } = await create();
  const campaignId = await queue();
  // More than the process has room for, of each receiver.
  for (let count = 0; count < 20; count++) await emit(campaignId);
  const startedAt = Date.now();
  await until(async () => (await listed(id)).every(({ status }) => status === DeliveryStatus.DELIVERED));
  expect(Date.now() - startedAt).toBeLessThan(4_000);
  expect(receiver.received).toHaveLength(21);
  for (const hanging of others) expect(hanging.received).toHaveLength(2);
});

test("a receiver that is gone is asked no more; switched on again it gets what waits", async () => {
  dispatch();
  const { id } = await create();
  receiver.behave = () => ({ status: 410 });
  const campaignId = await queue();
  await until(async () => (await listed(id))[0]?.status === DeliveryStatus.DEAD);
  expect((await listed(id))[0]).toMatchObject({ lastHttpStatus: 410, lastError: "HTTP 410: the receiver is gone" });
  expect(await fixture.webhooks.getWebhook({ projectId, id })).toMatchObject({
    enabled: false,
    disabledReason: "gone",
    deadDeliveries: 1,
  });
  await emit(campaignId);
  await sleep(200);
  expect(receiver.received).toHaveLength(1);
  const [, dead] = await listed(id);
  const refused = { code: "failed_precondition", reason: "webhook_disabled" };
  await expect(fixture.webhooks.testWebhook({ projectId, id })).rejects.toMatchObject(refused);
  await expect(fixture.webhooks.redeliverDead({ projectId, webhookId: id })).rejects.toMatchObject(refused);
  receiver.behave = () => ({ status: 200 });
  await fixture.webhooks.updateWebhook({ projectId, id, enabled: true });
  await until(() => receiver.received.length === 2);
  await fixture.webhooks.redeliver({ projectId, webhookId: id, id: dead?.id ?? "" });
  await until(() => receiver.received.length === 3);
  expect(receiver.received[2]).toMatchObject({ id: receiver.received[0]?.id, text: receiver.received[0]?.text });
});

test.each([429, 503])("who answers %i with Retry-After is asked for nothing before that", async (status) => {
  dispatch();
  const { id } = await create();
  receiver.behave = () =>
    receiver.received.length === 1 ? { status, headers: { "retry-after": "1000" } } : { status: 200 };
  const campaignId = await queue();
  await until(async () => (await listed(id))[0]?.lastHttpStatus === status);
  expect(secondsUntil((await listed(id))[0]?.dueAt)).toBeGreaterThan(990);
  expect(secondsUntil((await fixture.webhooks.getWebhook({ projectId, id })).pausedUntil)).toBeGreaterThan(990);
  await emit(campaignId);
  await sleep(200);
  expect(receiver.received).toHaveLength(1);
  await pass(1_000);
  await until(() => receiver.received.length === 3);
});

test("what fails for a day is dead, can be looked at, and sent again", async () => {
  dispatch();
  const { id } = await create();
  receiver.behave = () => ({ status: 500 });
  const campaignId = await queue();
  for (let tries = 1; tries <= 12; tries++) {
    // A try counts when it begins; time that passed before its end would have it begin once more.
    await until(async () => (await listed(id))[0]?.attempts === tries && !(await isSending(id)));
    await pass(Math.ceil(secondsUntil((await listed(id))[0]?.dueAt)) + 1);
  }
  await pass(86_400);
  await until(async () => (await listed(id))[0]?.status === DeliveryStatus.DEAD);
  const { attempts } = (await listed(id))[0] ?? { attempts: 0 };
  expect(attempts).toBeGreaterThan(12);
  expect(attempts).toBeLessThan(20);
  await emit(campaignId);
  await pass(90_000);
  await until(async () => (await listed(id)).every(({ status }) => status === DeliveryStatus.DEAD));
  const dead = await fixture.webhooks.listDeliveries({ projectId, webhookId: id, status: DeliveryStatus.DEAD });
  expect(dead.deliveries.map(({ sequence, lastError }) => [sequence, lastError])).toEqual([
    [2, "HTTP 500"],
    [1, "HTTP 500"],
  ]);
  receiver.behave = () => ({ status: 200 });
  receiver.received.length = 0;
  expect(await fixture.webhooks.redeliverDead({ projectId, webhookId: id })).toEqual({ deliveries: 2 });
  await until(() => receiver.received.length === 2);
  expect(receiver.received.map((got) => got.id).sort()).toEqual(dead.deliveries.map((one) => one.id).sort());
  await until(async () => (await listed(id)).every(({ status }) => status === DeliveryStatus.DELIVERED));
});

test("a redirect is not followed", async () => {
  const elsewhere = await startReceiver();
  stops.push(elsewhere.stop);
  dispatch();
  const { id } = await create();
  receiver.behave = () => ({ status: 307, headers: { location: elsewhere.url } });
  await queue();
  await until(async () => (await listed(id))[0]?.lastHttpStatus === 307);
  expect((await listed(id))[0]?.lastError).toMatch(/redirects are not followed; set the URL/);
  await fixture.webhooks.updateWebhook({ projectId, id, url: `${elsewhere.url}/directly` });
  await pass(10);
  await until(() => elsewhere.received.length === 1);
  expect(elsewhere.received[0]?.path).toBe("/hook/directly");
});

test("two replicas deliver each of many events once when nothing fails", async () => {
  dispatch();
  dispatch();
  const { id } = await create();
  const campaigns = await Promise.all(Array.from({ length: 5 }, () => queue()));
  await Promise.all(campaigns.flatMap((campaignId) => Array.from({ length: 19 }, () => emit(campaignId))));
  await until(async () => (await listed(id)).every(({ status }) => status === DeliveryStatus.DELIVERED), 30_000);
  expect(receiver.received).toHaveLength(100);
  expect(new Set(receiver.received.map((got) => got.id)).size).toBe(100);
  for (const campaignId of campaigns) {
    const own = receiver.received.filter(({ body }) => body.data.campaign_id === campaignId);
    const sequences = own.map(({ body }) => body.data.sequence).sort((a, b) => a - b);
    expect(sequences).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  }
});

test("whoever stops gives back what he sends, and another sends it at once", async () => {
  const stop = dispatch();
  const { id } = await create();
  receiver.behave = () => "hang";
  await queue();
  await until(() => receiver.received.length === 1);
  await stop();
  receiver.behave = () => ({ status: 200 });
  dispatch();
  await until(async () => (await listed(id))[0]?.status === DeliveryStatus.DELIVERED, 5_000);
  expect((await listed(id))[0]?.attempts).toBe(1);
});

test("what a dead holder was sending is sent again when its claim has run out, and its late word is not taken", async () => {
  const { id } = await create();
  await queue();
  const claimed = await fixture.deliveries.claim(6_000, 2);
  if (claimed === undefined) throw new Error("nothing was due");
  dispatch();
  await sleep(200);
  expect(receiver.received).toHaveLength(0);
  receiver.behave = () => ({ status: 500 });
  await pass(6);
  await until(async () => (await listed(id))[0]?.lastHttpStatus === 500);
  await fixture.deliveries.delivered(claimed, 200);
  await fixture.deliveries.renew([claimed], 6_000);
  expect((await listed(id))[0]).toMatchObject({ status: DeliveryStatus.PENDING, attempts: 2 });
  expect(secondsUntil((await listed(id))[0]?.dueAt)).toBeGreaterThan(9);
});

test("a receiver that takes longer than a claim holds is not sent to twice", async () => {
  dispatch({ leaseMs: 300, renewMs: 50, timeoutMs: 1_500 });
  dispatch({ leaseMs: 300, renewMs: 50, timeoutMs: 1_500 });
  const { id } = await create();
  receiver.behave = () => "hang";
  await queue();
  await until(async () => (await listed(id))[0]?.lastError === "no answer within 1.5 s");
  expect(receiver.received).toHaveLength(1);
  // Settled, it is not renewed: it waits for its second try, not for the end of a claim.
  expect(secondsUntil((await listed(id))[0]?.dueAt)).toBeGreaterThan(2);
});

test("a try that was settled while its claim was renewed keeps the time of the next one", async () => {
  const { id } = await create();
  await queue();
  const claimed = await fixture.deliveries.claim(6_000, 2);
  if (claimed === undefined) throw new Error("nothing was due");
  await fixture.deliveries.failed(claimed, { httpStatus: 500, error: "HTTP 500", retryMs: 100_000 });
  await fixture.deliveries.renew([claimed], 6_000);
  expect(secondsUntil((await listed(id))[0]?.dueAt)).toBeGreaterThan(90);
});

test("what waits a day for a disabled webhook is given up, and what is past its time is removed", async () => {
  const { id } = await create();
  await fixture.webhooks.updateWebhook({ projectId, id, enabled: false });
  await queue();
  await fixture.deliveries.tidy(30);
  expect((await listed(id))[0]?.status).toBe(DeliveryStatus.PENDING);
  await pass(86_401);
  await fixture.deliveries.tidy(30);
  expect((await listed(id))[0]).toMatchObject({ status: DeliveryStatus.DEAD, lastError: "the webhook is disabled" });
  await pass(29 * 86_400);
  await fixture.deliveries.tidy(30);
  expect(await listed(id)).toHaveLength(1);
  await pass(2 * 86_400);
  await fixture.deliveries.tidy(30);
  expect(await listed(id)).toEqual([]);
});

test("the last event of a campaign that is deleted at once is delivered", async () => {
  const { id } = await create();
  const campaignId = await queue();
  const delivered = await fixture.deliveries.claim(6_000, 2);
  if (delivered === undefined) throw new Error("nothing was due");
  await fixture.deliveries.delivered(delivered, 200);
  await fixture.client.cancelCampaign({ projectId, id: campaignId });
  await fixture.deletions.hide({ projectId, campaignId });
  await fixture.deletions.remove({ projectId, campaignId });
  expect((await listed(id)).map(({ type }) => type)).toEqual(["campaign.cancelled"]);
  dispatch();
  await until(() => receiver.received.length === 1);
  expect(receiver.received[0]?.body.type).toBe("campaign.cancelled");
});
