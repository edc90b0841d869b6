/** Deleting on the real wire; what is left is counted in the tables and on the disk. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connect } from "@tutelage/platform/grpc";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../../../tests/support/waiting.js";
import {
  allRows,
  appendRows,
  type Client,
  exported,
  type Fixture,
  importFile,
  jsonl,
  newDataset,
  project,
  startFixture,
  syntheticRow,
} from "./service.fixture.js";

const main = fileURLToPath(new URL("../dist/main.js", import.meta.url));
let fixture: Fixture;
let client: Client;
let admin: pg.Client;

beforeAll(async () => {
  fixture = await startFixture();
  ({ client } = fixture);
  admin = new pg.Client({ connectionString: fixture.databaseUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin?.end();
  await fixture?.stop();
});

/** Rows of every table but the list of migrations, and the files. */
async function left(): Promise<Record<string, number>> {
  const tables = ["datasets", "versions", "rows", "commits", "holds"];
  const { rows } = await admin.query(
    `select ${tables.map((name) => `(select count(*)::int from datasets.${name}) as ${name}`).join(", ")}`,
  );
  return { ...rows[0], files: (await files()).length };
}
const files = () => readdir(join(fixture.home, "artifacts", project, "versions")).catch(() => [] as string[]);

const lines = (from: number, count = 4) =>
  jsonl(Array.from({ length: count }, (_, index) => ({ input: `text ${from + index}`, output: "a" })));

test("every table is counted here", async () => {
  const { rows } = await admin.query(
    "select table_name from information_schema.tables where table_schema = 'datasets'",
  );
  expect(rows.map((row) => row.table_name).sort()).toEqual(
    ["applied_migrations", "commits", "datasets", "holds", "rows", "schema_version", "versions"].sort(),
  );
});

test("a dataset goes with its versions, rows, keys and files, and says so; the next call finds nothing", async () => {
  const before = await left();
  const datasetId = await newDataset(client);
  await importFile(client, datasetId, lines(0), { idempotencyKey: "one" });
  await importFile(client, datasetId, lines(10, 3), { append: true });
  const sizes = (await exported(client, (await newest(datasetId)) ?? "")).length;
  const removal = await client.deleteDataset({ projectId: project, id: datasetId });
  expect(removal.counts).toEqual({ datasets: 1, dataset_versions: 2, rows: 7 });
  expect(removal.artifactBytes).toBeGreaterThan(sizes);
  expect(await left()).toEqual(before);
  await expect(client.deleteDataset({ projectId: project, id: datasetId })).rejects.toMatchObject({
    code: "not_found",
    reason: "dataset_not_found",
  });
});

test("a held version keeps its dataset, the holder is named, and a release frees it", async () => {
  const before = await left();
  const datasetId = await newDataset(client);
  const { version } = await importFile(client, datasetId, lines(0));
  const versionId = version?.id ?? "";
  // Idempotent, and a hold without an end is not given one.
  for (const expireSeconds of [60, 0, 1])
    await client.holdVersion({ projectId: project, versionId, holder: "campaign/7", expireSeconds });
  const refused = client.deleteDataset({ projectId: project, id: datasetId });
  await expect(refused).rejects.toMatchObject({
    code: "failed_precondition",
    reason: "dataset_in_use",
    message: expect.stringContaining("in use by campaign/7"),
    fields: [{ field: "dataset", description: expect.stringContaining(versionId) }],
  });
  expect((await allRows(client, version)).length).toBe(4);
  const { rows } = await admin.query("select expires_at from datasets.holds");
  expect(rows).toEqual([{ expires_at: null }]);
  expect(await client.releaseHolds({ projectId: "other", holder: "campaign/7" })).toEqual({ released: 0 });
  expect(await client.releaseHolds({ projectId: project, holder: "campaign/7" })).toEqual({ released: 1 });
  expect(await client.releaseHolds({ projectId: project, holder: "campaign/7" })).toEqual({ released: 0 });
  await client.deleteDataset({ projectId: project, id: datasetId, checkOnly: true });
  expect((await allRows(client, version)).length).toBe(4);
  await client.deleteDataset({ projectId: project, id: datasetId });
  expect(await left()).toEqual(before);
});

test("a hold whose holder never came to be ends by itself", async () => {
  const datasetId = await newDataset(client);
  const { version } = await importFile(client, datasetId, lines(0));
  const hold = { projectId: project, versionId: version?.id ?? "", holder: "campaign/8", expireSeconds: 3_600 };
  await client.holdVersion(hold);
  const gone = () => client.deleteDataset({ projectId: project, id: datasetId });
  await expect(gone()).rejects.toMatchObject({ reason: "dataset_in_use" });
  await admin.query("update datasets.holds set expires_at = now() - interval '1 second' where holder = 'campaign/8'");
  expect((await gone()).counts).toMatchObject({ datasets: 1 });
  await expect(client.holdVersion(hold)).rejects.toMatchObject({ code: "not_found" });
});

test.each([
  [{ holder: "" }, "holder"],
  [{ expireSeconds: -1 }, "expire_seconds"],
  [{ versionId: "7" }, "version_id"],
])("a hold with %j is refused", async (wrong, field) => {
  const versionId = "00000000-0000-4000-8000-000000000000";
  await expect(
    client.holdVersion({ projectId: project, versionId, holder: "campaign/9", expireSeconds: 0, ...wrong }),
  ).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field }] });
});

test("a dataset from which another one's version grew stays until that one goes", async () => {
  const before = await left();
  const [parentId, childId] = [await newDataset(client), await newDataset(client)];
  const { version } = await importFile(client, parentId, lines(0));
  const root = (await allRows(client, version))[0]?.id ?? "";
  const grown = await appendRows(client, version?.id ?? "", [syntheticRow("new", root)], { datasetId: childId });
  const { name } = await client.getDataset({ projectId: project, id: childId });
  await expect(client.deleteDataset({ projectId: project, id: parentId })).rejects.toMatchObject({
    reason: "dataset_in_use",
    message: expect.stringContaining(`dataset "${name}"`),
  });
  expect((await allRows(client, grown)).length).toBe(5);
  expect((await client.deleteDataset({ projectId: project, name })).counts).toEqual({
    datasets: 1,
    dataset_versions: 1,
    rows: 1,
  });
  expect((await allRows(client, version)).length).toBe(4);
  await client.deleteDataset({ projectId: project, id: parentId });
  expect(await left()).toEqual(before);
});

test("a file that versions of two datasets share stays for the one that stays", async () => {
  const before = await left();
  const [first, second] = [await newDataset(client), await newDataset(client)];
  await importFile(client, first, lines(0));
  const { version } = await importFile(client, second, lines(0));
  expect((await left()).files).toBe((before.files ?? 0) + 1);
  expect(await client.deleteDataset({ projectId: project, id: first })).toMatchObject({ artifactBytes: 0 });
  expect((await exported(client, version?.id ?? "")).split("\n").length).toBe(5);
  expect((await client.deleteDataset({ projectId: project, id: second })).artifactBytes).toBeGreaterThan(0);
  expect(await left()).toEqual(before);
});

test("an import whose file a deletion took before the commit writes it again", async () => {
  const before = await left();
  const [old, fresh] = [await newDataset(client), await newDataset(client)];
  await importFile(client, old, lines(0));
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  await blocker.query("begin");
  await blocker.query("select 1 from datasets.datasets where id = $1 for update", [fresh]);
  // Its file lies there, and its commit waits.
  const importing = importFile(client, fresh, lines(0));
  await until(async () => (await admin.query(waitingFor("select%datasets%for no key update"))).rowCount !== 0);
  expect((await client.deleteDataset({ projectId: project, id: old })).artifactBytes).toBeGreaterThan(0);
  await blocker.end();
  const { version } = await importing;
  expect((await exported(client, version?.id ?? "")).trimEnd().split("\n").length).toBe(4);
  await client.deleteDataset({ projectId: project, id: fresh });
  expect(await left()).toEqual(before);
});

test("what comes while a deletion begins waits for it, and then finds nothing", async () => {
  const [parentId, childId] = [await newDataset(client), await newDataset(client)];
  const { version } = await importFile(client, parentId, lines(0));
  const versionId = version?.id ?? "";
  const root = (await allRows(client, version))[0]?.id ?? "";
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  // What the first step of a deletion does, up to its commit.
  await blocker.query("begin");
  await blocker.query("select 1 from datasets.datasets where id = $1 for update", [parentId]);
  await blocker.query("update datasets.datasets set deleting_at = now() where id = $1", [parentId]);
  const held = client.holdVersion({ projectId: project, versionId, holder: "campaign/6", expireSeconds: 0 });
  const appended = appendRows(client, versionId, [syntheticRow("new", root)], { datasetId: childId });
  const imported = importFile(client, parentId, lines(30), { append: true });
  const settled = Promise.allSettled([held, appended, imported]);
  await until(async () => (await admin.query(waitingFor("%select%datasets%for%key"))).rowCount === 3);
  await blocker.query("commit");
  await blocker.end();
  for (const one of await settled) expect(one).toMatchObject({ status: "rejected", reason: { code: "not_found" } });
  expect((await client.deleteDataset({ projectId: project, id: parentId })).counts).toMatchObject({ rows: 4 });
  await client.deleteDataset({ projectId: project, id: childId });
});

test("a deletion waits for a hold that is being placed, and then sees it", async () => {
  const datasetId = await newDataset(client);
  const { version } = await importFile(client, datasetId, lines(0));
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  await blocker.query("begin");
  await blocker.query("select 1 from datasets.datasets where id = $1 for key share", [datasetId]);
  await blocker.query("insert into datasets.holds (project_id, version_id, holder) values ($1, $2, 'campaign/5')", [
    project,
    version?.id,
  ]);
  const deleting = client.deleteDataset({ projectId: project, id: datasetId }).then(
    () => undefined,
    (error: unknown) => error,
  );
  await until(async () => (await admin.query(waitingFor("%select%datasets%for update"))).rowCount === 1);
  await blocker.query("commit");
  await blocker.end();
  expect(await deleting).toMatchObject({ reason: "dataset_in_use", message: expect.stringContaining("campaign/5") });
  await client.releaseHolds({ projectId: project, holder: "campaign/5" });
  await client.deleteDataset({ projectId: project, id: datasetId });
});

test("an append to another dataset and the deletion of its parent exclude one another", async () => {
  const before = await left();
  for (let round = 0; round < 6; round += 1) {
    const [parentId, childId] = [await newDataset(client), await newDataset(client)];
    const { version } = await importFile(client, parentId, lines(0));
    const root = (await allRows(client, version))[0]?.id ?? "";
    const [appended, gone] = await Promise.allSettled([
      appendRows(client, version?.id ?? "", [syntheticRow("new", root)], { datasetId: childId }),
      client.deleteDataset({ projectId: project, id: parentId }),
    ]);
    expect([appended.status, gone.status].sort()).toEqual(["fulfilled", "rejected"]);
    if (appended.status === "rejected") expect(appended.reason).toMatchObject({ code: "not_found" });
    else expect((await allRows(client, appended.value)).length).toBe(5);
    await client.deleteDataset({ projectId: project, id: childId });
    if (gone.status === "rejected") await client.deleteDataset({ projectId: project, id: parentId });
  }
  expect(await left()).toEqual(before);
});

test("a dataset that somebody made for itself goes by its owner's hand only, empty or not", async () => {
  const before = await left();
  const which = { projectId: project, name: "own" };
  const { id } = await client.createDataset({ ...which, owner: "campaign/4" });
  const others = [
    { projectId: project, id },
    { ...which, owner: "campaign/40" },
  ];
  for (const other of others) {
    await expect(client.deleteDataset(other)).rejects.toMatchObject({
      reason: "dataset_in_use",
      message: expect.stringContaining("campaign/4, whose own it is"),
      fields: [{ field: "dataset", description: "belongs to campaign/4; it goes when that is deleted." }],
    });
  }
  await importFile(client, id, lines(0));
  await client.deleteDataset({ ...which, owner: "campaign/4" });
  expect(await left()).toEqual(before);
});

test("another project's dataset is not found", async () => {
  const datasetId = await newDataset(client, "other");
  await expect(client.deleteDataset({ projectId: project, id: datasetId })).rejects.toMatchObject({
    code: "not_found",
  });
  await client.deleteDataset({ projectId: "other", id: datasetId });
});

test("killed midway: nobody finds the dataset, its name is taken, and a second call removes the rest", async () => {
  const before = await left();
  const { datasetId, name, versionId } = await killedMidway();
  const other = await startProcess({ DATABASE_URL: fixture.databaseUrl });
  // What a start finds it finishes; until then, and after, nothing half is seen.
  await expect(client.getDataset({ projectId: project, id: datasetId })).rejects.toMatchObject({ code: "not_found" });
  await expect(client.getVersion({ projectId: project, id: versionId })).rejects.toMatchObject({ code: "not_found" });
  expect((await client.listDatasets({ projectId: project })).datasets.map(({ id }) => id)).not.toContain(datasetId);
  await until(
    async () => (await client.createDataset({ projectId: project, name }).catch(() => undefined)) !== undefined,
  );
  await client.deleteDataset({ projectId: project, name });
  expect(await left()).toEqual(before);
  other.client.close();
  other.child.kill("SIGTERM");
  await once(other.child, "exit");
});

test("killed midway, and called again before any start: by its name too", async () => {
  const before = await left();
  const { name } = await killedMidway();
  await expect(client.createDataset({ projectId: project, name })).rejects.toMatchObject({
    reason: "dataset_being_deleted",
  });
  const removal = await client.deleteDataset({ projectId: project, name });
  expect(removal.counts).toEqual({ datasets: 1, dataset_versions: 1, rows: 4 });
  expect(await left()).toEqual(before);
});

/** Whether a statement waits for a lock. */
function waitingFor(statement: string): string {
  return `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike '${statement}%'`;
}

async function newest(datasetId: string): Promise<string | undefined> {
  return (await client.getDataset({ projectId: project, id: datasetId })).latestVersionId;
}

async function startProcess(environment = {}): Promise<{ child: ChildProcess; client: Client }> {
  const child = fork(main, { env: { ...process.env, ...fixture.environment, ...environment } });
  const [{ address }] = (await once(child, "message")) as [{ address: string }];
  return { child, client: connect(DatasetsServiceDefinition, address) };
}

/** A deletion whose process is killed after the second of two versions has gone, before the first one does. */
async function killedMidway() {
  const datasetId = await newDataset(client);
  const { name } = await client.getDataset({ projectId: project, id: datasetId });
  const { version } = await importFile(client, datasetId, lines(0));
  await importFile(client, datasetId, lines(20, 2), { append: true });
  const versionId = version?.id ?? "";
  const blocker = new pg.Client({ connectionString: fixture.databaseUrl });
  await blocker.connect();
  const doomed = await startProcess();
  try {
    await blocker.query("begin");
    await blocker.query("select 1 from datasets.versions where id = $1 for key share", [versionId]);
    const deleting = doomed.client.deleteDataset({ projectId: project, id: datasetId }).catch(() => "died");
    await until(async () => (await admin.query(waitingFor("delete from versions%"))).rowCount !== 0);
    doomed.child.kill("SIGKILL");
    await once(doomed.child, "exit");
    expect(await deleting).toBe("died");
  } finally {
    doomed.client.close();
    await blocker.end();
  }
  const stored = await admin.query("select count(*)::int as n from datasets.versions where dataset_id = $1", [
    datasetId,
  ]);
  expect(stored.rows[0].n).toBe(1);
  return { datasetId, name, versionId };
}
