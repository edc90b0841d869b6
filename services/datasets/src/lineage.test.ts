import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { kinship } from "./lineage.js";
import {
  allRows,
  appendRows,
  type Client,
  type Fixture,
  importFile,
  jsonl,
  newDataset,
  project,
  startFixture,
  syntheticRow,
} from "./service.fixture.js";

test("kinship follows parents up and children down, over generations", () => {
  const family = [
    { id: "a", parentId: "seed" },
    { id: "b", parentId: "seed" },
    { id: "aa", parentId: "a" },
    { id: "ab", parentId: "a" },
    { id: "aaa", parentId: "aa" },
  ];
  expect(kinship(family, "seed")).toEqual({ ancestors: [], children: ["a", "b"], descendants: 5 });
  expect(kinship(family, "aaa")).toEqual({ ancestors: ["aa", "a"], children: [], descendants: 0 });
  expect(kinship(family, "a")).toEqual({ ancestors: [], children: ["aa", "ab"], descendants: 3 });
});

describe("of a dataset that grew by two versions", () => {
  let fixture: Fixture;
  let client: Client;
  let seedVersion: string;
  let firstVersion: string;
  let newest: string;
  const ids: Record<string, string> = {};
  const lineage = (name: string, versionId = newest) =>
    client.getRowLineage({ projectId: project, versionId, rowId: ids[name] ?? "" });

  beforeAll(async () => {
    fixture = await startFixture();
    client = fixture.client;
    const { version } = await importFile(
      client,
      await newDataset(client),
      jsonl([
        { input: "Where is my order?", output: "order" },
        { input: "Money back, 100 %!", output: "refund" },
        { messages: [{ role: "user", content: "Reset my PASSWORD" }], output: "account" },
      ]),
    );
    seedVersion = version?.id ?? "";
    const [seed, other] = await allRows(client, version);
    const grown = await newDataset(client);
    const first = await appendRows(
      client,
      seedVersion,
      [syntheticRow("Where's it?", seed?.id ?? ""), syntheticRow("My cash", other?.id ?? "", { output: "refund" })],
      { datasetId: grown },
    );
    firstVersion = first.id;
    const child = (await allRows(client, first)).find((row) => row.input === "Where's it?");
    const second = await appendRows(
      client,
      first.id,
      [syntheticRow("Is it here?", seed?.id ?? "", { parentRowId: child?.id ?? "", iteration: 2 })],
      { datasetId: grown },
    );
    newest = second.id;
    for (const row of await allRows(client, second)) ids[row.input] = row.id;
  });
  afterAll(() => fixture.stop());

  test("a row bred from a synthetic row leads back to its seed row, and says in which version it was added", async () => {
    const bred = await lineage("Is it here?");
    expect(bred.ancestors.map((row) => row.input)).toEqual(["Where's it?", "Where is my order?"]);
    expect(bred).toMatchObject({ children: [], childCount: 0, descendantCount: 0, addedIn: { id: newest } });
    expect(bred.row).toMatchObject({ rootRowId: ids["Where is my order?"], iteration: 2 });
  });

  test("a seed row has its children and counts its descendants, as far as the version goes", async () => {
    const seed = await lineage("Where is my order?");
    expect(seed.children.map((row) => row.input)).toEqual(["Where's it?"]);
    expect(seed).toMatchObject({ ancestors: [], childCount: 1, descendantCount: 2, addedIn: { id: seedVersion } });
    expect(await lineage("Where is my order?", firstVersion)).toMatchObject({ descendantCount: 1 });
    expect(await lineage("Where is my order?", seedVersion)).toMatchObject({ children: [], descendantCount: 0 });
    expect((await lineage("Where's it?")).addedIn?.id).toBe(firstVersion);
  });

  test("a row that came later, another project's, or no id is refused by name", async () => {
    await expect(lineage("Is it here?", firstVersion)).rejects.toMatchObject({ reason: "row_not_found" });
    const rowId = ids["Is it here?"] ?? "";
    await expect(client.getRowLineage({ projectId: "other", versionId: newest, rowId })).rejects.toMatchObject({
      reason: "version_not_found",
    });
    await expect(client.getRowLineage({ projectId: project, versionId: newest, rowId: "7" })).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field: "row_id" }],
    });
  });

  test.each([
    [{ output: "refund" }, ["Money back, 100 %!", "My cash"]],
    [{ output: "Refund" }, []],
    [{ iteration: 0 }, ["Where is my order?", "Money back, 100 %!", ""]],
    [{ iteration: 2 }, ["Is it here?"]],
    [{ text: "WHERE" }, ["Where is my order?", "Where's it?"]],
    [{ text: "0 %" }, ["Money back, 100 %!"]],
    [{ text: "%" }, ["Money back, 100 %!"]],
    [{ text: "password" }, [""]],
    [{ text: "user" }, []],
    [{ text: "it", origin: RowOrigin.SYNTHETIC, split: Split.TRAIN, iteration: 1 }, ["Where's it?"]],
  ])("rows are narrowed by %j", async (filter, expected) => {
    const page = await client.listRows({ projectId: project, versionId: newest, ...filter });
    expect(page.rows.map((row) => row.input)).toEqual(expected);
  });

  test("what grew from a seed row is listed by it, in pages; a cursor belongs to its filter", async () => {
    const rootRowId = ids["Where is my order?"] ?? "";
    const which = { projectId: project, versionId: newest, rootRowId, pageSize: 1 };
    const first = await client.listRows(which);
    const second = await client.listRows({ ...which, cursor: first.nextCursor });
    expect([...first.rows, ...second.rows].map((row) => row.input)).toEqual(["Where's it?", "Is it here?"]);
    expect(second.nextCursor).toBe("");
    await expect(client.listRows({ ...which, rootRowId: "", cursor: first.nextCursor })).rejects.toMatchObject({
      reason: "cursor_invalid",
    });
  });

  test.each([
    [{ rootRowId: "X" }, "root_row_id"],
    [{ iteration: -1 }, "iteration"],
    [{ text: "a\u0000" }, "text"],
    [{ output: "x".repeat(10_001) }, "output"],
  ])("a filter that nothing can meet is refused: %j", async (filter, field) => {
    await expect(client.listRows({ projectId: project, versionId: newest, ...filter })).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  });
});
