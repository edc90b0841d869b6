/** What holds a campaign's version, at the instants at which a process may die. */
import { TutelageError } from "@tutelage/platform/errors";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { expect, test } from "vitest";
import { until } from "../support/waiting.js";
import {
  admin,
  client,
  dataset,
  datasetsClient,
  failed,
  holds,
  others,
  projectId,
  removed,
  start,
  startForAllTests,
  statusOf,
} from "./holds-fixture.js";

startForAllTests();

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
  others.whileTeaching = () =>
    new Promise((_, reject) => {
      answer = () => {
        // The call is made again before its caller hears of this.
        others.whileTeaching = () => Promise.reject(away);
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
