/** Evidence bundles as a test handles them: downloaded, verified by the command line, and forged with digests that fit. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { type BundlePart, bundleOf, manifestName } from "@tutelage/platform/bundle";
import { extract } from "tar-stream";

const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));

export interface Verified {
  code: number;
  /** What --json printed. */
  document: {
    sha256: string;
    checks: { check: string; looked_at: string }[];
    findings?: { check: string; member: string; message: string }[];
    detail?: string;
    reason?: string;
    member?: string;
  };
  told: string;
}

/** `tutelage verify`, in a process that has no server. */
export function verifyBundle(path: string, ...options: string[]): Promise<Verified> {
  return new Promise((done) => {
    const args = [command, "--url", "http://127.0.0.1:9", "--json", "verify", path, ...options];
    const child = execFile(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 }, (_error, out, told) =>
      done({ code: child.exitCode ?? -1, document: JSON.parse(out), told }),
    );
  });
}

export async function download(url: string, path: string): Promise<Buffer> {
  const reply = await fetch(url);
  if (reply.status !== 200) throw new Error(`${url}: HTTP ${reply.status} ${await reply.text()}`);
  const bytes = Buffer.from(await reply.arrayBuffer());
  await writeFile(path, bytes);
  return bytes;
}

/** The members of a bundle but for its manifest, as any reader of tar sees them. */
export async function membersOf(path: string): Promise<BundlePart[]> {
  const archive = extract();
  archive.end(await readFile(path));
  const members: BundlePart[] = [];
  for await (const entry of archive) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    if (entry.header.name !== manifestName) members.push({ name: entry.header.name, bytes: Buffer.concat(chunks) });
  }
  return members;
}

/** The documents of a list, or the one of a member. */
export function documentsIn(members: readonly BundlePart[], list: string): Record<string, unknown>[] {
  return members
    .filter(({ name }) => name === list || new RegExp(`^${list}-\\d{5}\\.jsonl$`).test(name))
    .flatMap(({ bytes }) => bytes.toString().split("\n"))
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** Writes another bundle in which a list is another one, and every digest fits. */
export async function forge(
  members: readonly BundlePart[],
  list: string,
  change: (documents: Record<string, unknown>[]) => Record<string, unknown>[],
  path: string,
): Promise<void> {
  const changed = change(documentsIn(members, list).map((one) => structuredClone(one)));
  const text = changed.map((one) => `${JSON.stringify(one)}\n`).join("");
  const forged = members
    .filter(({ name }) => !new RegExp(`^${list}-0000[1-9]\\.jsonl$`).test(name))
    .map((member) =>
      member.name === list || member.name === `${list}-00000.jsonl` ? { ...member, bytes: Buffer.from(text) } : member,
    );
  const chunks: Buffer[] = [];
  const source = (async function* () {
    yield* forged;
  })();
  for await (const chunk of bundleOf(source)) chunks.push(chunk);
  await writeFile(path, Buffer.concat(chunks));
}
