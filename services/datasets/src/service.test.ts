import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Split } from "@tutelage/proto/task/v1/task";
import { afterAll, beforeAll, expect, test } from "vitest";
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

let fixture: Fixture;
let client: Client;

beforeAll(async () => {
  fixture = await startFixture();
  client = fixture.client;
});
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
