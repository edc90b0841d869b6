import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type BundlePart, bundleOf, listParts, manifestName } from "./bundle.js";
import { BundleFault, BundleFile } from "./bundlefile.js";
import { readTarHeader, tarHeader } from "./tar.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-bundle-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function* linesOf(count: number, length = 10): AsyncGenerator<string> {
  for (let number = 0; number < count; number += 1) yield `${JSON.stringify({ number, text: "x".repeat(length) })}\n`;
}

async function* parts(): AsyncGenerator<BundlePart> {
  yield { name: "README.md", bytes: Buffer.from("Read me, ümlaut.\n") };
  yield* listParts("rows", linesOf(3));
  yield* listParts("none", linesOf(0));
}

async function written(
  source: AsyncIterable<BundlePart>,
  name = "bundle.tar",
): Promise<{ path: string; bytes: Buffer }> {
  const chunks: Buffer[] = [];
  for await (const chunk of bundleOf(source)) chunks.push(chunk);
  const path = join(folder, name);
  const bytes = Buffer.concat(chunks);
  await writeFile(path, bytes);
  return { path, bytes };
}

const faultOf = async (path: string): Promise<unknown> => {
  try {
    await (await BundleFile.open(path)).close();
    return undefined;
  } catch (error) {
    return error;
  }
};

test("what is written is read again, by us and by any tar", async () => {
  const { path, bytes } = await written(parts());
  const bundle = await BundleFile.open(path);
  const read: unknown[] = [];
  for await (const { json } of bundle.documents("rows")) read.push((json as { number: number }).number);
  expect(read).toEqual([0, 1, 2]);
  for await (const line of bundle.lines("none")) expect.fail(line.text);
  for await (const { text, at, length } of bundle.lines("rows")) expect(await bundle.read(at, length)).toBe(text);
  expect(bundle.sizeBytes).toBe(bytes.length);
  await bundle.close();
  const listed = execFileSync("tar", ["tvf", path], { encoding: "utf8" });
  for (const name of ["README.md", "rows-00000.jsonl", "none-00000.jsonl", manifestName])
    expect(listed).toContain(name);
  expect(execFileSync("tar", ["xOf", path, "README.md"], { encoding: "utf8" })).toBe("Read me, ümlaut.\n");
});

test("the same parts are the same bytes", async () => {
  const first = await written(parts());
  const second = await written(parts(), "again.tar");
  expect(first.bytes.equals(second.bytes)).toBe(true);
});

test("a long list is cut after lines, and is one again", async () => {
  const { path } = await written(listParts("calls", linesOf(2_000, 2_000)));
  const bundle = await BundleFile.open(path);
  expect(bundle.memberCount).toBe(4);
  let expected = 0;
  for await (const { json } of bundle.documents("calls")) {
    expect((json as { number: number }).number).toBe(expected);
    expected += 1;
  }
  expect(expected).toBe(2_000);
  await bundle.close();
});

test("any one byte changed is found: all positions of a small bundle, headers, padding and end included", async () => {
  const { bytes } = await written(parts());
  const path = join(folder, "changed.tar");
  const unnoticed: number[] = [];
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes);
    // One bit of it: the least that can change.
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    await writeFile(path, changed);
    if (!((await faultOf(path)) instanceof BundleFault)) unnoticed.push(at);
  }
  expect(bytes.length).toBeGreaterThan(4_000);
  expect(unnoticed).toEqual([]);
}, 120_000);

test("a bundle that is cut off, or followed by more, is found", async () => {
  const { bytes } = await written(parts());
  const path = join(folder, "cut.tar");
  for (const length of [0, 1, 511, 512, 513, 1_024, bytes.length - 1_024, bytes.length - 512, bytes.length - 1]) {
    await writeFile(path, bytes.subarray(0, length));
    expect(await faultOf(path), `${length} bytes`).toBeInstanceOf(BundleFault);
  }
  await writeFile(path, Buffer.concat([bytes, Buffer.alloc(512)]));
  expect(String(await faultOf(path))).toContain("512 bytes follow it");
});

test("a fault names the member and what is wrong", async () => {
  const { bytes } = await written(parts());
  const path = join(folder, "named.tar");
  const changed = Buffer.from(bytes.toString("latin1").replace('"number":1', '"number":7'), "latin1");
  await writeFile(path, changed);
  const fault = await faultOf(path);
  expect(fault).toMatchObject({ member: "rows-00000.jsonl" });
  expect(String(fault)).toMatch(/its SHA-256 is [0-9a-f]{64}, by the manifest [0-9a-f]{64}/);
  expect(await readFile(path)).toHaveLength(bytes.length);
});

test("a header has one form", () => {
  const header = tarHeader("calls-00000.jsonl", 123);
  expect(readTarHeader(header)).toEqual({ name: "calls-00000.jsonl", sizeBytes: 123 });
  const later = Buffer.from(header);
  later.write("00000000001", 136, "latin1");
  expect(readTarHeader(later)).toBeUndefined();
  expect(() => tarHeader("ü", 1)).toThrow("no name");
  expect(() => tarHeader("large", 8 ** 11)).toThrow("cannot say");
});
