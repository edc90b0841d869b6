/** An evidence bundle on a disk: read once from end to end, every byte of it checked, then open for its parts. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { type BundleMember, manifestName, manifestOf, partName } from "./bundle.js";
import { readTarHeader, tarBlockBytes, tarEnd, tarPadding } from "./tar.js";

const readBytes = 1024 * 1024;

/** What is wrong with a bundle, and where. */
export class BundleFault extends Error {
  constructor(
    readonly member: string,
    message: string,
  ) {
    super(`${member}: ${message}`);
  }
}

/** A line of a list, and where it stands. */
export interface BundleLine {
  text: string;
  member: string;
  /** In its member, from 1. */
  line: number;
  /** Of its first byte, in the file. */
  at: number;
  length: number;
}

interface PlacedMember extends BundleMember {
  at: number;
}

export class BundleFile {
  private constructor(
    private readonly file: FileHandle,
    private readonly members: ReadonlyMap<string, PlacedMember>,
    /** Of the whole file. */
    readonly sizeBytes: number,
    /** SHA-256 of the whole file. */
    readonly sha256: string,
  ) {}

  /** Opens a bundle. Throws BundleFault for the first byte that is not as it must be. */
  static async open(path: string): Promise<BundleFile> {
    const file = await open(path, "r");
    try {
      return await readWhole(file, (...found) => new BundleFile(file, ...found));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  /** Members but for the manifest. */
  get memberCount(): number {
    return this.members.size;
  }

  has(name: string): boolean {
    return this.members.has(name);
  }

  /** A member of one JSON document. Throws BundleFault where it is not there. */
  async json(name: string): Promise<unknown> {
    const member = this.members.get(name);
    if (member === undefined) throw new BundleFault(name, "is missing.");
    return parsed(await this.read(member.at, member.size_bytes), name);
  }

  /** The lines of a list, over all its parts. Throws BundleFault where it is not there. */
  async *lines(list: string): AsyncGenerator<BundleLine> {
    for (let number = 0; ; number += 1) {
      const name = partName(list, number);
      const member = this.members.get(name);
      if (member === undefined) {
        if (number === 0) throw new BundleFault(name, "is missing.");
        return;
      }
      // A part is as large as it was in the writer's memory.
      const bytes = await this.readBytes(member.at, member.size_bytes);
      let line = 0;
      for (let start = 0; start < bytes.length; ) {
        const end = bytes.indexOf(10, start);
        if (end === -1) throw new BundleFault(name, "does not end in a newline.");
        line += 1;
        const text = bytes.toString("utf8", start, end);
        yield { text, member: name, line, at: member.at + start, length: end - start };
        start = end + 1;
      }
    }
  }

  /** The documents of a list, each with its line. */
  async *documents(list: string): AsyncGenerator<{ json: unknown; line: BundleLine }> {
    for await (const line of this.lines(list)) {
      yield { json: parsed(line.text, `${line.member}, line ${line.line}`), line };
    }
  }

  /** Text that lies somewhere in the file. */
  async read(at: number, length: number): Promise<string> {
    return (await this.readBytes(at, length)).toString("utf8");
  }

  private async readBytes(at: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    await fill(this.file, bytes, at);
    return bytes;
  }
}

function parsed(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new BundleFault(where, "is not JSON.");
  }
}

async function readWhole<Made>(
  file: FileHandle,
  make: (members: ReadonlyMap<string, PlacedMember>, sizeBytes: number, sha256: string) => Made,
): Promise<Made> {
  const { size } = await file.stat();
  const whole = createHash("sha256");
  const members = new Map<string, PlacedMember>();
  let at = 0;
  const take = async (length: number, where: string): Promise<Buffer> => {
    if (at + length > size) throw new BundleFault(where, "is cut off: the file ends in it.");
    const bytes = Buffer.alloc(length);
    await fill(file, bytes, at);
    whole.update(bytes);
    at += length;
    return bytes;
  };
  for (;;) {
    const where = `header at byte ${at}`;
    const found = readTarHeader(await take(tarBlockBytes, where));
    if (found === undefined) throw new BundleFault(where, "is not as the bundle's writer makes it.");
    const { name, sizeBytes } = found;
    if (members.has(name)) throw new BundleFault(name, "is there twice.");
    const placed = { name, at, size_bytes: sizeBytes };
    if (name === manifestName) {
      const manifest = await take(sizeBytes, name);
      const listed = [...members.values()].map(({ at: _, ...member }) => member);
      if (!manifest.equals(manifestOf(listed))) throw new BundleFault(...manifestFault(manifest, listed));
      await takePadding(name, sizeBytes);
      break;
    }
    members.set(name, { ...placed, sha256: await digestOf(name, sizeBytes) });
    await takePadding(name, sizeBytes);
  }
  const end = await take(tarEnd.length, "end of the archive");
  if (!end.equals(tarEnd)) throw new BundleFault("end of the archive", "is not two empty blocks.");
  if (at !== size) throw new BundleFault("end of the archive", `${size - at} bytes follow it.`);
  return make(members, size, whole.digest("hex"));

  async function digestOf(name: string, sizeBytes: number): Promise<string> {
    const digest: Hash = createHash("sha256");
    for (let left = sizeBytes; left > 0; ) {
      const bytes = await take(Math.min(left, readBytes), name);
      digest.update(bytes);
      left -= bytes.length;
    }
    return digest.digest("hex");
  }

  async function takePadding(name: string, sizeBytes: number): Promise<void> {
    const padding = tarPadding(sizeBytes);
    if (!(await take(padding.length, name)).equals(padding)) {
      throw new BundleFault(name, "is followed by something else than empty padding.");
    }
  }
}

/** Which member a manifest that is not the right one is wrong about, as far as it can be read. */
function manifestFault(manifest: Buffer, members: readonly BundleMember[]): [string, string] {
  let listed: unknown;
  try {
    listed = JSON.parse(manifest.toString("utf8")).members;
  } catch {
    return [manifestName, "is not JSON."];
  }
  if (!Array.isArray(listed)) return [manifestName, "lists no members."];
  for (const { name, size_bytes, sha256 } of members) {
    const said = listed.find((one) => one?.name === name);
    if (said === undefined) return [name, "is not in the manifest."];
    if (said.size_bytes !== size_bytes) return [name, `has ${size_bytes} bytes, by the manifest ${said.size_bytes}.`];
    if (said.sha256 !== sha256) return [name, `its SHA-256 is ${sha256}, by the manifest ${said.sha256}.`];
  }
  const missing = listed.find((one) => !members.some(({ name }) => name === one?.name));
  if (missing !== undefined) return [String(missing?.name), "is in the manifest, but not in the bundle."];
  return [manifestName, "is not as the bundle's writer makes it."];
}

async function fill(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, at + done);
    if (bytesRead === 0) throw new BundleFault(`byte ${at + done}`, "cannot be read: the file ended.");
    done += bytesRead;
  }
}
