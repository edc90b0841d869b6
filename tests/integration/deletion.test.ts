/**
 * A whole campaign deleted on the whole stack: every row of every table and
 * every file is counted, and nothing is left but what was paid, in numbers.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connect } from "@tutelage/platform/grpc";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import type { Stack } from "@tutelage/standalone/stack";
import { type CampaignView, call, type Trial } from "@tutelage/standalone/trial";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { task } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { type CampaignFixture, profiles, quick, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;
let stack: Stack;
let admin: pg.Client;
let first: Trial;
/** What was there before anything was asked. */
let empty: { tables: Record<string, number>; files: string[] };

beforeAll(async () => {
  // A second after its end a campaign's unnamed checkpoints are past their time; the look comes at the start.
  fixture = await startCampaignFixture({ environment: { CAMPAIGNS_KEEP_CHECKPOINTS_DAYS: "0.00001" } });
  ({ stack } = fixture);
  admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
  empty = { tables: await rowsPerTable(), files: await artifacts() };
}, slow);
afterAll(async () => {
  await admin?.end();
  await fixture?.stop();
}, slow);

const api = () => request(stack.url);

/** Rows of every table of every service, but for what is known of a teacher's endpoint: that is no project's. */
async function rowsPerTable(): Promise<Record<string, number>> {
  const { rows } = await admin.query<{ name: string }>(
    `select table_schema || '.' || table_name as name from information_schema.tables
     where table_schema in ('campaigns', 'datasets', 'training', 'evaluation', 'teacher')
       and not (table_schema = 'teacher' and table_name in ('breakers', 'senders')) order by 1`,
  );
  const counts: Record<string, number> = {};
  for (const { name } of rows) counts[name] = (await admin.query(`select count(*)::int as n from ${name}`)).rows[0].n;
  return counts;
}

/** Every file of the artifact store. */
async function artifacts(): Promise<string[]> {
  const folder = join(fixture.home, "artifacts");
  for (;;) {
    try {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      // A folder went while it was read: what is left is read anew. A store that nobody used is not there.
      if (!existsSync(folder)) return [];
    }
  }
}

async function usage() {
  const teacher = connect(TeacherServiceDefinition, stack.addresses.teacher);
  try {
    return await teacher.getProjectUsage({ projectId: "default" });
  } finally {
    teacher.close();
  }
}

async function restartCampaigns(): Promise<void> {
  const pid = stack.pidOf("campaigns") ?? 0;
  process.kill(pid, "SIGKILL");
  await until(() => stack.pidOf("campaigns") !== undefined && stack.pidOf("campaigns") !== pid, 30_000);
  await until(async () => (await api().get("/v1/campaigns")).status === 200, 30_000);
}

async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
  return await new Promise((resolve) => {
    execFile(process.execPath, [main, "--url", stack.url, ...args], (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === "number" ? error.code : 0, stdout, stderr }),
    );
  });
}

test(
  "a dataset whose version a campaign uses is refused, over REST and by the command, and what uses it is named",
  async () => {
    first = await fixture.trial("first", { seed: 1, iterations: 1 });
    const { id } = first.campaign.run;
    expect(first.iterations[0]?.accepted).toBeGreaterThan(0);
    const { body, headers } = await api().delete("/v1/datasets/first").expect(409);
    expect(headers["content-type"]).toContain("application/problem+json");
    expect(body).toMatchObject({
      status: 409,
      reason: "dataset_in_use",
      type: "urn:tutelage:problem:dataset_in_use",
      instance: "/v1/datasets/first",
      detail: expect.stringContaining(`campaign/${id}; dataset "campaign-${id}"`),
    });
    expect(body.errors.map((one: { field: string }) => one.field)).toEqual(["dataset", "dataset"]);
    // The campaign's own goes with the campaign, not alone.
    const own = await api().delete(`/v1/datasets/campaign-${id}`).expect(409);
    expect(own.body.errors[0].message).toBe(`belongs to campaign/${id}; it goes when that is deleted.`);
    const told = await cli("datasets", "delete", "first");
    expect(told.code).toBe(65);
    expect(told.stderr.split("\n")[0]).toContain(`campaign/${id}`);
    await api().get("/v1/datasets/first").expect(200);
  },
  slow,
);

test("what is not there is not found", async () => {
  const { body } = await api().delete("/v1/datasets/nowhere").expect(404);
  expect(body.reason).toBe("dataset_not_found");
  for (const id of ["7", crypto.randomUUID()]) {
    expect((await api().delete(`/v1/campaigns/${id}`).expect(404)).body.reason).toBe("campaign_not_found");
  }
  await api().delete("/v1/datasets/no%20name").expect(400);
});

test(
  "a campaign that runs is refused, and one whose dataset another campaign uses, however that one ended",
  async () => {
    const { id } = first.campaign.run;
    const own = await call<{ latest_version_id: string }>(stack, "GET", `/v1/datasets/campaign-${id}`);
    const { body } = await api()
      .post("/v1/campaigns")
      .send({
        name: "second",
        dataset_version_id: own.latest_version_id,
        task,
        settings: { ...quick, seed: 2 },
        student_profile: profiles.studentProfile,
        teacher_profile: profiles.teacherProfile,
      })
      .expect(201);
    const second = body.run.id;
    const view = () => call<CampaignView>(stack, "GET", `/v1/campaigns/${second}`);
    await until(async () => (await view()).phase === "cross_fit", 60_000);
    const running = await api().delete(`/v1/campaigns/${second}`).expect(409);
    expect(running.body).toMatchObject({
      reason: "campaign_running",
      detail: expect.stringContaining("cancel it first"),
    });
    const refused = async () => {
      const { body: problem } = await api().delete(`/v1/campaigns/${id}`).expect(409);
      expect(problem).toMatchObject({
        reason: "dataset_in_use",
        detail: expect.stringContaining(`campaign/${second}`),
      });
      // Refused means untouched: it is seen as before.
      expect((await call<CampaignView>(stack, "GET", `/v1/campaigns/${id}`)).run.status).toBe("succeeded");
    };
    await refused();
    await api().post(`/v1/campaigns/${second}/cancel`).expect(200);
    await until(async () => (await view()).run.status === "cancelled", 30_000);
    await refused();
    const removal = await cli("campaigns", "delete", second, "--json");
    expect(JSON.parse(removal.stdout).removed).toMatchObject({ campaigns: 1, datasets: 1 });
    expect(JSON.parse(removal.stdout).removed.training_runs).toBeGreaterThan(0);
    const again = await cli("campaigns", "delete", second);
    expect([again.code, again.stderr]).toEqual([65, expect.stringContaining("no campaign")]);
  },
  slow,
);

test(
  "past their time the checkpoints go that no outcome names; those of the outcome stay and answer",
  async () => {
    const { id } = first.campaign.run;
    const { rows } = await admin.query(
      "select id, idempotency_key as key from training.runs where starts_with(idempotency_key, $1)",
      [`${id}/`],
    );
    const hasFiles = async (runId: string) => (await artifacts()).some((path) => path.includes(`/runs/${runId}/`));
    const crossFit = rows.filter((row) => row.key.includes("/cross_fit/"));
    const named = rows.filter((row) => /iteration\/\d+\/train$/.test(row.key));
    expect([crossFit.length, named.length]).toEqual([2, 2]);
    for (const row of crossFit) expect(await hasFiles(row.id)).toBe(true);
    await restartCampaigns();
    await until(async () => !(await hasFiles(crossFit[0].id)) && !(await hasFiles(crossFit[1].id)), 30_000);
    for (const row of named) expect(await hasFiles(row.id)).toBe(true);
    for (const arm of [first.outcome.baseline, first.outcome.final])
      expect(await hasFiles(arm.training_run_id)).toBe(true);
    await api()
      .post(`/v1/campaigns/${id}/predict`)
      .send({ inputs: ["how many legs ?"] })
      .expect(200);
    await api().get(`/v1/campaigns/${id}/report`).expect(200);
    await api().get(`/v1/campaigns/${id}/model`).expect(200);
  },
  slow,
);

test(
  "killed in the middle of its deletion a campaign is not seen, and a second call removes all the rest",
  async () => {
    const { id } = first.campaign.run;
    const paid = await usage();
    expect(paid.calls).toBeGreaterThan(0);
    expect(paid.costMicroUsd).toBeGreaterThan(0);
    // The deletion comes as far as the evaluation runs: dataset and training runs are gone by then.
    const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
    await blocker.connect();
    await blocker.query("begin");
    await blocker.query("lock table evaluation.predictions in share mode");
    const dying = api()
      .delete(`/v1/campaigns/${id}`)
      .then(({ status }) => status);
    const waiting =
      "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike 'delete from%predictions%'";
    await until(async () => (await admin.query(waiting)).rowCount !== 0, 60_000);
    await restartCampaigns();
    expect(await dying).toBeGreaterThanOrEqual(500);
    await blocker.query("rollback");
    await blocker.end();
    const half = await rowsPerTable();
    expect([half["campaigns.runs"], half["training.runs"], half["datasets.datasets"]]).toEqual([1, 0, 1]);
    expect(half["campaigns.steps"]).toBeGreaterThan(0);
    for (const path of ["", "/iterations", "/candidates", "/report", "/events"])
      await api().get(`/v1/campaigns/${id}${path}`).expect(404);
    expect((await api().get("/v1/campaigns").expect(200)).body.campaigns).toEqual([]);
    expect((await api().get(`/v1/datasets/campaign-${id}`)).status).toBe(404);

    // An id in capitals is the same id: nothing that is named by it may stay.
    const { body } = await api().delete(`/v1/campaigns/${id.toUpperCase()}`).expect(200);
    expect(body.removed).toMatchObject({ campaigns: 1, generation_runs: expect.any(Number) });
    for (const kind of ["steps", "iterations", "candidates", "seed_grades", "events", "teacher_calls"])
      expect(body.removed[kind], kind).toBeGreaterThan(0);
    await api().delete(`/v1/campaigns/${id}`).expect(404);
    // Nothing holds the user's rows any more.
    const deleted = await cli("datasets", "delete", "first");
    expect([deleted.code, deleted.stderr]).toEqual([0, ""]);
    expect(deleted.stdout).toMatch(/dataset versions +1\nrows +44\n/);

    const left = await rowsPerTable();
    // Calls, tokens and money, and seconds of training: what the project used this month.
    // And of both campaigns an id and a number: a holder that hung until now starts nothing for them anew.
    // The one that was cancelled had or had not come to an evaluation.
    const evaluated = left["evaluation.owner_fences"];
    expect([1, 2]).toContain(evaluated);
    const accounts = {
      "teacher.ledger": paid.calls,
      "teacher.month_spending": 3,
      "training.month_spending": 1,
      "teacher.owner_fences": 2,
      "training.owner_fences": 2,
      "evaluation.owner_fences": evaluated,
    };
    expect(left).toEqual({ ...empty.tables, ...accounts });
    expect(await artifacts()).toEqual(empty.files);
    // What was reused is counted in the results, which are gone.
    const { reusedCalls: _, savedMicroUsd: __, ...account } = await usage();
    expect(paid).toMatchObject(account);
    const { body: paidInAll } = await api().get("/v1/usage").expect(200);
    expect(paidInAll).toMatchObject({ calls: paid.calls, cost_micro_usd: paid.costMicroUsd });
    expect((await cli("usage")).stdout).toMatch(new RegExp(`^${paid.calls} calls `));
    // No word of the teacher's, of the user's or about the task is left in the numbers.
    const { rows } = await admin.query("select l::text as text from teacher.ledger l");
    for (const { text } of rows) expect(text).not.toMatch(/Question|Class|NUM|LOC|ground|train \d/);
  },
  slow,
);

test("the routes are in the OpenAPI document with what they answer", async () => {
  const { body } = await api().get("/docs/json").expect(200);
  for (const path of ["/v1/datasets/{dataset}", "/v1/campaigns/{campaign}"]) {
    const content = body.paths[path].delete.responses["200"].content["application/json"];
    expect(content.schema).toEqual({ $ref: "#/components/schemas/Removal" });
  }
});
