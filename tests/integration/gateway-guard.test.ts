import { start } from "@tutelage/gateway/start";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, log, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
const api = () => request(fixture.url);

beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

test.each([
  ["a name that was rebound to 127.0.0.1", { host: "evil.example:8080" }, 403],
  ["a name that only looks like loopback", { host: "127.0.0.1.evil.example" }, 403],
  ["a page of another site", { origin: "https://evil.example" }, 403],
  ["a sandboxed page", { origin: "null" }, 403],
  ["a page of another server on this machine", { origin: "http://127.0.0.1:1" }, 403],
  ["localhost", { host: "localhost:8080" }, 201],
  ["the IPv6 loopback", { host: "[::1]:8080" }, 201],
] as const)("a request of %s (%j) is answered with %i", async (_who, headers, status) => {
  const call = api()
    .post("/v1/datasets")
    .send({ name: `d-${crypto.randomUUID()}` });
  for (const [name, value] of Object.entries(headers)) call.set(name, value);
  const { body } = await call.expect(status);
  if (status === 403) expect(body.reason).toMatch(/^(host_not_loopback|origin_not_allowed)$/);
});

test("the gateway's own pages may call it", async () => {
  await api().post("/v1/datasets").set("origin", fixture.url).send({ name: "own-page" }).expect(201);
});

test("a content type matters only where there is a body", async () => {
  await api().get("/v1/datasets").set("content-type", "text/plain").expect(200);
  await api()
    .post("/v1/datasets")
    .set("content-type", "Application/JSON; charset=utf-8")
    .send({ name: "typed" })
    .expect(201);
});

test("it refuses to listen beyond loopback", async () => {
  const config = { GATEWAY_LISTEN: "0.0.0.0:0" } as Parameters<typeof start>[0];
  await expect(start(config, log)).rejects.toThrow(/loopback/);
});

test("every answer carries its request id and keeps browsers from guessing", async () => {
  const given = await api().get("/health").set("x-request-id", "my-request.1").expect(200);
  expect(given.headers).toMatchObject({
    "x-request-id": "my-request.1",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'",
  });
  const made = await api().get("/nothing").set("x-request-id", "no good\tid").expect(404);
  expect(made.headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
  expect(made.body.request_id).toBe(made.headers["x-request-id"]);
});

test("the documentation is OpenAPI 3.1, names every route and shows the names of JSON", async () => {
  const { body } = await api().get("/docs/json").expect(200);
  expect(body.openapi).toBe("3.1.0");
  expect(Object.keys(body.paths)).toEqual(
    expect.arrayContaining([
      "/v1/datasets/{dataset}/import",
      "/v1/versions/{version}/export",
      "/v1/profiles/students",
      "/v1/campaigns/{campaign}/events",
      "/v1/campaigns/{campaign}/model",
      "/v1/campaigns/{campaign}/predict",
    ]),
  );
  const schemas = body.components.schemas;
  expect(schemas.Task.properties.kind.enum).toEqual([
    "classification",
    "multiple_choice",
    "math",
    "text",
    "extraction",
  ]);
  expect(schemas.TaskInput.properties.kind.enum).toEqual(schemas.Task.properties.kind.enum);
  expect(schemas.CampaignSettingsInput.properties.check_teacher.type).toBe("boolean");
  expect(schemas.Dataset.properties.created_at.format).toBe("date-time");
  await api()
    .get("/docs/")
    .expect(200, /swagger/i);
});

test("ready names the service that is not", async () => {
  await api().get("/ready").expect(200, { status: "ready" });
  await fixture.stopCampaigns();
  const { body } = await api().get("/ready").expect(503);
  expect(body).toMatchObject({ reason: "not_ready", errors: [{ field: "campaigns" }] });
  expect((await api().get("/v1/campaigns").expect(503)).body.reason).toBe("unavailable");
  await api().get("/health").expect(200, { status: "ok" });
});
