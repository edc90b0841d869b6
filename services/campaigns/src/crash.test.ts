/** Events and their deliveries while the service is killed again and again. */
import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeliveryStatus } from "@tutelage/proto/campaigns/v1/webhooks";
import { expect, test } from "vitest";
import { until } from "../../../tests/support/waiting.js";
import { startReceiver } from "../../../tests/support/webhook-receiver.js";
import { startFixture } from "./service.fixture.js";

test("after kill -9 no event is missing, and each reaches its receiver", { timeout: 120_000 }, async () => {
  const fixture = await startFixture();
  const receiver = await startReceiver();
  const home = await mkdtemp(join(tmpdir(), "tutelage-campaigns-crash-"));
  const projectId = `p-${randomUUID()}`;
  /** The service with its worker; nobody answers what it asks of others, so its campaigns go on waiting. */
  const startProcess = async (): Promise<ChildProcess> => {
    const nowhere = "127.0.0.1:9";
    const child = fork(createRequire(import.meta.url).resolve("@tutelage/campaigns/main"), {
      env: {
        ...process.env,
        TUTELAGE_HOME: home,
        DATABASE_URL: fixture.database.url,
        CAMPAIGNS_LISTEN: "127.0.0.1:0",
        DATASETS_ADDRESS: nowhere,
        TRAINING_ADDRESS: nowhere,
        EVALUATION_ADDRESS: nowhere,
        TEACHER_ADDRESS: nowhere,
        LOG_LEVEL: "fatal",
      },
      execArgv: [],
    });
    await once(child, "message");
    return child;
  };
  const kill = async (child: ChildProcess) => {
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const emit = (campaignId: string) =>
    fixture.database.drizzle.transaction((transaction) =>
      fixture.store.putEvent(transaction, { projectId, campaignId }, "phase.started", {}),
    );

  const { webhook } = await fixture.webhooks.createWebhook({ projectId, url: receiver.url });
  const webhookId = webhook?.id ?? "";
  const undelivered = async () => {
    const { deliveries } = await fixture.webhooks.listDeliveries({ projectId, webhookId, pageSize: 1_000 });
    return deliveries.filter(({ status }) => status !== DeliveryStatus.DELIVERED);
  };
  receiver.behave = () => "hang";
  const campaigns = await Promise.all(Array.from({ length: 3 }, () => fixture.put({ projectId })));
  // Killed while it waits for the receiver's answer.
  const first = await startProcess();
  await until(() => receiver.received.length > 0);
  await kill(first);
  await Promise.all(campaigns.flatMap((campaignId) => Array.from({ length: 5 }, () => emit(campaignId))));
  // Killed between deliveries, while it begins campaigns anew.
  receiver.behave = () => ({ status: 200 });
  const before = receiver.received.length;
  const second = await startProcess();
  await until(() => receiver.received.length > before + 3);
  await kill(second);
  const third = await startProcess();
  const typesOf = async (campaignId: string) =>
    (await fixture.store.events({ projectId, campaignId }, 0, 1_000)).map(({ type }) => type);
  for (const campaignId of campaigns) {
    await until(async () => (await typesOf(campaignId)).includes("campaign.taken_over"), 30_000);
    await fixture.client.cancelCampaign({ projectId, id: campaignId });
    await until(async () => (await typesOf(campaignId)).at(-1) === "campaign.cancelled", 30_000);
  }
  await until(async () => (await undelivered()).length === 0, 60_000);

  for (const campaignId of campaigns) {
    const stored = await fixture.store.events({ projectId, campaignId }, 0, 1_000);
    const sequences = stored.map(({ sequence }) => sequence);
    expect(sequences).toEqual(sequences.map((_, index) => index + 1));
    const types = stored.map(({ type }) => type);
    expect(types.filter((type) => type === "campaign.queued")).toHaveLength(1);
    expect(types.filter((type) => type === "campaign.started")).toHaveLength(1);
    expect(types.filter((type) => type === "campaign.cancelling")).toHaveLength(1);
    expect(types.at(-1)).toBe("campaign.cancelled");
    const own = receiver.received.filter(({ body }) => body.data.campaign_id === campaignId);
    const received = new Set(own.map(({ body }) => body.data.sequence));
    expect([...received].sort((a, b) => a - b)).toEqual(sequences);
  }
  // The same event came under one id, however often.
  const bodies = new Map(receiver.received.map(({ id, text }) => [id, text]));
  expect(receiver.received.every(({ id, text }) => bodies.get(id) === text)).toBe(true);
  expect(bodies.size).toBe(new Set(bodies.values()).size);

  third.kill("SIGTERM");
  await once(third, "exit");
  await receiver.stop();
  await fixture.stop();
  await rm(home, { recursive: true, force: true });
});
