import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { FileArtifactStore } from "./artifacts.js";
import { asTutelageError } from "./errors.js";

/** What the operating system answers to a write, where a test says so. */
let refusal: string | undefined;

vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  return {
    ...real,
    open: async (...call: Parameters<typeof real.open>) => {
      const file = await real.open(...call);
      if (refusal === undefined || call[1] !== "wx") return file;
      const code = refusal;
      file.sync = async () => {
        throw Object.assign(new Error(`${code}: the system refuses, fsync`), { code, syscall: "fsync" });
      };
      return file;
    },
  };
});

let root: string;
let store: FileArtifactStore;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tutelage-artifacts-"));
  store = new FileArtifactStore(root);
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function bytesOf(uri: string, sha256?: string): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.read(uri, sha256)) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

test("what was put is read back, and an altered file is refused by its digest", async () => {
  const { uri, sha256, sizeBytes } = await store.put("p/versions/a.jsonl", ["one\n", Buffer.from("two\n")]);
  expect(sizeBytes).toBe(8);
  expect(await bytesOf(uri, sha256)).toBe("one\ntwo\n");
  await writeFile(fileURLToPath(uri), "one\ntwO\n");
  await expect(bytesOf(uri, sha256)).rejects.toMatchObject({ code: "data_loss", reason: "artifact_digest_mismatch" });
});

test.each([
  ["ENOSPC", "disk_full"],
  ["EDQUOT", "disk_full"],
  ["EROFS", "disk_read_only"],
])("a disk that answers %s is named %s, and nothing is left of the write", async (code, reason) => {
  await store.put("p/kept.jsonl", ["kept"]);
  refusal = code;
  const failure = await store.put("p/kept.jsonl", ["half"]).catch((error: unknown) => error);
  refusal = undefined;
  expect(asTutelageError(failure)).toMatchObject({
    code: "failed_precondition",
    reason,
    message: expect.stringMatching(/then try again\.$/),
  });
  expect(await bytesOf(store.uri("p/kept.jsonl"))).toBe("kept");
  expect((await readdir(join(root, "p"))).filter((name) => name.includes("tmp"))).toEqual([]);
});

test("a source that fails midway leaves nothing", async () => {
  async function* broken() {
    yield "some";
    throw new Error("gone");
  }
  await expect(store.put("q/x.jsonl", broken())).rejects.toThrow("gone");
  expect(await readdir(join(root, "q"))).toEqual([]);
});
