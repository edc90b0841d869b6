import { expect, test } from "vitest";
import type { Api } from "./api.js";
import { listed } from "./listing.js";

/** A server with that many rows, which gives three at once. */
function server(count: number) {
  const asked: string[] = [];
  const json = async (_method: string, path: string) => {
    asked.push(path);
    const query = new URL(path, "http://server").searchParams;
    const start = Number(query.get("cursor") ?? 0);
    const end = Math.min(start + Math.min(3, Number(query.get("limit"))), count);
    const rows = Array.from({ length: end - start }, (_, index) => start + index);
    return { rows, total: count, next_cursor: end < count ? String(end) : "" };
  };
  return { api: { json } as unknown as Api, asked };
}

test("pages are followed to the limit, and what lies beyond is said", async () => {
  const notes: string[] = [];
  const note = (line: string) => notes.push(line);
  const { api, asked } = server(8);
  type Page = { rows: number[]; total: number; next_cursor: string };
  const all = await listed<Page>(api, "/rows?split=dev", "rows", { limit: "100", note });
  expect(all).toEqual({ rows: [0, 1, 2, 3, 4, 5, 6, 7], total: 8, next_cursor: "" });
  expect(asked).toEqual([
    "/rows?split=dev&limit=100",
    "/rows?split=dev&limit=97&cursor=3",
    "/rows?split=dev&limit=94&cursor=6",
  ]);
  expect(notes).toEqual([]);
  const some = await listed<Page>(api, "/rows", "rows", { limit: "5", note });
  expect(some.rows).toEqual([0, 1, 2, 3, 4]);
  expect(notes).toEqual(["There are more than these 5; --limit says how many to list."]);
  await expect(listed<Page>(api, "/rows", "rows", { limit: "0", note })).rejects.toThrow("--limit is 0");
});
