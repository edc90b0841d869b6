/**
 * The form of an evidence bundle: a tar archive whose last member, manifest.json, has the size and SHA-256 of every
 * other. Headers, padding and manifest follow from the contents, so that no byte can be another without being found.
 */
import { createHash } from "node:crypto";
import { tarEnd, tarHeader, tarPadding } from "./tar.js";

export const bundleVersion = 1;
export const manifestName = "manifest.json";

/** A member of a bundle as its manifest has it. */
export interface BundleMember {
  name: string;
  size_bytes: number;
  sha256: string;
}

/** What goes into a bundle: a file whole, and small enough for memory. */
export interface BundlePart {
  name: string;
  bytes: Buffer;
}

/** Lines are cut into parts of about this size, since a tar header needs a size before there are bytes. */
const partBytes = 1024 * 1024;

/** The manifest of these members, byte for byte. */
export function manifestOf(members: readonly BundleMember[]): Buffer {
  const manifest = { format: "tutelage-evidence", version: bundleVersion, members };
  return Buffer.from(`${JSON.stringify(manifest, undefined, 1)}\n`);
}

/** Name of a part of a list: "calls-00000.jsonl". */
export function partName(list: string, number: number): string {
  return `${list}-${String(number).padStart(5, "0")}.jsonl`;
}

/**
 * A list as parts, cut after a line; an empty list is one empty part. Holds one part in memory.
 * @param lines with their newlines
 */
export async function* listParts(list: string, lines: AsyncIterable<string>): AsyncGenerator<BundlePart> {
  let number = 0;
  let pending: Buffer[] = [];
  let size = 0;
  const part = () => ({ name: partName(list, number++), bytes: Buffer.concat(pending) });
  for await (const line of lines) {
    const bytes = Buffer.from(line);
    pending.push(bytes);
    size += bytes.length;
    if (size < partBytes) continue;
    yield part();
    pending = [];
    size = 0;
  }
  if (size > 0 || number === 0) yield part();
}

/** The archive of these parts, in their order. */
export async function* bundleOf(parts: AsyncIterable<BundlePart>): AsyncGenerator<Buffer> {
  const members: BundleMember[] = [];
  for await (const { name, bytes } of parts) {
    members.push({ name, size_bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
    yield* entry(name, bytes);
  }
  yield* entry(manifestName, manifestOf(members));
  yield tarEnd;
}

function* entry(name: string, bytes: Buffer): Generator<Buffer> {
  yield tarHeader(name, bytes.length);
  yield bytes;
  yield tarPadding(bytes.length);
}
