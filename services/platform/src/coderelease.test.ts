import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { codeRelease } from "./coderelease.js";

let root: string;
const write = async (path: string, text: string) => {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), text);
};
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tutelage-code-"));
  await write("package-lock.json", "{}");
  await write("proto/dist/a.js", "1");
  await write("services/campaigns/dist/loop.js", "2");
});
afterAll(() => rm(root, { recursive: true, force: true }));

test("the digest is of what runs: code, not its tests, types or maps, wherever it lies", async () => {
  const before = await codeRelease(root);
  expect(before).toEqual({ version: "0.1.0", sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  await write("services/campaigns/dist/loop.js.map", "m");
  await write("services/campaigns/src/loop.ts", "s");
  await write("services/student/tests/test_train.py", "t");
  await write("cli/dist/main.js", "c");
  expect(await codeRelease(root)).toEqual(before);
  const digests = new Set([before.sha256]);
  const added = [
    "services/student/tutelage_student/train.py",
    "migrations/campaigns/0001_a.sql",
    "services/campaigns/dist/loop.js",
  ];
  for (const path of added) {
    await write(path, "changed");
    digests.add((await codeRelease(root)).sha256);
  }
  expect(digests.size).toBe(4);
});

test("this installation has one", async () => {
  const [one, again] = await Promise.all([codeRelease(), codeRelease()]);
  expect(one).toEqual(again);
});
