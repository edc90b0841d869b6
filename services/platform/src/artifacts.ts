/** Immutable files behind one interface: dataset versions, candidates, checkpoints. */
import { createHash, randomUUID } from "node:crypto";
import { access, type FileHandle, lstat, mkdir, open, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { TutelageError } from "./errors.js";

const mostPrunes = 3;

export interface Artifact {
  uri: string;
  /** SHA-256 of the bytes, hexadecimal. */
  sha256: string;
  sizeBytes: number;
}

/** A file or folder in a folder. */
export interface Entry {
  name: string;
  uri: string;
  isFolder: boolean;
}

/** Where artifacts are kept. Paths are relative, e.g. "default/versions/<digest>.jsonl". */
export interface ArtifactStore {
  /**
   * Writes bytes to a temporary name, syncs, and renames: never seen half-written. What cannot be written to its end
   * leaves nothing.
   */
  put(path: string, chunks: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>): Promise<Artifact>;
  /** The bytes. Throws data_loss at the end when their digest is not `sha256`, not_found when there is nothing. */
  read(uri: string, sha256?: string): AsyncGenerator<Buffer>;
  /** URI of a path, whether or not something is there: a directory for the student to write below. */
  uri(path: string): string;
  /** Names and sizes of the files in a directory, by name. */
  list(uri: string): Promise<{ name: string; uri: string; sizeBytes: number }[]>;
  exists(uri: string): Promise<boolean>;
  /** What lies in a folder, by name; nothing where there is no such folder. */
  entries(uri: string): Promise<Entry[]>;
  /** When a file, or anything in a folder, was last written; undefined where nothing is there. */
  lastWritten(uri: string): Promise<Date | undefined>;
  /** Bytes of a file, or of all files in a folder; 0 where nothing is there. */
  size(uri: string): Promise<number>;
  /** Removes a folder if nothing is in it. */
  prune(uri: string): Promise<void>;
  /** Removes a file or directory; no error when nothing is there. Gives the bytes of the files that went. */
  remove(uri: string): Promise<number>;
}

/** Artifacts in a directory of this machine. */
export class FileArtifactStore implements ArtifactStore {
  private readonly root: string;

  constructor(root: string) {
    this.root = resolve(root);
  }

  async put(
    path: string,
    chunks: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
  ): Promise<Artifact> {
    const target = this.below(join(this.root, path), path);
    const temporary = `${target}.${randomUUID()}.tmp`;
    const hash = createHash("sha256");
    let sizeBytes = 0;
    const file = await createIn(dirname(target), temporary);
    try {
      for await (const chunk of chunks) {
        const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
        hash.update(bytes);
        sizeBytes += bytes.byteLength;
        // A single write may take only part of it.
        await file.writeFile(bytes);
      }
      await file.sync();
      await file.close();
      await rename(temporary, target);
      await syncDirectory(dirname(target));
    } catch (error) {
      await file.close().catch(() => {});
      await rm(temporary, { force: true });
      throw error;
    }
    return { uri: pathToFileURL(target).href, sha256: hash.digest("hex"), sizeBytes };
  }

  async *read(uri: string, sha256?: string): AsyncGenerator<Buffer> {
    const path = this.path(uri);
    // Opened, it is read to its end, also when it is removed meanwhile.
    const file = await open(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      throw new TutelageError("not_found", `The artifact ${uri} is gone.`, { reason: "artifact_missing" });
    });
    const hash = createHash("sha256");
    for await (const chunk of file.createReadStream({ highWaterMark: 256 * 1024 })) {
      hash.update(chunk);
      yield chunk;
    }
    if (sha256 !== undefined && hash.digest("hex") !== sha256) {
      throw new TutelageError("data_loss", `The artifact ${uri} was changed: its SHA-256 is not ${sha256}.`, {
        reason: "artifact_digest_mismatch",
      });
    }
  }

  uri(path: string): string {
    return pathToFileURL(this.below(join(this.root, path), path)).href;
  }

  async list(uri: string) {
    const directory = this.path(uri);
    const entries = await readdir(directory, { withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).sort((a, b) => (a.name < b.name ? -1 : 1));
    return await Promise.all(
      files.map(async ({ name }) => {
        const path = join(directory, name);
        return { name, uri: pathToFileURL(path).href, sizeBytes: (await stat(path)).size };
      }),
    );
  }

  async entries(uri: string): Promise<Entry[]> {
    const folder = this.path(uri);
    const entries = (await readdir(folder, { withFileTypes: true }).catch(orGone)) ?? [];
    return entries
      .map((entry) => ({
        name: entry.name,
        uri: pathToFileURL(join(folder, entry.name)).href,
        isFolder: entry.isDirectory(),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async lastWritten(uri: string): Promise<Date | undefined> {
    return await newest(this.path(uri));
  }

  async size(uri: string): Promise<number> {
    return await filesBytes(this.path(uri));
  }

  async prune(uri: string): Promise<void> {
    await rmdir(this.path(uri)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "ENOENT") throw error;
    });
  }

  async exists(uri: string): Promise<boolean> {
    return await access(this.path(uri)).then(
      () => true,
      () => false,
    );
  }

  async remove(uri: string): Promise<number> {
    const path = this.path(uri);
    const sizeBytes = await filesBytes(path);
    // A late writer may add a file to a folder that is being emptied.
    await rm(path, { recursive: true, force: true, maxRetries: 5 });
    return sizeBytes;
  }

  private path(uri: string): string {
    if (!uri.startsWith("file://")) {
      throw new TutelageError("invalid_argument", `"${uri}" is not a file:// URI; no other artifact store is set up.`);
    }
    return this.below(fileURLToPath(uri), uri);
  }

  /** A path must not leave the root, however it is written. */
  private below(path: string, shown: string): string {
    const absolute = resolve(path);
    const inside = relative(this.root, absolute);
    if (inside === "" || inside === ".." || inside.startsWith(`..${sep}`)) {
      throw new TutelageError("invalid_argument", `"${shown}" is not inside the artifact store.`, {
        reason: "artifact_outside_store",
      });
    }
    return absolute;
  }
}

/** Undefined where something has gone: a removal may be at it. */
function orGone(error: NodeJS.ErrnoException): undefined {
  if (error.code === "ENOENT") return undefined;
  throw error;
}

/** When a file, or anything in a folder, was last written. */
async function newest(path: string): Promise<Date | undefined> {
  const status = await lstat(path).catch(orGone);
  if (status === undefined) return undefined;
  let last = status.mtime;
  if (!status.isDirectory()) return last;
  for (const name of (await readdir(path).catch(orGone)) ?? []) {
    const written = await newest(join(path, name));
    if (written !== undefined && written > last) last = written;
  }
  return last;
}

/** Bytes of a file, or of all files in a directory; 0 when nothing is there. */
async function filesBytes(path: string): Promise<number> {
  const status = await lstat(path).catch(orGone);
  if (status === undefined) return 0;
  if (!status.isDirectory()) return status.size;
  let bytes = 0;
  for (const name of (await readdir(path).catch(orGone)) ?? []) bytes += await filesBytes(join(path, name));
  return bytes;
}

/** Opens a new file in a directory that is made first, and again should it be pruned in that moment. */
async function createIn(directory: string, path: string): Promise<FileHandle> {
  for (let tries = 0; ; tries += 1) {
    await makeDirectory(directory);
    try {
      return await open(path, "wx", 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" || tries === mostPrunes) throw error;
    }
  }
}

/** Makes a directory and what is missing above it; all of them are there after a power cut, too. */
async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  for (let made = path; made.length >= first.length; made = dirname(made)) await syncDirectory(dirname(made));
}

/** Without this what was made in a directory, or renamed, may be lost with the machine's power. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
