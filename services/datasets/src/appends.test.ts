import { Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { afterAll, expect, test } from "vitest";
import {
  allRows,
  appendRows,
  importFile,
  jsonl,
  newDataset,
  project,
  startFixture,
  syntheticRow,
} from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

/** A version of three seed rows. */
async function seeds() {
  const datasetId = await newDataset(client);
  const file = jsonl(["one", "two", "three"].map((input) => ({ input, output: "a" })));
  const { version } = await importFile(client, datasetId, file);
  if (version === undefined) throw new Error("no version");
  return { datasetId, version, rows: await allRows(client, version) };
}

test("synthetic rows keep their lineage, and rows of the same call may be parents", async () => {
  const { version, rows } = await seeds();
  const root = rows[0]?.id ?? "";
  const first = syntheticRow("uno", root, { metadata: { candidate: "c-1" } });
  const child = await appendRows(client, version.id, [first]);
  const firstId = (await allRows(client, child))[3]?.id ?? "";
  const bred = await appendRows(client, version.id, [
    first,
    syntheticRow("ein", root, { parentRowId: firstId, iteration: 2 }),
  ]);
  const all = await allRows(client, bred);
  expect(all[3]).toEqual({ ...first, id: firstId });
  expect(all[4]).toMatchObject({ rootRowId: root, parentRowId: firstId, iteration: 2, origin: RowOrigin.SYNTHETIC });
  const request = { projectId: project, versionId: bred.id, origin: RowOrigin.SYNTHETIC };
  expect((await client.listRows(request)).rows).toEqual(all.slice(3));
});

test("two campaigns may grow from one version, each seeing only its own rows", async () => {
  const { version, rows, datasetId } = await seeds();
  const root = rows[1]?.id ?? "";
  const [left, right] = await Promise.all([
    appendRows(client, version.id, [syntheticRow("left 1", root), syntheticRow("left 2", root)]),
    appendRows(client, version.id, [syntheticRow("right 1", root)]),
  ]);
  const leftest = await appendRows(client, left.id, [syntheticRow("left 3", root)]);
  const inputs = async (of: typeof left) => (await allRows(client, of, 2)).map(({ input }) => input);
  expect(await inputs(leftest)).toEqual(["one", "two", "three", "left 1", "left 2", "left 3"]);
  expect(await inputs(right)).toEqual(["one", "two", "three", "right 1"]);
  expect(await inputs(version)).toEqual(["one", "two", "three"]);
  const { versions } = await client.listVersions({ projectId: project, datasetId });
  expect(versions.map(({ id }) => id)).toEqual(expect.arrayContaining([version.id, left.id, right.id, leftest.id]));
});

test("the same parent and rows are the same version, with a key, without, at once and in any batches", async () => {
  const { version, rows, datasetId } = await seeds();
  const added = Array.from({ length: 5 }, (_, index) => syntheticRow(`row ${index}`, rows[0]?.id ?? ""));
  const first = await appendRows(client, version.id, added, { key: "k" });
  const again = await Promise.all([
    appendRows(client, version.id, added, { key: "k" }),
    appendRows(client, version.id, added, { key: "another" }),
    appendRows(client, version.id, added, { batchRows: 2 }),
    appendRows(client, version.id, added),
  ]);
  for (const version of again) expect(version).toEqual(first);
  await expect(appendRows(client, version.id, added.slice(1), { key: "k" })).rejects.toMatchObject({
    code: "already_exists",
    reason: "idempotency_key_reused",
  });
  expect((await client.listVersions({ projectId: project, datasetId })).versions).toHaveLength(2);
  expect(await appendRows(client, version.id, [], { key: "nothing" })).toEqual(version);
});

test("a digest does not depend on how the rows were cut into versions", async () => {
  const { version, rows } = await seeds();
  const [a, b] = [syntheticRow("a", rows[0]?.id ?? ""), syntheticRow("b", rows[0]?.id ?? "")];
  const atOnce = await appendRows(client, version.id, [a, b]);
  const oneByOne = await appendRows(client, (await appendRows(client, version.id, [a])).id, [b]);
  expect(oneByOne.digest).toBe(atOnce.digest);
  expect(oneByOne.artifactSha256).toBe(atOnce.artifactSha256);
  expect(oneByOne.id).not.toBe(atOnce.id);
  const other = await appendRows(client, version.id, [b, a]);
  expect(other.digest).not.toBe(atOnce.digest);
});

test.each<[string, (seed: Row) => Row, string, string]>([
  [
    "a root that is not there",
    (seed) => syntheticRow("x", "f".repeat(32), { parentRowId: seed.id }),
    "rows[0].root_row_id",
    "root_row_unknown",
  ],
  ["a root that is no id", () => syntheticRow("x", "nonsense"), "rows[0].root_row_id", "root_row_unknown"],
  [
    "a parent that is not there",
    (seed) => syntheticRow("x", seed.id, { parentRowId: "f".repeat(32) }),
    "rows[0].parent_row_id",
    "parent_row_unknown",
  ],
  ["a row of the parent version", (seed) => seed, "rows[0]", "duplicate_row"],
  ["no output", (seed) => syntheticRow("x", seed.id, { output: " " }), "rows[0].output", "invalid_argument"],
  ["more than 1 MiB", (seed) => syntheticRow("x".repeat(1024 * 1024), seed.id), "rows[0]", "too_large"],
])("a row with %s is refused, naming it", async (_, make, field, reason) => {
  const { version, rows } = await seeds();
  const row = make(rows[0] ?? Row.fromPartial({}));
  await expect(appendRows(client, version.id, [row])).rejects.toMatchObject({
    code: "invalid_argument",
    reason,
    fields: [{ field }],
  });
});

test("a root must be a seed row; the same row twice in one call is refused", async () => {
  const { version, rows } = await seeds();
  const row = syntheticRow("x", rows[0]?.id ?? "");
  const child = await appendRows(client, version.id, [row]);
  const synthetic = (await allRows(client, child))[3]?.id ?? "";
  await expect(appendRows(client, child.id, [syntheticRow("y", synthetic)])).rejects.toMatchObject({
    reason: "root_row_unknown",
  });
  await expect(appendRows(client, version.id, [row, row])).rejects.toMatchObject({ fields: [{ field: "rows[1]" }] });
});

test("a batch of more than 1,000, a stream without a header, and another project's version are refused", async () => {
  const { version, rows } = await seeds();
  const many = Array.from({ length: 1_001 }, (_, index) => syntheticRow(`${index}`, rows[0]?.id ?? ""));
  await expect(appendRows(client, version.id, many, { batchRows: 1_001 })).rejects.toMatchObject({
    fields: [{ field: "batch.rows" }],
  });
  async function* headless() {
    yield { part: { $case: "batch" as const, value: { rows: [] } } };
  }
  await expect(client.appendRows(headless())).rejects.toMatchObject({ fields: [{ field: "header" }] });
  async function* endless() {
    const header = { projectId: project, parentVersionId: version.id, datasetId: "", idempotencyKey: "", aside: false };
    yield { part: { $case: "header" as const, value: header } };
    yield { part: { $case: "batch" as const, value: { rows: many.slice(0, 2) } } };
  }
  await expect(client.appendRows(endless())).rejects.toMatchObject({ reason: "stream_incomplete" });
  await expect(appendRows(client, version.id, many, { projectId: "other" })).rejects.toMatchObject({
    code: "not_found",
  });
  const enough = await appendRows(client, version.id, many);
  expect(enough.rowCount).toBe(1_004);
});

test("a seed row may be appended too, and be a root in the same call", async () => {
  const { version } = await seeds();
  const seed = Row.fromPartial({ input: "four", output: "a", split: Split.TRAIN, origin: RowOrigin.SEED });
  const child = await appendRows(client, version.id, [seed]);
  const root = (await allRows(client, child))[3]?.id ?? "";
  const both = await appendRows(client, version.id, [seed, syntheticRow("quatre", root)]);
  expect(both.rowCount).toBe(5);
});

test("a version that is appended aside is there, and the newest one stays", async () => {
  const { version, rows, datasetId } = await seeds();
  const newest = async () => (await client.getDataset({ projectId: project, id: datasetId })).latestVersionId;
  expect(await newest()).toBe(version.id);
  const aside = await appendRows(client, version.id, [syntheticRow("aside", rows[0]?.id ?? "")], { aside: true });
  expect(aside.rowCount).toBe(4);
  expect(await newest()).toBe(version.id);
  const next = await appendRows(client, version.id, [syntheticRow("next", rows[0]?.id ?? "")]);
  expect(await newest()).toBe(next.id);
});

test("a campaign's versions may go to a dataset of its own and leave the user's newest version alone", async () => {
  const { version, rows, datasetId } = await seeds();
  const own = await newDataset(client);
  const added = [syntheticRow("x", rows[0]?.id ?? "")];
  const begun = await appendRows(client, version.id, [], { datasetId: own, key: "begin" });
  expect(begun).toMatchObject({
    datasetId: own,
    digest: version.digest,
    rowCount: 3,
    addedRowCount: 0,
    parentVersionId: version.id,
  });
  const grown = await appendRows(client, version.id, added, { datasetId: own });
  expect(grown).toMatchObject({ datasetId: own, rowCount: 4, parentVersionId: version.id });
  expect((await allRows(client, grown)).map(({ input }) => input)).toEqual(["one", "two", "three", "x"]);
  expect(await appendRows(client, version.id, added, { datasetId: own })).toEqual(grown);
  const atHome = await appendRows(client, version.id, added);
  expect(atHome.id).not.toBe(grown.id);
  expect(atHome.digest).toBe(grown.digest);
  expect((await client.getDataset({ projectId: project, id: own })).latestVersionId).toBe(grown.id);
  expect((await client.getDataset({ projectId: project, id: datasetId })).latestVersionId).toBe(atHome.id);
  const elsewhere = await client.createDataset({ projectId: "other", name: "d" });
  await expect(appendRows(client, version.id, added, { datasetId: elsewhere.id })).rejects.toMatchObject({
    code: "not_found",
    reason: "dataset_not_found",
  });
});
