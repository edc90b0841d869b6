/** Rows of up to a megabyte each: a page ends where it would grow too large to be sent, however many rows are asked for. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { importFile, jsonl, newDataset, project, startFixture } from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

/** More than one message may hold. */
const count = 70;
const longRows = (name: string) =>
  Array.from({ length: count }, (_, index) => ({ input: `${name} ${index} ${"x".repeat(1_000_000)}`, output: "a" }));
const nameOf = (input: string | undefined) => input?.split(" ", 2).join(" ");
let versionId: string;

beforeAll(async () => {
  versionId = (await importFile(client, await newDataset(client), jsonl(longRows("long")))).version?.id ?? "";
}, 60_000);

async function paged<Item>(read: (cursor: string) => Promise<{ items: Item[]; nextCursor: string }>) {
  const pages: Item[][] = [];
  let cursor = "";
  do {
    const { items, nextCursor } = await read(cursor);
    pages.push(items);
    cursor = nextCursor;
  } while (cursor !== "");
  return pages;
}

test("all rows are listed with pages of 1000, in order", async () => {
  const pages = await paged(async (cursor) => {
    const { rows, nextCursor } = await client.listRows({ projectId: project, versionId, pageSize: 1_000, cursor });
    return { items: rows, nextCursor };
  });
  expect(pages.map(({ length }) => length)).toEqual([16, 16, 16, 16, 6]);
  expect(pages.flat().map(({ input }) => nameOf(input))).toEqual(
    Array.from({ length: count }, (_, index) => `long ${index}`),
  );
}, 60_000);

test("so are those of a comparison, the removed after the added", async () => {
  const short = { input: "short", output: "b" };
  const other = await importFile(client, await newDataset(client), jsonl([short, ...longRows("other").slice(0, 20)]));
  const pages = await paged(async (cursor) => {
    const { changes, nextCursor } = await client.diffVersions({
      projectId: project,
      versionId,
      againstVersionId: other.version?.id ?? "",
      pageSize: 1_000,
      cursor,
    });
    return { items: changes, nextCursor };
  });
  const names = pages.flat().map(({ row }) => nameOf(row?.input));
  expect(names.slice(count - 1, count + 3)).toEqual([`long ${count - 1}`, "short", "other 0", "other 1"]);
  expect(names).toHaveLength(count + 21);
  for (const page of pages) expect(page.length).toBeLessThanOrEqual(17);
}, 60_000);
