/** A teacher's test that takes too long, whose caller leaves, or whose gateway dies: the gateway before a real teacher service. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gatewaySettings, start as startGateway } from "@tutelage/gateway/start";
import type { RunningService } from "@tutelage/platform/process";
import { start as startTeacher, settings as teacherSettings } from "@tutelage/teacher/start";
import pg from "pg";
import request from "supertest";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { recordingLog } from "../support/routes.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { until } from "../support/waiting.js";
import { log } from "./gateway-fixture.js";

const testMs = 1_500;
let home: string;
let server: TeacherServer;
let teacher: RunningService;
let gateway: RunningService;
let admin: pg.Client;
let environment: NodeJS.ProcessEnv;

const runsLeft = async () => (await admin.query("select idempotency_key from teacher.runs")).rows;
const path = "/v1/profiles/teachers/slow/test";

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-profile-limits-"));
  server = await startTeacherServer({ behave: () => ({ kind: "hang" }) });
  const profiles = join(home, "profiles.yaml");
  await writeFile(
    profiles,
    `profiles:
  - name: slow
    provider: openai-compatible
    model: test-model
    base_url: ${server.url}
    timeout_ms: 120000
    prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }
`,
  );
  const databaseUrl = await testDatabaseUrl();
  const shared = { TUTELAGE_HOME: home, LOG_LEVEL: "fatal" };
  teacher = await startTeacher(
    config(teacherSettings, {
      ...shared,
      DATABASE_URL: databaseUrl,
      TEACHER_LISTEN: "127.0.0.1:0",
      TEACHER_PROFILES: profiles,
    }),
    { log, timing: { leaseMs: 2_000, heartbeatMs: 300, pollMs: 50 } },
  );
  environment = {
    ...shared,
    TEACHER_ADDRESS: teacher.address,
    GATEWAY_LISTEN: "127.0.0.1:0",
    GATEWAY_PROFILE_TEST_MS: String(testMs),
  };
  gateway = await startGateway(config(gatewaySettings, environment), recordingLog());
  admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
}, 60_000);
afterEach(async () => {
  await admin.query("truncate teacher.ledger");
});
afterAll(async () => {
  await admin?.end();
  await gateway?.stop();
  await teacher?.stop();
  await server?.stop();
  await rm(home, { recursive: true, force: true });
});

test("a teacher that is too slow is named as such, with the call that was given up and what it may have cost", async () => {
  const { body } = await request(`http://${gateway.address}`).post(path).send({}).expect(200);
  expect(body).toMatchObject({ ok: false, error: { code: "profile_test_timed_out" } });
  expect(body.error.message).toContain("1.5 s");
  expect(body.calls).toHaveLength(1);
  const [call] = body.calls;
  expect(call).toMatchObject({ status: "failed", error_code: "call_stopped", completion_tokens: 1_024 });
  expect(call.cost_micro_usd).toBe(call.prompt_tokens + 2 * call.completion_tokens);
  expect(await runsLeft()).toEqual([]);
}, 30_000);

test("the run of a caller who leaves is stopped and deleted", async () => {
  const before = server.calls.length;
  const leaving = new AbortController();
  const asked = fetch(`http://${gateway.address}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
    signal: leaving.signal,
  });
  await until(async () => server.calls.length > before);
  leaving.abort();
  await expect(asked).rejects.toThrow();
  await until(async () => (await runsLeft()).length === 0);
  const { rows } = await admin.query("select status from teacher.ledger");
  expect(rows).toEqual([{ status: "failed" }]);
}, 30_000);

test("what a dead gateway left is swept up by the next one, but not a test that may still be under way", async () => {
  const put = async (key: string, seconds: number) =>
    await admin.query(
      `insert into teacher.runs (id, project_id, idempotency_key, request, request_sha256, state, status, created_at)
       values (gen_random_uuid(), 'default', $1, '{}', '', '{}', 'SUCCEEDED', now() - $2 * interval '1 second')`,
      [key, seconds],
    );
  await put("profile-test/old/", 60);
  await put("profile-test/new/", 0);
  await put("campaign/step", 60);
  const next = await startGateway(config(gatewaySettings, environment), recordingLog());
  await until(async () => (await runsLeft()).length === 2);
  expect((await runsLeft()).map((one) => one.idempotency_key).sort()).toEqual(["campaign/step", "profile-test/new/"]);
  await next.stop();
}, 30_000);
