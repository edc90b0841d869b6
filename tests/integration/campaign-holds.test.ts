/**
 * What holds a campaign's version and what goes on with its deletion, at the
 * instants at which a process may die: the real campaigns and datasets
 * services, and stand-ins of the others that fail when a test wants it.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { settings as campaignsSettings, start as startCampaigns } from "@tutelage/campaigns/start";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { TutelageError } from "@tutelage/platform/errors";
import { connect, type RunningServer, serve, served } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { CampaignsServiceDefinition, StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { DatasetsServiceDefinition, FileFormat, ImportHeader } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { StopKind, type StopOwnedRunsRequest } from "@tutelage/proto/run/v1/owner";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { type DeleteTrainingRunsRequest, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import type { CompatServiceDefinition } from "nice-grpc";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { until } from "../support/waiting.js";
import { log } from "./gateway-fixture.js";

const projectId = "default";
// An interruption must be longer than a deletion takes on a busy machine, or the sweeper lends a hand.
const sweepTiming = { pauseMs: 100, interruptedMs: 1_500 };
const recipe = Recipe.fromPartial({ method: TuningMethod.LORA, epochs: 1, batchRows: 8, learningRate: 0.001 });

let home: string;
let databaseUrl: string;
let admin: pg.Client;
let datasets: RunningService;
let campaigns: RunningService;
let standIns: RunningServer[];
let addresses: Record<string, string | undefined>;
let client: ReturnType<typeof connect<CampaignsServiceDefinition>>;
let datasetsClient: ReturnType<typeof connect<DatasetsServiceDefinition>>;

/** What the stand-ins do, and were asked. */
const removed: DeleteTrainingRunsRequest[] = [];
let whileTeaching: (signal: AbortSignal) => Promise<never>;
let whileDeleting: () => Promise<void>;
let whileStopping: (request: StopOwnedRunsRequest) => Promise<{ stopping: number }>;
const allStopped = async () => ({ stopping: 0 });
const fails = async (): Promise<never> => {
  throw new TutelageError("failed_precondition", "The teacher is not for this test.", { reason: "no_teacher" });
};

function standIn<Definition extends CompatServiceDefinition>(definition: Definition, some: object) {
  const others = Object.keys(definition.methods).map((name) => [name, fails]);
  return served(definition, { ...Object.fromEntries(others), ...some } as never);
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-holds-"));
  databaseUrl = await testDatabaseUrl();
  const shared = { TUTELAGE_HOME: home, LOG_LEVEL: "fatal", DATABASE_URL: databaseUrl };
  datasets = await startDatasets(config(datasetsSettings, { ...shared, DATASETS_LISTEN: "127.0.0.1:0" }));
  const nothing = { counts: {}, artifactBytes: 0 };
  standIns = await Promise.all(
    [
      standIn(TrainingServiceDefinition, {
        listStudentProfiles: async () => ({ profiles: [{ name: "s", model: "file:/m", recipe }] }),
        deleteTrainingRuns: async (request: DeleteTrainingRunsRequest) => {
          removed.push(request);
          await whileDeleting();
          return { counts: { training_runs: 3 }, artifactBytes: 1_000 };
        },
      }),
      standIn(EvaluationServiceDefinition, { deleteEvaluationRuns: async () => nothing }),
      standIn(TeacherServiceDefinition, {
        listTeacherProfiles: async () => ({ profiles: [{ name: "t" }] }),
        startGenerationRun: (_: unknown, { signal }: { signal: AbortSignal }) => whileTeaching(signal),
        stopOwnedRuns: async (request: StopOwnedRunsRequest) => await whileStopping(request),
        deleteGenerationRuns: async () => nothing,
      }),
    ].map((service) => serve({ listen: "127.0.0.1:0", services: [service], log })),
  );
  addresses = {
    ...shared,
    DATASETS_ADDRESS: datasets.address,
    TRAINING_ADDRESS: standIns[0]?.address,
    EVALUATION_ADDRESS: standIns[1]?.address,
    TEACHER_ADDRESS: standIns[2]?.address,
    CAMPAIGNS_LISTEN: "127.0.0.1:0",
  };
  datasetsClient = connect(DatasetsServiceDefinition, datasets.address ?? "");
  admin = new pg.Client({ connectionString: databaseUrl });
  await admin.connect();
  whileTeaching = fails;
  whileDeleting = async () => {};
  whileStopping = allStopped;
  await startService();
});
afterEach(() => {
  whileTeaching = fails;
  whileDeleting = async () => {};
  whileStopping = allStopped;
  removed.length = 0;
});
afterAll(async () => {
  await stopService();
  datasetsClient?.close();
  await Promise.all((standIns ?? []).map((server) => server.stop(100)));
  await datasets?.stop();
  await admin?.end();
  await rm(home, { recursive: true, force: true });
});

async function startService(environment: NodeJS.ProcessEnv = {}) {
  campaigns = await startCampaigns(config(campaignsSettings, { ...addresses, ...environment }), { sweepTiming });
  client = connect(CampaignsServiceDefinition, campaigns.address ?? "");
}
async function stopService() {
  client?.close();
  await campaigns?.stop();
}

let made = 0;
/** A dataset with one version. */
async function dataset(): Promise<{ id: string; versionId: string }> {
  made += 1;
  const { id } = await datasetsClient.createDataset({ projectId, name: `data-${made}` });
  const header = { projectId, datasetId: id, format: FileFormat.JSONL, defaultSplit: Split.TRAIN };
  const rows = Array.from({ length: 6 }, (_, index) => ({
    input: `${made} text ${index}`,
    output: index % 2 ? "a" : "b",
  }));
  const chunk = Buffer.from(rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { version } = await datasetsClient.importRows(
    (async function* () {
      yield { part: { $case: "header" as const, value: ImportHeader.fromPartial(header) } };
      yield { part: { $case: "chunk" as const, value: chunk } };
    })(),
  );
  return { id, versionId: version?.id ?? "" };
}

const asked = (datasetId: string, idempotencyKey = "") =>
  StartCampaignRequest.fromPartial({
    projectId,
    idempotencyKey,
    name: "held",
    datasetId,
    studentProfile: "s",
    teacherProfile: "t",
    task: Task.fromPartial({
      name: "t",
      kind: TaskKind.CLASSIFICATION,
      promptTemplate: "{input} =>",
      labels: [{ name: "a" }, { name: "b" }],
    }),
  });

const start = async (datasetId: string, key?: string) =>
  (await client.startCampaign(asked(datasetId, key))).run?.id ?? "";
const statusOf = async (id: string) => (await client.getCampaign({ projectId, id })).run?.status;
const failed = (id: string) => until(async () => (await statusOf(id)) === RunStatus.FAILED);
/** Holds of a version: who, and whether the hold ends by itself. */
const holds = async (versionId: string) =>
  (
    await admin.query("select holder, expires_at is not null as ends from datasets.holds where version_id = $1", [
      versionId,
    ])
  ).rows;
const exists = async (id: string) =>
  (await admin.query("select 1 from campaigns.runs where id = $1", [id])).rowCount === 1;

test("a started campaign holds its version until it is deleted, whatever became of it", async () => {
  const { id: datasetId, versionId } = await dataset();
  const id = await start(datasetId);
  expect(await holds(versionId)).toEqual([{ holder: `campaign/${id}`, ends: false }]);
  await failed(id);
  const gone = () => datasetsClient.deleteDataset({ projectId, id: datasetId });
  await expect(gone()).rejects.toMatchObject({
    reason: "dataset_in_use",
    message: expect.stringContaining(`campaign/${id}`),
  });
  expect((await client.deleteCampaign({ projectId, id })).counts).toMatchObject({ campaigns: 1, training_runs: 3 });
  expect(removed).toEqual([{ projectId, keyPrefix: `${id}/`, keepRunIds: [], checkpointsOnly: false }]);
  expect(await holds(versionId)).toEqual([]);
  await gone();
});

test("dead between hold and campaign: the hold ends by itself, and the same call then starts one", async () => {
  const { id: datasetId, versionId } = await dataset();
  await admin.query(`
    create function campaigns.die() returns trigger language plpgsql as $$ 
      begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
    create trigger die before insert on campaigns.runs for each row execute function campaigns.die()`);
  await expect(start(datasetId, "again")).rejects.toMatchObject({ code: "unavailable" });
  await admin.query("drop function campaigns.die() cascade");
  // A call that may come twice is tried again where the database is away; each try leaves its own.
  const left = await holds(versionId);
  expect(left.length).toBeGreaterThan(0);
  expect(left.filter(({ ends }) => !ends)).toEqual([]);
  const id = await start(datasetId, "again");
  await failed(id);
  await client.deleteCampaign({ projectId, id });
  // What the dead one left holds for its time, and then no more.
  await expect(datasetsClient.deleteDataset({ projectId, id: datasetId })).rejects.toMatchObject({
    reason: "dataset_in_use",
  });
  await admin.query("update datasets.holds set expires_at = now() where version_id = $1", [versionId]);
  await datasetsClient.deleteDataset({ projectId, id: datasetId });
  expect(await holds(versionId)).toEqual([]);
});

test("a campaign that the database refuses for sure leaves no hold", async () => {
  const { id: datasetId, versionId } = await dataset();
  await admin.query(`
    create function campaigns.refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
    create trigger refuse before insert on campaigns.runs for each row execute function campaigns.refuse()`);
  await expect(start(datasetId, "refused")).rejects.toMatchObject({ code: "internal" });
  await admin.query("drop function campaigns.refuse() cascade");
  expect(await holds(versionId)).toEqual([]);
  await datasetsClient.deleteDataset({ projectId, id: datasetId });
});

test("dead between campaign and confirmation: the sweeper confirms", async () => {
  const { id: datasetId, versionId } = await dataset();
  const id = await start(datasetId);
  await failed(id);
  await admin.query("update datasets.holds set expires_at = now() + interval '1 hour' where version_id = $1", [
    versionId,
  ]);
  await admin.query("update campaigns.runs set state = state - 'versionHeld' where id = $1", [id]);
  await until(async () => (await holds(versionId))[0]?.ends === false);
  await client.deleteCampaign({ projectId, id });
  expect(await holds(versionId)).toEqual([]);
});

test("calls with one key at the same time make one campaign and leave one hold", async () => {
  const { id: datasetId, versionId } = await dataset();
  const ids = await Promise.all(Array.from({ length: 5 }, () => start(datasetId, "together")));
  expect(new Set(ids).size).toBe(1);
  expect(await holds(versionId)).toEqual([{ holder: `campaign/${ids[0]}`, ends: false }]);
  await failed(ids[0] ?? "");
  await client.deleteCampaign({ projectId, id: ids[0] ?? "" });
});

test("a dataset that goes while a campaign begins is either held or not found", async () => {
  for (let round = 0; round < 5; round += 1) {
    const { id: datasetId, versionId } = await dataset();
    const [started, gone] = await Promise.allSettled([
      start(datasetId),
      datasetsClient.deleteDataset({ projectId, id: datasetId }),
    ]);
    expect([started.status, gone.status].sort()).toEqual(["fulfilled", "rejected"]);
    if (started.status === "rejected") expect(started.reason).toMatchObject({ code: "not_found" });
    else {
      expect(await holds(versionId)).toHaveLength(1);
      await failed(started.value);
      await client.deleteCampaign({ projectId, id: started.value });
    }
  }
});

test("one that runs or is being cancelled is refused, another project's is not found", async () => {
  const { id: datasetId } = await dataset();
  let answer: (() => void) | undefined;
  const away = new TutelageError("unavailable", "The teacher is away.");
  whileTeaching = () =>
    new Promise((_, reject) => {
      answer = () => {
        // The call is made again before its caller hears of this.
        whileTeaching = () => Promise.reject(away);
        reject(away);
      };
    });
  const id = await start(datasetId);
  // Not merely running: one that asks the teacher only after the cancel fails of that first.
  await until(() => answer !== undefined);
  await expect(client.deleteCampaign({ projectId, id })).rejects.toMatchObject({
    code: "failed_precondition",
    reason: "campaign_running",
    message: expect.stringMatching(/is running: cancel it first/),
  });
  for (const which of [
    { projectId: "other", id },
    { projectId, id: "7" },
  ])
    await expect(client.deleteCampaign(which)).rejects.toMatchObject({ reason: "campaign_not_found" });
  await client.cancelCampaign({ projectId, id });
  await expect(client.deleteCampaign({ projectId, id })).rejects.toMatchObject({ reason: "campaign_running" });
  answer?.();
  await until(async () => (await statusOf(id)) === RunStatus.CANCELLED);
  await client.deleteCampaign({ projectId, id });
});

test("while a service that has its runs is away, a campaign is being stopped, and stopped once that is told", async () => {
  const { id: datasetId } = await dataset();
  const ended = async (id: string, status: RunStatus) =>
    await until(async () => (await statusOf(id)) === status, 10_000);
  const away = new TutelageError("unavailable", "The teacher is away.");
  const stopped: StopOwnedRunsRequest[] = [];
  const isAway = async () => await Promise.reject(away);
  const isBack = async (request: StopOwnedRunsRequest) => {
    stopped.push(request);
    return { stopping: 0 };
  };
  let asked = 0;
  whileTeaching = () => {
    asked += 1;
    return Promise.reject(away);
  };
  // At work: its own holder tells.
  const atWork = await start(datasetId);
  await until(() => asked > 0);
  whileStopping = isAway;
  await client.cancelCampaign({ projectId, id: atWork });
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  expect(await statusOf(atWork)).toBe(RunStatus.CANCELLING);
  whileStopping = isBack;
  await ended(atWork, RunStatus.CANCELLED);
  expect(stopped[0]).toEqual({ projectId, owner: { id: atWork, fence: 1 }, kind: StopKind.CANCEL });

  // Between two holders, its last one died before it could note the run: paused, then cancelled from its rest.
  asked = 0;
  const between = await start(datasetId);
  await until(() => asked > 0);
  await admin.query(
    `update campaigns.runs set status = 'QUEUED', fence = fence + 1, lease_until = null,
       state = state - 'children', not_before = now() + interval '1 hour' where id = $1`,
    [between],
  );
  stopped.length = 0;
  whileStopping = isAway;
  expect((await client.pauseCampaign({ projectId, id: between })).run?.status).toBe(RunStatus.PAUSING);
  whileStopping = isBack;
  await ended(between, RunStatus.PAUSED);
  expect(stopped.at(-1)).toMatchObject({ owner: { id: between }, kind: StopKind.PAUSE });
  whileStopping = isAway;
  expect((await client.cancelCampaign({ projectId, id: between })).run?.status).toBe(RunStatus.CANCELLING);
  whileStopping = isBack;
  await ended(between, RunStatus.CANCELLED);
  expect(stopped.at(-1)).toMatchObject({ owner: { id: between }, kind: StopKind.CANCEL });
  for (const id of [atWork, between]) await client.deleteCampaign({ projectId, id });
});

test("the runs of a campaign that ended without telling them are stopped; of one that may be tried again they rest", async () => {
  const { id: datasetId } = await dataset();
  const stopped: StopOwnedRunsRequest[] = [];
  whileStopping = async (request) => {
    stopped.push(request);
    if (stopped.length === 1) throw new TutelageError("internal", "Not now.");
    return { stopping: 0 };
  };
  const id = await start(datasetId);
  await failed(id);
  const owner = { id, fence: 1 };
  await until(() => stopped.length > 1);
  expect(stopped.slice(0, 2)).toEqual(Array(2).fill({ projectId, owner, kind: StopKind.PAUSE }));
  const settled = async () =>
    (await admin.query("select state->'childrenStopped' as fence from campaigns.runs where id = $1", [id])).rows[0]
      .fence;
  await until(async () => (await settled()) === 1);
  await new Promise((resolve) => setTimeout(resolve, 3 * sweepTiming.pauseMs));
  expect(stopped).toHaveLength(2);
  // It failed again, under a later claim.
  await client.retryCampaign({ projectId, id });
  await until(async () => (await settled()) === 2);
  await admin.query("update campaigns.runs set status = 'CANCELLED', state = state - 'childrenStopped' where id = $1", [
    id,
  ]);
  await until(async () => (await settled()) === 2);
  expect(stopped.at(-1)).toEqual({ projectId, owner: { id, fence: 2 }, kind: StopKind.CANCEL });
  await client.deleteCampaign({ projectId, id });
});

test("a deletion that breaks off is hidden at once, its key too, and is finished without being asked again", async () => {
  const { id: datasetId, versionId } = await dataset();
  const id = await start(datasetId, "broken");
  await failed(id);
  whileDeleting = async () => {
    throw new TutelageError("unavailable", "The training service is away.");
  };
  await expect(client.deleteCampaign({ projectId, id })).rejects.toMatchObject({ code: "unavailable" });
  await expect(statusOf(id)).rejects.toMatchObject({ reason: "campaign_not_found" });
  await expect(client.listIterations({ projectId, id })).rejects.toMatchObject({ reason: "campaign_not_found" });
  expect((await client.listCampaigns({ projectId })).campaigns.map(({ run }) => run?.id)).not.toContain(id);
  await expect(start(datasetId, "broken")).rejects.toMatchObject({ code: "aborted", reason: "run_being_deleted" });
  expect(await exists(id)).toBe(true);
  expect(await holds(versionId)).toContainEqual({ holder: `campaign/${id}`, ends: false });
  whileDeleting = async () => {};
  await until(async () => !(await exists(id)));
  expect(removed.length).toBeGreaterThan(1);
  await until(async () => (await holds(versionId)).length === 0);
  const { rows } = await admin.query(
    "select (select count(*) from campaigns.steps where campaign_id = $1) + (select count(*) from campaigns.events where campaign_id = $1) as n",
    [id],
  );
  expect(Number(rows[0].n)).toBe(0);
});

test("unnamed checkpoints go once, a while after the end, and never where the setting is 0", async () => {
  const { id: datasetId } = await dataset();
  const id = await start(datasetId);
  await failed(id);
  await admin.query(
    `insert into campaigns.iterations (project_id, campaign_id, number, iteration)
     values ($1, $2, 0, '{"number": 0, "trainingRunId": "named-by-iteration", "rejected": {}, "phaseSeconds": {}}')`,
    [projectId, id],
  );
  const outcome = { final: { trainingRunId: "final" }, baseline: { trainingRunId: "plain" }, otherArms: [] };
  await admin.query(
    "update campaigns.runs set finished_at = now() - interval '8 days', state = state || $2::jsonb where id = $1",
    [id, JSON.stringify({ outcome })],
  );
  // The service of the tests above has the default, a week.
  await until(() => removed.length > 0);
  expect(removed).toEqual([
    {
      projectId,
      keyPrefix: `${id}/`,
      keepRunIds: ["final", "plain", "named-by-iteration"],
      checkpointsOnly: true,
    },
  ]);
  const swept = async () =>
    (await admin.query("select state ? 'checkpointsSwept' as swept from campaigns.runs where id = $1", [id])).rows[0]
      .swept;
  await until(swept);
  await stopService();
  await startService({ CAMPAIGNS_KEEP_CHECKPOINTS_DAYS: "0" });
  await admin.query("update campaigns.runs set state = state - 'checkpointsSwept' - 'versionHeld' where id = $1", [id]);
  // A look has come and gone: it has confirmed the hold, and let the checkpoints be.
  await until(
    async () =>
      (await admin.query("select state ? 'versionHeld' as held from campaigns.runs where id = $1", [id])).rows[0].held,
  );
  await new Promise((resolve) => setTimeout(resolve, 3 * sweepTiming.pauseMs));
  expect([removed.length, await swept()]).toEqual([1, false]);
  await client.deleteCampaign({ projectId, id });
  expect(await readdir(join(home, "artifacts", projectId, "runs")).catch(() => [])).toEqual([]);
});

test("checkpoints on which a fork may rest stay until its own have gone", async () => {
  await stopService();
  await startService();
  const { id: datasetId } = await dataset();
  const [parent, fork] = [await start(datasetId), await start(datasetId)];
  for (const id of [parent, fork]) await failed(id);
  const ago = "finished_at = now() - interval '8 days'";
  await admin.query(
    "update campaigns.runs set request = request || jsonb_build_object('fork', jsonb_build_object('campaignId', $2::text)) where id = $1",
    [fork, parent],
  );
  await admin.query(`update campaigns.runs set ${ago} where id = $1`, [parent]);
  await new Promise((resolve) => setTimeout(resolve, 5 * sweepTiming.pauseMs));
  expect(removed).toEqual([]);
  await admin.query(`update campaigns.runs set ${ago} where id = $1`, [fork]);
  await until(() => removed.length > 1);
  expect(removed.map(({ keyPrefix }) => keyPrefix)).toEqual([`${fork}/`, `${parent}/`]);
  for (const id of [fork, parent]) await client.deleteCampaign({ projectId, id });
});

test("two replicas sweep and delete at the same time, and each thing is done", async () => {
  const other = await startCampaigns(config(campaignsSettings, { ...addresses }), { sweepTiming });
  const second = connect(CampaignsServiceDefinition, other.address ?? "");
  try {
    for (let round = 0; round < 3; round += 1) {
      const { id: datasetId, versionId } = await dataset();
      const id = await start(datasetId);
      await failed(id);
      const answers = await Promise.allSettled([client, second].map((one) => one.deleteCampaign({ projectId, id })));
      const counts = answers.map((one) => (one.status === "fulfilled" ? (one.value.counts.campaigns ?? 0) : 0));
      expect(counts.reduce((a, b) => a + b, 0)).toBe(1);
      for (const one of answers) if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "not_found" });
      expect([await exists(id), await holds(versionId)]).toEqual([false, []]);
      await datasetsClient.deleteDataset({ projectId, id: datasetId });
    }
  } finally {
    second.close();
    await other.stop();
  }
});
