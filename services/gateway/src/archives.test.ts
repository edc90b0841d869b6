import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { type ArchiveFile, type ArchiveKind, archiveOf } from "./archives.js";

/** Names, sizes and digests as another program reads them; it also checks the archive's own sums. */
const listing = `
import hashlib, json, sys, tarfile, zipfile
path, found = sys.argv[1], {}
if path.endswith("zip"):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = {i.filename: archive.read(i) for i in archive.infolist()}
else:
    with tarfile.open(path) as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
print(json.dumps({n: hashlib.sha256(b).hexdigest() for n, b in found.items()}))
`;

function file(name: string, chunks: Buffer[]): ArchiveFile {
  const sizeBytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  return {
    name,
    sizeBytes,
    read: async function* () {
      yield* chunks;
    },
  };
}

const contents = new Map([
  ["home/README.md", [Buffer.from("# a student\n")]],
  ["home/model.safetensors", [Buffer.alloc(1_500_000, "weights "), Buffer.alloc(1_500_001, "more")]],
  ["home/base/größe.json", [Buffer.from("{}")]],
  ["home/empty.txt", []],
]);

test.each<[ArchiveKind]>([["tar"], ["tar.gz"], ["zip"]])("a %s holds every file byte for byte", async (kind) => {
  const folder = await mkdtemp(join(tmpdir(), "tutelage-archive-"));
  try {
    const path = join(folder, `student.${kind}`);
    await writeFile(
      path,
      archiveOf(
        kind,
        [...contents].map(([name, chunks]) => file(name, chunks)),
      ),
    );
    const { stdout } = await promisify(execFile)("python3", ["-c", listing, path]);
    const digests = [...contents].map(([name, chunks]) => [
      name,
      createHash("sha256").update(Buffer.concat(chunks)).digest("hex"),
    ]);
    expect(JSON.parse(stdout)).toEqual(Object.fromEntries(digests));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test.each<[ArchiveKind]>([["tar"], ["tar.gz"], ["zip"]])(
  "a %s breaks off when a file turns out to be damaged",
  async (kind) => {
    const damaged: ArchiveFile = {
      name: "home/model.safetensors",
      sizeBytes: 4,
      // biome-ignore lint/correctness/useYield: it has nothing good to give
      read: async function* () {
        throw new Error("the digest differs");
      },
    };
    const taken = async () => {
      for await (const _ of archiveOf(kind, [file("home/README.md", [Buffer.from("x")]), damaged]));
    };
    await expect(taken()).rejects.toThrow("the digest differs");
  },
);
