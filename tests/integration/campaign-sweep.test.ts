/** What goes on with the end of a campaign, its checkpoints and its deletion when whoever began it died or others are away. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { settings as campaignsSettings, start as startCampaigns } from "@tutelage/campaigns/start";
import { TutelageError } from "@tutelage/platform/errors";
import { connect } from "@tutelage/platform/grpc";
import { CampaignsServiceDefinition } from "@tutelage/proto/campaigns/v1/campaigns";
import { StopKind, type StopOwnedRunsRequest } from "@tutelage/proto/run/v1/owner";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { expect, test } from "vitest";
import { config } from "../support/config.js";
import { until } from "../support/waiting.js";
import {
  addresses,
  admin,
  client,
  dataset,
  datasetsClient,
  exists,
  failed,
  holds,
  home,
  others,
  projectId,
  removed,
  start,
  startForAllTests,
  startService,
  statusOf,
  stopService,
  sweepTiming,
} from "./holds-fixture.js";

startForAllTests();

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
  others.whileTeaching = () => {
    asked += 1;
    return Promise.reject(away);
  };
  // At work: its own holder tells.
  const atWork = await start(datasetId);
  await until(() => asked > 0);
  others.whileStopping = isAway;
  await client.cancelCampaign({ projectId, id: atWork });
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  expect(await statusOf(atWork)).toBe(RunStatus.CANCELLING);
  others.whileStopping = isBack;
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
  others.whileStopping = isAway;
  expect((await client.pauseCampaign({ projectId, id: between })).run?.status).toBe(RunStatus.PAUSING);
  others.whileStopping = isBack;
  await ended(between, RunStatus.PAUSED);
  expect(stopped.at(-1)).toMatchObject({ owner: { id: between }, kind: StopKind.PAUSE });
  others.whileStopping = isAway;
  expect((await client.cancelCampaign({ projectId, id: between })).run?.status).toBe(RunStatus.CANCELLING);
  others.whileStopping = isBack;
  await ended(between, RunStatus.CANCELLED);
  expect(stopped.at(-1)).toMatchObject({ owner: { id: between }, kind: StopKind.CANCEL });
  for (const id of [atWork, between]) await client.deleteCampaign({ projectId, id });
});

test("the runs of a campaign that ended without telling them are stopped; of one that may be tried again they rest", async () => {
  const { id: datasetId } = await dataset();
  const stopped: StopOwnedRunsRequest[] = [];
  others.whileStopping = async (request) => {
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
  others.whileDeleting = async () => {
    throw new TutelageError("unavailable", "The training service is away.");
  };
  await expect(client.deleteCampaign({ projectId, id })).rejects.toMatchObject({ code: "unavailable" });
  await expect(statusOf(id)).rejects.toMatchObject({ reason: "campaign_not_found" });
  await expect(client.listIterations({ projectId, id })).rejects.toMatchObject({ reason: "campaign_not_found" });
  expect((await client.listCampaigns({ projectId })).campaigns.map(({ run }) => run?.id)).not.toContain(id);
  await expect(start(datasetId, "broken")).rejects.toMatchObject({ code: "aborted", reason: "run_being_deleted" });
  expect(await exists(id)).toBe(true);
  expect(await holds(versionId)).toContainEqual({ holder: `campaign/${id}`, ends: false });
  others.whileDeleting = async () => {};
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
  const other = await startCampaigns(config(campaignsSettings, addresses), { sweepTiming });
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
