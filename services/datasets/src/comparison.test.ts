import { RowChangeKind } from "@tutelage/proto/datasets/v1/datasets";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
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

const inputs = (changes: { kind: RowChangeKind; row?: { input: string } | undefined }[], kind: RowChangeKind) =>
  changes.flatMap((change) => (change.kind === kind ? [change.row?.input] : []));

test("a mended label is one row removed and one added, by split and origin; the rest is unchanged", async () => {
  const id = await newDataset(client);
  const before = await importFile(
    client,
    id,
    jsonl([
      { input: "one", output: "a" },
      { input: "two", output: "b" },
      { input: "three", output: "b", split: "test" },
      { input: "gone", output: "b", split: "dev" },
    ]),
    { splitColumn: "split" },
  );
  const after = await importFile(
    client,
    id,
    jsonl([
      { input: "new", output: "a", split: "dev" },
      { input: "two", output: "a" },
      { input: "one", output: "a" },
      { input: "three", output: "b", split: "test" },
    ]),
    { splitColumn: "split" },
  );
  const which = { versionId: after.version?.id ?? "", againstVersionId: before.version?.id ?? "" };
  const diff = await client.diffVersions({ projectId: project, ...which });
  expect(inputs(diff.changes, RowChangeKind.ADDED)).toEqual(["new", "two"]);
  expect(inputs(diff.changes, RowChangeKind.REMOVED)).toEqual(["two", "gone"]);
  expect(diff.nextCursor).toBe("");
  const count = (kind: RowChangeKind, split: Split) => ({ kind, split, origin: RowOrigin.SEED, rows: 1 });
  expect(diff.summary).toEqual({
    addedRows: 2,
    removedRows: 2,
    unchangedRows: 2,
    counts: [
      count(RowChangeKind.ADDED, Split.DEV),
      count(RowChangeKind.ADDED, Split.TRAIN),
      count(RowChangeKind.REMOVED, Split.DEV),
      count(RowChangeKind.REMOVED, Split.TRAIN),
    ],
  });
  const mirrored = await client.diffVersions({
    projectId: project,
    versionId: which.againstVersionId,
    againstVersionId: which.versionId,
    kind: RowChangeKind.ADDED,
  });
  expect(inputs(mirrored.changes, RowChangeKind.ADDED)).toEqual(["two", "gone"]);
  expect(mirrored.changes).toHaveLength(2);
});

test("pages of every size give each change once, and the summary only at first", async () => {
  const id = await newDataset(client);
  const rowsOf = (from: number, to: number) =>
    jsonl(Array.from({ length: to - from }, (_, index) => ({ input: `row ${from + index}`, output: "a" })));
  const { version: before } = await importFile(client, id, rowsOf(0, 7));
  const { version: other } = await importFile(client, id, rowsOf(4, 9));
  const after = await appendRows(client, other?.id ?? "", [
    syntheticRow("born", (await allRows(client, other))[0]?.id ?? ""),
  ]);
  for (const pageSize of [1, 2, 3, 100]) {
    const seen: string[] = [];
    let cursor = "";
    let pages = 0;
    do {
      const page = await client.diffVersions({
        projectId: project,
        versionId: after.id,
        againstVersionId: before?.id ?? "",
        pageSize,
        cursor,
      });
      expect(page.changes.length).toBeLessThanOrEqual(pageSize);
      expect(page.summary === undefined).toBe(pages++ > 0);
      seen.push(...page.changes.map(({ kind, row }) => `${kind === RowChangeKind.ADDED ? "+" : "-"}${row?.input}`));
      cursor = page.nextCursor;
    } while (cursor !== "");
    expect(seen).toEqual(["+row 7", "+row 8", "+born", "-row 0", "-row 1", "-row 2", "-row 3"]);
    expect(pages).toBe(Math.ceil(seen.length / pageSize));
  }
});

test("left out, the other version is the parent; a first version is compared with nothing", async () => {
  const id = await newDataset(client);
  const { version } = await importFile(client, id, jsonl([{ input: "seed", output: "a" }]));
  const first = await client.diffVersions({ projectId: project, versionId: version?.id ?? "" });
  expect(first).toMatchObject({ againstVersionId: "", summary: { addedRows: 1, removedRows: 0, unchangedRows: 0 } });
  const root = first.changes[0]?.row?.id ?? "";
  // In a dataset of its own, as a campaign does it.
  const child = await appendRows(client, version?.id ?? "", [syntheticRow("grown", root)], {
    datasetId: await newDataset(client),
  });
  const second = await client.diffVersions({ projectId: project, versionId: child.id });
  expect(second.againstVersionId).toBe(version?.id);
  expect(inputs(second.changes, RowChangeKind.ADDED)).toEqual(["grown"]);
  expect(second.summary?.counts).toEqual([
    { kind: RowChangeKind.ADDED, split: Split.TRAIN, origin: RowOrigin.SYNTHETIC, rows: 1 },
  ]);
  const same = await client.diffVersions({ projectId: project, versionId: child.id, againstVersionId: child.id });
  expect(same).toMatchObject({ changes: [], summary: { addedRows: 0, removedRows: 0, unchangedRows: 2 } });
});

test("another project's version is not found, and a cursor belongs to its comparison", async () => {
  const id = await newDataset(client);
  const { version } = await importFile(client, id, jsonl([1, 2, 3].map((n) => ({ input: `${n}`, output: "a" }))));
  const versionId = version?.id ?? "";
  await expect(client.diffVersions({ projectId: "other", versionId })).rejects.toMatchObject({ code: "not_found" });
  await expect(
    client.diffVersions({ projectId: project, versionId, againstVersionId: crypto.randomUUID() }),
  ).rejects.toMatchObject({ code: "not_found" });
  const { nextCursor } = await client.diffVersions({ projectId: project, versionId, pageSize: 1 });
  await expect(
    client.diffVersions({ projectId: project, versionId, cursor: nextCursor, kind: RowChangeKind.ADDED }),
  ).rejects.toMatchObject({ reason: "cursor_invalid" });
});
