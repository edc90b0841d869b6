/** From a model reference to a GGUF file on this machine. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { access, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { TeacherFailure } from "./teacher.js";

const run = promisify(execFile);

/** A model file and the digest of its bytes. */
export interface ModelFile {
  path: string;
  /** SHA-256, hexadecimal. */
  sha256: string;
  /** Terms that come with a packaged model, to be shown once; empty where there are none. */
  notice: string;
}

/**
 * Finds the model's file; parts that a Python package brings are joined once
 * into `home`/models/<sha256>.gguf. Throws a fatal TeacherFailure.
 */
export async function resolveModelFile(reference: string, home: string, python: string): Promise<ModelFile> {
  if (reference.startsWith("file:")) {
    const path = reference.slice("file:".length);
    const sha256 = await sha256Of(path).catch(() => {
      throw missing(`nothing readable at ${path}`);
    });
    return { path, sha256, notice: "" };
  }
  const { module, file } = packageReference(reference);
  const directories = await packageDirectories(python, module);
  const main = directories[0];
  if (main === undefined) {
    throw missing(`the Python package ${module} is not installed in ${python}; install services/student/models.txt`);
  }
  const notice = await noticeIn(main);
  for (const path of [join(main, file), join(main, "data", file)]) {
    if (await exists(path)) return { path, sha256: await sha256Of(path), notice };
  }
  const parts = await partsOf(directories, file);
  if (parts.length === 0) throw missing(`the Python package ${module} holds neither ${file} nor parts of it`);
  return { ...(await joinParts(parts, await expectedSha256(main, file), join(home, "models"))), notice };
}

function packageReference(reference: string): { module: string; file: string } {
  const rest = reference.slice("package:".length);
  const slash = rest.indexOf("/");
  return { module: rest.slice(0, slash), file: rest.slice(slash + 1) };
}

/** Directories of the package and of its companions `<module>_part1`, …; empty when it is not installed. */
async function packageDirectories(python: string, module: string): Promise<string[]> {
  // find_spec does not run a top-level package: only its place is asked for.
  const code = `import importlib.util, json, sys
def place(name):
    spec = importlib.util.find_spec(name)
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
places, part = [place(sys.argv[1])], 1
while places[-1]:
    places.append(place(f"{sys.argv[1]}_part{part}")); part += 1
print(json.dumps([p for p in places if p]))`;
  try {
    const { stdout } = await run(python, ["-I", "-c", code, module], { timeout: 30_000 });
    return JSON.parse(stdout) as string[];
  } catch {
    throw missing(`cannot ask ${python} where the Python package ${module} is; set TUTELAGE_PYTHON`);
  }
}

async function partsOf(directories: string[], file: string): Promise<string[]> {
  const found: string[] = [];
  for (const directory of directories) {
    const data = join(directory, "data");
    for (const name of await readdir(data).catch(() => [])) {
      if (name.startsWith(`${file}.part`)) found.push(join(data, name));
    }
  }
  return found.sort((a, b) => (basename(a) < basename(b) ? -1 : 1));
}

async function expectedSha256(directory: string, file: string): Promise<string> {
  const sums = await readFile(join(directory, "data", "SHA256SUMS"), "utf8").catch(() => "");
  const line = sums.split("\n").find((text) => text.trim().endsWith(` ${file}`));
  const sha256 = line?.trim().split(/\s+/)[0] ?? "";
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw missing(`${directory} has no SHA256SUMS for ${file}`);
  return sha256;
}

/** Joins parts into `directory`/<sha256>.gguf unless it is there. A reader never sees half a file. */
async function joinParts(
  parts: string[],
  sha256: string,
  directory: string,
): Promise<{ path: string; sha256: string }> {
  const path = join(directory, `${sha256}.gguf`);
  if (await exists(path)) return { path, sha256 };
  await mkdir(directory, { recursive: true });
  const temporary = join(directory, `.${sha256}.${process.pid}.${Date.now()}`);
  const hash = createHash("sha256");
  try {
    const target = await open(temporary, "wx");
    try {
      for (const part of parts) {
        for await (const chunk of createReadStream(part, { highWaterMark: 4 * 1024 * 1024 })) {
          hash.update(chunk);
          await target.write(chunk);
        }
      }
      await target.sync();
    } finally {
      await target.close();
    }
    const actual = hash.digest("hex");
    if (actual !== sha256) throw missing(`its joined parts have the digest ${actual}, not ${sha256}; install it again`);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  return { path, sha256 };
}

async function noticeIn(directory: string): Promise<string> {
  const notice = (await readFile(join(directory, "data", "NOTICE.md"), "utf8").catch(() => "")).trim();
  const terms = join(directory, "data", "GEMMA_TERMS.html");
  return (await exists(terms)) ? `${notice}\nThe model's terms of use: ${terms}` : notice;
}

/** Digests of files by path, size and time, so that a model of gigabytes is read once a process. */
const digests = new Map<string, string>();

async function sha256Of(path: string): Promise<string> {
  const { size, mtimeMs } = await stat(path);
  const key = `${path}\0${size}\0${mtimeMs}`;
  const known = digests.get(key);
  if (known !== undefined) return known;
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * 1024 * 1024 })) hash.update(chunk);
  const sha256 = hash.digest("hex");
  digests.set(key, sha256);
  return sha256;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

function missing(why: string): TeacherFailure {
  return new TeacherFailure("teacher_model_missing", `The teacher's model is not here: ${why}.`, { fatal: true });
}
