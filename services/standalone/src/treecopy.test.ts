import { chmod, mkdir, mkdtemp, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { copyTree, firstDifference, listTree, shapeLike } from "./treecopy.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-treecopy-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a copy that was moved without its empty folders and permissions gets both back", async () => {
  const [first, copy, restored] = ["first", "copy", "restored"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await mkdir(join(first, "base", "empty", "deeper"), { recursive: true });
  await writeFile(join(first, "base", "data"), "rows", { mode: 0o600 });
  await chmod(join(first, "base"), 0o700);
  const tree = await copyTree(first, copy);

  await rmdir(join(copy, "base", "empty", "deeper"));
  await rmdir(join(copy, "base", "empty"));
  await chmod(join(copy, "base"), 0o755);
  await chmod(join(copy, "base", "data"), 0o644);
  await copyTree(copy, restored);
  expect(await firstDifference(restored, tree)).toBeUndefined();
  const made: string[] = [];
  await shapeLike(restored, tree, async (path) => void made.push(path));

  expect(made).toEqual([join(restored, "base", "empty"), join(restored, "base", "empty", "deeper")]);
  expect((await listTree(restored)).folders).toEqual(tree.folders);
  expect((await copyTree(restored, join(folder, "again"))).files).toEqual(tree.files);
});
