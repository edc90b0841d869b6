/** The service as a process of its own, killed at the worst moment. Needs a build. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connect } from "@tutelage/platform/grpc";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { allRows, type Client, importFile, jsonl, newDataset, project, startFixture } from "./service.fixture.js";

const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const fixture = await startFixture();
afterAll(() => fixture.stop());

async function startProcess(): Promise<{ child: ChildProcess; client: Client }> {
  const child = fork(main, { env: { ...process.env, ...fixture.environment } });
  const [{ address }] = (await once(child, "message")) as [{ address: string }];
  return { child, client: connect(DatasetsServiceDefinition, address) };
}

test("killed between artifact and commit: no version is seen, and the same call then succeeds", async () => {
  const datasetId = await newDataset(fixture.client);
  const rows = Array.from({ length: 500 }, (_, index) => ({ input: `row ${index}`, output: "a" }));
  const admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  // The service comes as far as its commit, and no further.
  await blocker.query("begin");
  await blocker.query("lock table datasets.versions in share mode");
  const { child, client } = await startProcess();
  const importing = importFile(client, datasetId, jsonl(rows), { idempotencyKey: "import-1" });
  const failed = importing.catch(() => "failed");
  const versions = join(fixture.home, "artifacts", project, "versions");
  const published = async () => (await readdir(versions).catch(() => [])).filter((name) => name.endsWith(".jsonl"));
  while ((await published()).length === 0) await sleep(10);
  const waiting =
    "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%insert into%versions%'";
  while ((await admin.query(waiting)).rowCount === 0) await sleep(10);
  child.kill("SIGKILL");
  await once(child, "exit");
  client.close();
  expect(await failed).toBe("failed");
  await blocker.end();

  const datasetNow = await fixture.client.getDataset({ projectId: project, id: datasetId });
  expect(datasetNow.latestVersionId).toBe("");
  expect((await fixture.client.listVersions({ projectId: project, datasetId })).versions).toEqual([]);
  const stored = await admin.query(
    "select (select count(*) from datasets.rows) + (select count(*) from datasets.commits) as n",
  );
  expect(Number(stored.rows[0].n)).toBe(0);
  expect(await readdir(join(fixture.home, "spool"))).toEqual([]);

  const again = await startProcess();
  const { version } = await importFile(again.client, datasetId, jsonl(rows), { idempotencyKey: "import-1" });
  expect((await allRows(again.client, version)).map(({ input }) => input)).toEqual(rows.map(({ input }) => input));
  expect(await published()).toEqual([`${version?.digest}.jsonl`]);
  again.client.close();
  again.child.kill("SIGTERM");
  const [code] = await once(again.child, "exit");
  expect(code).toBe(0);
  await admin.end();
});
