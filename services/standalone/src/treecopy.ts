/** Copying folders with a digest of every file, so that a copy can be checked wherever it comes to lie. */
import { createHash } from "node:crypto";
import { chmod, lstat, mkdir, open, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncDirectory } from "@tutelage/platform/artifacts";

export interface CopiedFile {
  /** Below the folder that was copied. */
  path: string;
  size_bytes: number;
  /** SHA-256, hexadecimal. */
  sha256: string;
  /** Permission bits. */
  mode: number;
}

export interface CopiedTree {
  /** All of them, parents first: Postgres needs its empty ones, too. */
  folders: { path: string; mode: number }[];
  files: CopiedFile[];
}

const blockBytes = 1024 * 1024;
const permissions = 0o777;

/** What lies in a folder, by name. Throws for anything but files and folders. */
export async function listTree(root: string, leaveOut: (path: string) => boolean = () => false) {
  const folders: CopiedTree["folders"] = [];
  const files: string[] = [];
  const visit = async (path: string): Promise<void> => {
    folders.push({ path, mode: (await lstat(join(root, path))).mode & permissions });
    const entries = await readdir(join(root, path), { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const below = path === "" ? entry.name : `${path}/${entry.name}`;
      if (leaveOut(below)) continue;
      if (entry.isDirectory()) await visit(below);
      else if (entry.isFile()) files.push(below);
      else throw new Error(`${join(root, below)} is neither a file nor a folder; a copy cannot hold it.`);
    }
  };
  await visit("");
  return { folders, files };
}

/** Copies a folder to one that is not there yet; all of it is on the disk when this returns. */
export async function copyTree(
  from: string,
  to: string,
  options: { leaveOut?: (path: string) => boolean; onMade?: (path: string) => Promise<void> } = {},
): Promise<CopiedTree> {
  const { leaveOut, onMade = async () => {} } = options;
  const listed = await listTree(from, leaveOut);
  for (const { path, mode } of listed.folders) {
    // Ours to write in until all is there.
    await mkdir(join(to, path), { recursive: true, mode: mode | 0o700 });
    await onMade(join(to, path));
  }
  const files: CopiedFile[] = [];
  for (const path of listed.files) {
    files.push({ path, ...(await copyFile(join(from, path), join(to, path))) });
    await onMade(join(to, path));
  }
  for (const { path } of [...listed.folders].reverse()) await syncDirectory(join(to, path));
  return { folders: listed.folders, files };
}

/** Says of the first file that is not as it was copied what is wrong; undefined when all are, and no other is there. */
export async function firstDifference(root: string, tree: CopiedTree): Promise<string | undefined> {
  const there = await listTree(root).catch((error: NodeJS.ErrnoException) => error.message);
  if (typeof there === "string") return there;
  const known = new Set(tree.files.map(({ path }) => path));
  const extra = there.files.find((path) => !known.has(path));
  if (extra !== undefined) return `${join(root, extra)} does not belong to it`;
  for (const { path, sha256 } of tree.files) {
    const found = await digestOf(join(root, path)).catch(() => undefined);
    if (found === undefined) return `${join(root, path)} cannot be read`;
    if (found !== sha256) return `${join(root, path)} was changed: its SHA-256 is not ${sha256}`;
  }
  return undefined;
}

/** Gives a copy the folders and permissions that it was made with: whatever moved it here may have kept neither. */
export async function shapeLike(
  root: string,
  tree: CopiedTree,
  onMade: (path: string) => Promise<void> = async () => {},
): Promise<void> {
  for (const { path } of tree.folders) {
    const folder = join(root, path);
    if ((await mkdir(folder, { recursive: true })) === undefined) continue;
    await onMade(folder);
    await syncDirectory(dirname(folder));
  }
  for (const { path, mode } of [...tree.files, ...tree.folders]) await chmod(join(root, path), mode);
}

async function copyFile(from: string, to: string): Promise<Omit<CopiedFile, "path">> {
  const source = await open(from, "r");
  try {
    const mode = (await source.stat()).mode & permissions;
    const target = await open(to, "wx", mode);
    try {
      const hash = createHash("sha256");
      let sizeBytes = 0;
      for await (const chunk of source.createReadStream({ highWaterMark: blockBytes, autoClose: false })) {
        hash.update(chunk);
        sizeBytes += chunk.length;
        await target.writeFile(chunk);
      }
      await target.sync();
      return { size_bytes: sizeBytes, sha256: hash.digest("hex"), mode };
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "r");
  for await (const chunk of file.createReadStream({ highWaterMark: blockBytes })) hash.update(chunk);
  return hash.digest("hex");
}
