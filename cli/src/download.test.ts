import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { pack } from "tar-stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { pour, refuseBytes, saveFile, saveFolder, withoutSlashes } from "./download.js";
import { exitCodes, Stop } from "./exit.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-download-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A connection that breaks after some bytes. */
function breaking(...chunks: Buffer[]): Readable {
  return Readable.from(
    (async function* () {
      yield* chunks;
      throw new Stop("The connection broke.", exitCodes.unavailable);
    })(),
    { objectMode: false },
  );
}

async function archive(): Promise<Buffer> {
  const tar = pack();
  tar.entry({ name: "campaign/README.md" }, "how to load it");
  tar.entry({ name: "campaign/base/model.safetensors" }, "weights");
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar as unknown as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test("a folder named with a slash at its end is that folder, and can be made again once it is removed", async () => {
  expect(["student/", "student//", "/", "a/b"].map(withoutSlashes)).toEqual(["student", "student", "/", "a/b"]);
  const out = join(folder, withoutSlashes("student/"));
  const saved = await saveFolder(Readable.from([await archive()]), out);
  expect(saved).toEqual({ out, size_bytes: 21, files: ["README.md", "base/model.safetensors"] });
  expect(await readFile(join(out, "README.md"), "utf8")).toBe("how to load it");
  expect(await readdir(folder)).toEqual(["student"]);
  await expect(saveFolder(Readable.from([await archive()]), out)).rejects.toMatchObject({
    code: exitCodes.noInput,
    message: expect.stringContaining("is there already"),
  });
});

test("a download that breaks leaves nothing behind and says why, as a file and as a folder", async () => {
  const whole = await archive();
  const broken = { code: exitCodes.unavailable, message: "The connection broke." };
  await expect(saveFile(breaking(Buffer.from("half")), join(folder, "rows.jsonl"))).rejects.toMatchObject(broken);
  await expect(saveFolder(breaking(whole.subarray(0, 700)), join(folder, "student"))).rejects.toMatchObject(broken);
  await expect(
    saveFolder(Readable.from([Buffer.from("no archive at all ".repeat(60))]), join(folder, "student")),
  ).rejects.toMatchObject({ code: exitCodes.unavailable, message: expect.stringContaining("no whole archive") });
  expect(await readdir(folder)).toEqual([]);
});

test("Ctrl-C in the middle of a download removes what there is of it", async () => {
  const body = new PassThrough();
  body.write("half");
  const saving = saveFile(body, join(folder, "rows.jsonl"));
  while ((await readdir(folder)).length === 0) await new Promise(setImmediate);
  process.emit("SIGINT");
  await expect(saving).rejects.toMatchObject({ code: exitCodes.interrupted });
  expect(await readdir(folder)).toEqual([]);
});

test("what cannot be written says what to do, without a stack", async () => {
  const body = () => Readable.from([Buffer.from("x")]);
  await writeFile(join(folder, "file"), "");
  await mkdir(join(folder, "taken"));
  const refusals = {
    "missing/rows.jsonl": "make its folder first",
    "file/rows.jsonl": "a part of the path is a file",
    taken: "is a folder; name a file in it",
    "new/": "is a folder; name a file in it",
  };
  for (const [out, told] of Object.entries(refusals)) {
    const refused = await saveFile(body(), join(folder, out)).catch((error: unknown) => error);
    expect(refused, out).toBeInstanceOf(Stop);
    expect(refused, out).toMatchObject({ code: exitCodes.noInput, message: expect.stringContaining(told) });
  }
  const student = await saveFolder(Readable.from([await archive()]), join(folder, "file/student")).catch((e) => e);
  expect(student).toMatchObject({ code: exitCodes.noInput, message: expect.stringContaining("Cannot write") });
  expect((await readdir(folder)).sort()).toEqual(["file", "taken"]);
});

test("standard output gets bytes or a document, and a terminal neither archives nor escapes", async () => {
  expect(() => refuseBytes("-", true)).toThrow("--json prints one document");
  refuseBytes("-", false);
  const screen = Object.assign(new PassThrough(), { isTTY: true }) as unknown as NodeJS.WriteStream & PassThrough;
  await expect(pour(Readable.from([Buffer.from("x")]), "archive", screen)).rejects.toMatchObject({
    code: exitCodes.usage,
  });
  // Cut inside a character, and inside what would be an escape sequence.
  const bytes = Buffer.from('{"input":"Größe \u009b2J"}\n');
  await pour(Readable.from([bytes.subarray(0, 13), bytes.subarray(13)]), "text", screen);
  expect(screen.read().toString()).toBe('{"input":"Größe \uFFFD2J"}\n');
  const pipe = new PassThrough() as unknown as NodeJS.WriteStream & PassThrough;
  await pour(Readable.from([bytes]), "text", pipe);
  expect(pipe.read()).toEqual(bytes);
});
