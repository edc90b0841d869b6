/** Whatever a user gets wrong, the answer says where and how to mend it; and so does the command line. */
import type { RunningService } from "@tutelage/platform/process";
import { refusal } from "tutelage/api";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startCampaignsAndGateway } from "../support/campaignsgateway.js";
import { testDatabaseUrl } from "../support/database.js";
import { until } from "../support/waiting.js";
import { badCampaigns } from "./bad-campaigns.js";
import { badFiles } from "./bad-files.js";
import { askOf, maxImportBytes, ndjson } from "./bad-input-ask.js";
import { badRequests } from "./bad-requests.js";
import { campaignBody, type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
let campaigns: RunningService;
let gateway: RunningService;
const known = { url: "", campaignId: "", datasetsCursor: "" };
const ask = askOf(known);
const { api, importInto } = ask;

beforeAll(async () => {
  fixture = await startFixture();
  // Most campaigns are refused by the campaigns service: the real one, over the real datasets service.
  ({ campaigns, gateway } = await startCampaignsAndGateway({
    TUTELAGE_HOME: fixture.home,
    LOG_LEVEL: "fatal",
    DATABASE_URL: await testDatabaseUrl(),
    GATEWAY_MAX_IMPORT_BYTES: String(maxImportBytes),
    ...fixture.addresses,
  }));
  known.url = `http://${gateway.address}`;
  for (const name of ["good", "empty", "few", "overlap"]) await api().post("/v1/datasets").send({ name }).expect(201);
  const rows = (count: number) => Array.from({ length: count }, (_, index) => row(`text ${index}`, index % 2)).join("");
  const row = (input: string, label: number) =>
    `${JSON.stringify({ input, output: label === 0 ? "billing" : "returns" })}\n`;
  await importInto("good", "", ndjson, rows(8)).set("idempotency-key", "rows").expect(201);
  await importInto("few", "", ndjson, rows(3)).expect(201);
  await importInto("overlap", "", ndjson, rows(8)).expect(201);
  await importInto("overlap", "append=true&default_split=test", ndjson, row("TEXT 1", 1)).expect(201);
  const started = await api()
    .post("/v1/campaigns")
    .set("idempotency-key", "campaign")
    .send({ ...campaignBody, dataset: "good" })
    .expect(201);
  known.campaignId = started.body.run.id;
  known.datasetsCursor = (await api().get("/v1/datasets?limit=1").expect(200)).body.next_cursor;
  // Nobody stands in for its students and teacher.
  await until(async () => (await api().get(ask.campaign(""))).body.run.status === "failed");
}, 60_000);
afterAll(async () => {
  await gateway.stop();
  await campaigns.stop();
  await fixture.stop();
});

const cases = [...badFiles(ask), ...badRequests(ask), ...badCampaigns(ask)];

test("there are thirty kinds of mistakes and more", () => {
  expect(new Set(cases.map(([what]) => what)).size).toBeGreaterThanOrEqual(30);
});

test.each(cases)("%s", async (_what, ask, status, reason, field, fix) => {
  const answer = await ask();
  const { body } = answer;
  expect([answer.status, body.reason]).toEqual([status, reason]);
  expect(answer.headers["content-type"]).toContain("application/problem+json");
  expect(body).toMatchObject({ type: `urn:tutelage:problem:${reason}`, status, request_id: expect.any(String) });
  expect(body.errors.map((one: { field: string }) => one.field)).toEqual(field === "" ? [] : [field]);
  expect(`${body.detail} ${body.errors[0]?.message ?? ""}`).toMatch(fix);

  // What a user of the command line reads: one line, and one more only where a line of a file is named.
  const told = (await refusal(new Response(JSON.stringify(body), { status }))).message.split("\n");
  expect(told.length).toBe(reason === "rows_rejected" ? 2 : 1);
  expect(told.join(" ")).toMatch(fix);
  expect(told.at(-1)).toContain(field);
  expect(told.join("")).not.toMatch(/undefined|\[object|\{"|urn:/);
});
