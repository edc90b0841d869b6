/** Bytes of the server as a file, a folder, or standard output; nothing half-written is left under a name that was asked for. */
import { createWriteStream } from "node:fs";
import { access, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StringDecoder } from "node:string_decoder";
import { extract } from "tar-stream";
import { exitCodes, Stop } from "./exit.js";
import { visible } from "./show.js";

export interface Saved {
  out: string;
  size_bytes: number;
}

/** A name without the slashes at its end, so that what lies beside it is not in it. */
export function withoutSlashes(out: string): string {
  return out.replace(/(?<=.)[/\\]+$/, "");
}

/** Refuses bytes on a standard output that is promised to be one JSON document. */
export function refuseBytes(out: string, json: boolean): void {
  if (out === "-" && json) {
    throw new Stop(
      "--json prints one document on standard output, where the bytes would be, too: name a file with --out, or leave --json out.",
      exitCodes.usage,
    );
  }
}

/** Writes a file. Its name comes into being when it is whole. */
export async function saveFile(body: Readable, out: string): Promise<Saved> {
  if (/[/\\]$/.test(out) || (await isFolder(out))) {
    body.destroy();
    throw new Stop(`${out} is a folder; name a file in it with --out.`, exitCodes.noInput);
  }
  const partial = `${out}.partial`;
  const size_bytes = await beside(body, partial, out, async () => {
    // Opened first: what cannot be written is refused before anything is read.
    const file = await open(partial, "w");
    const stream = file.createWriteStream();
    await pipeline(body, stream);
    return stream.bytesWritten;
  });
  return { out, size_bytes };
}

/** Unpacks a tar archive of one folder as `out`. */
export async function saveFolder(body: Readable, out: string): Promise<Saved & { files: string[] }> {
  if (await exists(out)) {
    body.destroy();
    throw new Stop(`${out} is there already; remove it, or name another with --out.`, exitCodes.noInput);
  }
  const partial = `${out}.partial`;
  const files: string[] = [];
  let size_bytes = 0;
  await beside(body, partial, out, async () => {
    // What a killed process left.
    await rm(partial, { recursive: true, force: true });
    const archive = extract();
    const reading = pipeline(body, archive);
    reading.catch(() => {});
    for await (const entry of archive) {
      // The first part is the campaign's name; the folder has the name that was asked for.
      const parts = entry.header.name.split("/").slice(1);
      if (parts.length === 0 || parts.some((part) => part === "" || part === "." || part === "..")) {
        throw new Stop(`The archive holds a strange name: ${entry.header.name}`, exitCodes.refused);
      }
      const path = join(partial, ...parts);
      await mkdir(dirname(path), { recursive: true });
      const file = createWriteStream(path);
      await pipeline(entry as unknown as Readable, file);
      size_bytes += file.bytesWritten;
      files.push(parts.join("/"));
    }
    await reading;
  });
  return { out, size_bytes, files };
}

/**
 * Sends bytes to standard output.
 * @param kind a terminal shows text without obeying what is in it, and no archive at all
 */
export async function pour(body: Readable, kind: "text" | "archive", to: NodeJS.WriteStream): Promise<void> {
  if (to.isTTY === true && kind === "archive") {
    body.destroy();
    throw new Stop("An archive is nothing for a terminal: name a file with --out, or send it on.", exitCodes.usage);
  }
  const through = to.isTTY === true ? body.pipe(shown()) : body;
  body.once("error", (error) => through.destroy(error));
  await pipeline(through, to, { end: false });
}

/** Makes `partial` and renames it; on any failure, and on Ctrl-C, it is removed. */
async function beside<Result>(
  body: Readable,
  partial: string,
  out: string,
  make: () => Promise<Result>,
): Promise<Result> {
  const interrupted = () => body.destroy(new Stop("Interrupted; nothing was written.", exitCodes.interrupted));
  process.once("SIGINT", interrupted);
  try {
    const made = await make();
    await rename(partial, out);
    return made;
  } catch (error) {
    body.destroy();
    await rm(partial, { recursive: true, force: true }).catch(() => {});
    throw fileStop(error, out);
  } finally {
    process.removeListener("SIGINT", interrupted);
  }
}

const fixes: Record<string, string> = {
  ENOENT: "make its folder first",
  ENOTDIR: "a part of the path is a file; name another with --out",
  EACCES: "name a place that you may write to with --out",
  EPERM: "name a place that you may write to with --out",
  EROFS: "name a place that can be written to with --out",
  ENOSPC: "the disk is full; free some, or name another with --out",
};

function fileStop(error: unknown, out: string): Stop {
  if (error instanceof Stop) return error;
  const { code = "", syscall, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined) {
    return new Stop(`What came for ${out} is no whole archive (${message}); try again.`, exitCodes.unavailable);
  }
  return new Stop(`Cannot write ${out} (${code}): ${fixes[code] ?? message}.`, exitCodes.noInput);
}

/** Text without what a terminal would obey. */
function shown(): Transform {
  const decoder = new StringDecoder("utf8");
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => done(null, visible(decoder.write(chunk))),
    flush: (done) => done(null, visible(decoder.end())),
  });
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
