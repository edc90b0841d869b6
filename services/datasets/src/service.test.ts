import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { afterAll, describe, expect, test } from "vitest";
import {
  allRows,
  appendRows,
  exported,
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

const three = [
  { input: "Where is my order?", output: "order_status" },
  { input: "I want my money back", output: "refund" },
  { input: "Reset my password", output: "account" },
];

test("a dataset is made, got by id and by name, and its name is taken", async () => {
  const made = await client.createDataset({ projectId: project, name: "support" });
  expect(await client.getDataset({ projectId: project, id: made.id })).toEqual(made);
  expect(await client.getDataset({ projectId: project, name: "support" })).toEqual(made);
  expect(made.latestVersionId).toBe("");
  await expect(client.createDataset({ projectId: project, name: "support" })).rejects.toMatchObject({
    code: "already_exists",
    reason: "dataset_name_taken",
  });
  await client.createDataset({ projectId: "other", name: "support" });
});

test("imported rows come back in order, are seed rows, and lie in the artifact and the export", async () => {
  const id = await newDataset(client);
  const { version, importedRows, rejectedRows } = await importFile(client, id, jsonl(three));
  expect({ importedRows, rejectedRows }).toEqual({ importedRows: 3, rejectedRows: 0 });
  expect(version).toMatchObject({ rowCount: 3, addedRowCount: 3, parentVersionId: "", splits: { train: 3, dev: 0 } });
  const rows = await allRows(client, version);
  expect(rows.map(({ input }) => input)).toEqual(three.map(({ input }) => input));
  const bytes = await readFile(fileURLToPath(version?.artifactUri ?? ""));
  expect(createHash("sha256").update(bytes).digest("hex")).toBe(version?.artifactSha256);
  expect(await exported(client, version?.id ?? "")).toBe(bytes.toString());
  const ids = bytes
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).id);
  expect(ids).toEqual(rows.map((row) => row.id));
  expect(
    createHash("sha256")
      .update(ids.map((rowId) => `${rowId}\n`).join(""))
      .digest("hex"),
  ).toBe(version?.digest);
  expect((await client.getDataset({ projectId: project, id })).latestVersionId).toBe(version?.id);
});

test("an append stores only what is new, and reads as one sequence", async () => {
  const id = await newDataset(client);
  const { version } = await importFile(client, id, jsonl(three));
  const root = (await allRows(client, version))[0]?.id ?? "";
  const child = await appendRows(client, version?.id ?? "", [syntheticRow("Where's it?", root)]);
  expect(child).toMatchObject({ rowCount: 4, addedRowCount: 1, parentVersionId: version?.id });
  const rows = await allRows(client, child, 2);
  expect(rows.map(({ input }) => input)).toEqual([...three.map(({ input }) => input), "Where's it?"]);
  expect(rows[3]).toMatchObject({ rootRowId: root, parentRowId: root, iteration: 1 });
  expect((await exported(client, child.id)).split("\n")).toHaveLength(5);
  expect(await exported(client, child.id, Split.TEST)).toBe("");
});

describe("listings", () => {
  test("datasets and versions come newest first, by pages that new ones do not shift", async () => {
    const projectId = "listing";
    const names = ["a", "b", "c", "d", "e"];
    for (const name of names) await client.createDataset({ projectId, name });
    const first = await client.listDatasets({ projectId, pageSize: 2 });
    await client.createDataset({ projectId, name: "later" });
    const second = await client.listDatasets({ projectId, pageSize: 2, cursor: first.nextCursor });
    const third = await client.listDatasets({ projectId, pageSize: 2, cursor: second.nextCursor });
    const listed = [first, second, third].flatMap(({ datasets }) => datasets.map(({ name }) => name));
    expect(listed).toEqual(names.toReversed());
    expect(third.nextCursor).toBe("");

    const datasetId = await newDataset(client);
    const made: string[] = [];
    for (const input of ["x", "y", "z"]) {
      const { version } = await importFile(client, datasetId, jsonl([{ input, output: "a" }]));
      made.unshift(version?.id ?? "");
    }
    const newest = await client.listVersions({ projectId: project, datasetId, pageSize: 2 });
    const oldest = await client.listVersions({ projectId: project, datasetId, pageSize: 2, cursor: newest.nextCursor });
    expect([...newest.versions, ...oldest.versions].map(({ id }) => id)).toEqual(made);
    expect(oldest.nextCursor).toBe("");
    expect(newest.versions[0]).toEqual(await client.getVersion({ projectId: project, id: made[0] ?? "" }));
  });

  test("rows are filtered by split and origin, page by page, across the lineage", async () => {
    const file = Array.from({ length: 9 }, (_, index) => ({
      input: `row ${index}`,
      output: "a",
      part: index % 3 === 0 ? "test" : "train",
    }));
    const { version } = await importFile(client, await newDataset(client), jsonl(file), { splitColumn: "part" });
    const root = (await allRows(client, version))[1]?.id ?? "";
    const child = await appendRows(client, version?.id ?? "", [syntheticRow("new", root)]);
    const request = { projectId: project, versionId: child.id, split: Split.TRAIN, pageSize: 3 };
    const pages: string[][] = [];
    let cursor = "";
    do {
      const page = await client.listRows({ ...request, cursor });
      pages.push(page.rows.map(({ input }) => input));
      cursor = page.nextCursor;
    } while (cursor !== "");
    expect(pages).toEqual([["row 1", "row 2", "row 4"], ["row 5", "row 7", "row 8"], ["new"]]);
    const seeds = await client.listRows({ ...request, origin: RowOrigin.SEED, pageSize: 100 });
    expect(seeds.rows).toHaveLength(6);
    expect(await exported(client, child.id, Split.TEST)).toBe(
      (await exported(client, child.id))
        .split("\n")
        .filter((line) => line.includes('"split":"test"'))
        .map((line) => `${line}\n`)
        .join(""),
    );
  });

  test.each<[string, object, string]>([
    ["a negative page size", { pageSize: -1 }, "page_size"],
    ["a page size over 1,000", { pageSize: 1_001 }, "page_size"],
    ["a cursor that is none", { cursor: "AAAA" }, "cursor"],
    ["another listing's cursor", { cursor: Buffer.from('["datasets default",1]').toString("base64url") }, "cursor"],
  ])("%s is refused", async (_, request, field) => {
    const { version } = await importFile(client, await newDataset(client), jsonl(three));
    const refused = { code: "invalid_argument", fields: [{ field }] };
    await expect(
      client.listRows({ projectId: project, versionId: version?.id ?? "", ...request }),
    ).rejects.toMatchObject(refused);
  });
});

test("a large export comes in chunks of at most 64 KiB, whole and per split", async () => {
  const rows = Array.from({ length: 3_000 }, (_, index) => ({ input: `row ${index} ${"x".repeat(200)}`, output: "a" }));
  const { version } = await importFile(
    client,
    await newDataset(client),
    jsonl([...rows, { input: "y".repeat(200_000), output: "a" }]),
  );
  const whole = await exported(client, version?.id ?? "");
  expect(whole.split("\n")).toHaveLength(3_002);
  expect(await exported(client, version?.id ?? "", Split.TRAIN)).toBe(whole);
});

test("nothing of a project is seen or used from another", async () => {
  const datasetId = await newDataset(client);
  const { version } = await importFile(client, datasetId, jsonl(three));
  const versionId = version?.id ?? "";
  const other = { projectId: "stranger" };
  const notFound = { code: "not_found" };
  await expect(client.getDataset({ ...other, id: datasetId })).rejects.toMatchObject(notFound);
  await expect(client.getDataset({ ...other, name: "dataset-1" })).rejects.toMatchObject(notFound);
  expect((await client.listDatasets(other)).datasets).toEqual([]);
  await expect(importFile(client, datasetId, jsonl(three), other)).rejects.toMatchObject(notFound);
  await expect(appendRows(client, versionId, [], other)).rejects.toMatchObject(notFound);
  await expect(client.getVersion({ ...other, id: versionId })).rejects.toMatchObject(notFound);
  await expect(client.listVersions({ ...other, datasetId })).rejects.toMatchObject(notFound);
  await expect(client.listRows({ ...other, versionId })).rejects.toMatchObject(notFound);
  await expect(client.measureNovelty({ ...other, versionId, texts: ["x"] })).rejects.toMatchObject(notFound);
  const stream = client.exportRows({ ...other, versionId })[Symbol.asyncIterator]();
  await expect(stream.next()).rejects.toMatchObject(notFound);
});

test.each<[string, () => Promise<unknown>, string]>([
  ["a name with a slash", () => client.createDataset({ projectId: project, name: "a/b" }), "name"],
  ["an empty name", () => client.createDataset({ projectId: project, name: "" }), "name"],
  ["an empty project", () => client.createDataset({ projectId: "", name: "a" }), "project_id"],
  ["a project that climbs", () => client.createDataset({ projectId: "..", name: "a" }), "project_id"],
  ["neither id nor name", () => client.getDataset({ projectId: project }), "id"],
  ["id and name", () => client.getDataset({ projectId: project, id: "x", name: "x" }), "id"],
  ["an id that is no UUID", () => client.getVersion({ projectId: project, id: "42" }), "id"],
])("%s is refused, naming the field", async (_, call, field) => {
  await expect(call()).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field }] });
});
