/** Webhooks over REST and from the command line, with the real campaigns service. */
import request from "supertest";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { until } from "../support/waiting.js";
import { startReceiver, type WebhookReceiver } from "../support/webhook-receiver.js";
import { type CliFixture, startCliFixture } from "./cli-fixture.js";

const slow = 180_000;
let fixture: CliFixture;
let receiver: WebhookReceiver;
const api = () => request(fixture.url);

beforeAll(async () => {
  fixture = await startCliFixture();
}, slow);
afterAll(() => fixture?.stop(), slow);
beforeEach(async () => {
  receiver = await startReceiver();
});
afterEach(() => receiver.stop());

test("a webhook is made, tried, looked at, changed, given another secret, and removed", { timeout: slow }, async () => {
  const made = await api()
    .post("/v1/webhooks")
    .send({ url: receiver.url, event_types: ["campaign.finished"] })
    .expect(201);
  const { webhook, secret } = made.body;
  const path = `/v1/webhooks/${webhook.id}`;
  expect(made.headers.location).toBe(path);
  expect(webhook).toMatchObject({
    url: receiver.url,
    description: "",
    event_types: ["campaign.finished"],
    enabled: true,
    disabled_reason: "",
    pending_deliveries: 0,
    dead_deliveries: 0,
  });
  expect((await api().get(path).expect(200)).body).toEqual(webhook);
  expect((await api().get("/v1/webhooks").expect(200)).body).toEqual({ webhooks: [webhook] });

  const tried = (await api().post(`${path}/test`).expect(202)).body;
  expect(tried).toMatchObject({ type: "webhook.test", status: "pending", campaign_id: "", sequence: 0 });
  await until(() => receiver.received.length === 1);
  expect(receiver.received[0]?.id).toBe(tried.id);
  expect(receiver.isSigned(receiver.received[0] as never, secret)).toBe(true);
  const delivered = async (query: string) => (await api().get(`${path}/deliveries${query}`).expect(200)).body;
  await until(async () => (await delivered("?status=delivered")).deliveries.length === 1);
  expect(await delivered("?status=dead")).toEqual({ deliveries: [], next_cursor: "" });
  const whole = (await api().get(`${path}/deliveries/${tried.id}`).expect(200)).body;
  expect(whole).toMatchObject({
    id: tried.id,
    status: "delivered",
    attempts: 1,
    last_http_status: 204,
    last_error: "",
  });
  expect(whole.body).toBe(receiver.received[0]?.text);

  expect((await api().post(`${path}/deliveries/${tried.id}/redeliver`).expect(202)).body.status).toBe("pending");
  await until(() => receiver.received.length === 2);
  expect(receiver.received[1]).toMatchObject({ id: tried.id, text: whole.body });
  expect((await api().post(`${path}/redeliver`).expect(202)).body).toEqual({ deliveries: 0 });

  const rotated = (await api().post(`${path}/rotate-secret`).send({}).expect(200)).body;
  const until86400 = Date.parse(rotated.webhook.previous_secret_until) - Date.now();
  expect(until86400).toBeGreaterThan(86_000_000);
  await api().post(`${path}/test`).expect(202);
  await until(() => receiver.received.length === 3);
  for (const one of [secret, rotated.secret]) {
    expect(receiver.isSigned(receiver.received[2] as never, one)).toBe(true);
  }

  const off = (await api().patch(path).send({ enabled: false, description: "mine", event_types: [] }).expect(200)).body;
  expect(off).toMatchObject({ enabled: false, disabled_reason: "by_user", description: "mine", event_types: [] });
  const refused = (await api().post(`${path}/test`).expect(409)).body;
  expect(refused).toMatchObject({ reason: "webhook_disabled", detail: expect.stringMatching(/enable it first/) });
  await api().delete(path).expect(204);
  expect((await api().get(path).expect(404)).body.reason).toBe("webhook_not_found");
});

test("what is wrong is named, with the fix", { timeout: slow }, async () => {
  const post = (body: object) => api().post("/v1/webhooks").send(body);
  const taken = (await post({ url: receiver.url }).expect(201)).body.webhook;
  for (const [ask, status, reason, field, fix] of [
    [() => post({}), 400, "invalid_request", "url", /is missing/],
    [() => post({ url: "http://example.com/" }), 400, "invalid_argument", "url", /use https/],
    [() => post({ url: receiver.url }), 409, "webhook_url_taken", "url", /change that one/],
    [
      () => post({ url: "https://example.com/", event_types: ["campaign.finish"] }),
      400,
      "invalid_argument",
      "event_types[0]",
      /did you mean "campaign.finished"/,
    ],
    [() => api().patch(`/v1/webhooks/${taken.id}`).send({ enbled: true }), 400, "invalid_request", "enbled", /enabled/],
    [() => api().get(`/v1/webhooks/${taken.id}/deliveries?status=lost`), 400, "invalid_request", "status", /dead/],
    [() => api().get(`/v1/webhooks/${taken.id}/deliveries?cursor=x`), 400, "cursor_invalid", "cursor", /without one/],
    [
      () => api().post(`/v1/webhooks/${taken.id}/rotate-secret`).send({ overlap_seconds: -1 }),
      400,
      "invalid_request",
      "overlap_seconds",
      /0/,
    ],
  ] as const) {
    const { body } = await ask()
      .expect(status)
      .expect("content-type", /problem\+json/);
    expect(body).toMatchObject({ reason, errors: [{ field, message: expect.stringMatching(fix) }] });
  }
});

test("a campaign's events reach a receiver that was named on the command line", { timeout: slow }, async () => {
  const run = async (...args: string[]) => {
    const told = await fixture.tutelage("--json", "webhooks", ...args);
    expect(told.code, told.told).toBe(0);
    return JSON.parse(told.out);
  };
  const created = await run("create", receiver.url, "--event", "campaign.queued", "--event", "campaign.failed");
  const { id } = created.webhook;
  expect(created.secret).toMatch(/^whsec_/);
  expect((await run("list")).map((one: { id: string }) => one.id)).toContain(id);
  receiver.behave = () => ({ status: 410 });

  const records = Array.from(
    { length: 40 },
    (_, index) => `message ${index},${index % 2 === 0 ? "billing" : "delivery"}`,
  );
  await fixture.put("rows.csv", `text,label\n${records.join("\n")}\n`);
  await fixture.put(
    "campaign.yaml",
    `name: told\ndata: {train: rows.csv, columns: {input: text, output: label}}
task: {kind: classification, prompt_template: "Text: {input}\\nIt is about", labels: [billing, delivery]}
settings: {preflight: false}\n`,
  );
  const campaign = await fixture.tutelage("--json", "run", "campaign.yaml");
  expect(campaign.code, campaign.told).toBe(1);
  const campaignId = JSON.parse(campaign.out).run.id;

  // The receiver is gone; then it is back, and what is dead and what waited is sent.
  await until(async () => (await run("show", id)).disabled_reason === "gone");
  await until(async () => (await run("deliveries", id, "--campaign", campaignId)).length === 2);
  receiver.behave = () => ({ status: 200 });
  expect(await run("update", id, "--to", `${receiver.url}/2`, "--description", "again", "--enable")).toMatchObject({
    url: `${receiver.url}/2`,
    description: "again",
    enabled: true,
    event_types: ["campaign.queued", "campaign.failed"],
  });
  await run("redeliver", id);
  await until(async () => (await run("deliveries", id, "--status", "delivered")).length === 2, 60_000);
  const got = receiver.received.slice(-2);
  expect(got.map(({ body }) => [body.type, body.data.campaign_id]).sort()).toEqual([
    ["campaign.failed", campaignId],
    ["campaign.queued", campaignId],
  ]);
  expect(got.find(({ body }) => body.type === "campaign.failed")?.body.data.payload).toMatchObject({
    code: "disk_full",
  });

  const [delivery] = await run("deliveries", id, "--limit", "1");
  await run("redeliver", id, delivery.id);
  await run("test", id);
  await until(() => receiver.received.filter(({ path }) => path === "/hook/2").length >= 4);
  expect((await run("rotate-secret", id, "--overlap", "0")).secret).toMatch(/^whsec_/);
  for (const wrong of [
    ["rotate-secret", id, "--overlap", "soon"],
    ["update", id, "--enable", "--disable"],
  ])
    expect((await fixture.tutelage("webhooks", ...wrong)).code).toBe(64);
  const text = await fixture.tutelage("webhooks", "list");
  expect(text.out).toContain(receiver.url);
  expect(text.out).not.toContain("whsec_");
  expect(await run("delete", id)).toEqual({ deleted: id });
  const gone = await fixture.tutelage("webhooks", "show", id);
  expect([gone.code, gone.told]).toEqual([65, expect.stringMatching(/no webhook/)]);
});
