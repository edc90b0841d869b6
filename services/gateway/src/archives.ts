/** Files as one archive, each read as the client takes it. */
import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createGzip } from "node:zlib";
import tar from "tar-stream";

export const archiveKinds = {
  tar: "application/x-tar",
  "tar.gz": "application/gzip",
  zip: "application/zip",
} as const;

export type ArchiveKind = keyof typeof archiveKinds;

export interface ArchiveFile {
  /** Path in the archive. */
  name: string;
  sizeBytes: number;
  read(): AsyncIterable<Uint8Array>;
}

export function archiveOf(kind: ArchiveKind, files: readonly ArchiveFile[]): AsyncIterable<Uint8Array> {
  if (kind === "zip") return zipOf(files);
  // Weights hardly shrink: the fastest level takes what there is.
  return kind === "tar" ? tarOf(files) : gzipOf(tarOf(files));
}

async function* tarOf(files: readonly ArchiveFile[]): AsyncGenerator<Uint8Array> {
  const pack = tar.pack();
  const written = (async () => {
    for (const { name, sizeBytes, read } of files) {
      await new Promise<void>((done, fail) => {
        const entry = pack.entry({ name, size: sizeBytes }, (error) => (error ? fail(error) : done()));
        pipeline(Readable.from(read()), entry as unknown as Writable).catch(fail);
      });
    }
    pack.finalize();
  })().catch((error: Error) => pack.destroy(error));
  try {
    yield* pack as AsyncIterable<Uint8Array>;
    await written;
  } finally {
    pack.destroy();
  }
}

async function* gzipOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const gzip = createGzip({ level: 1 });
  const written = pipeline(Readable.from(chunks), gzip);
  written.catch(() => {});
  yield* gzip as AsyncIterable<Uint8Array>;
  await written;
}

/**
 * ZIP as PKWARE's APPNOTE 6.3.9 has it, stored: sizes and sums follow each
 * file (bit 3), in 64 bits throughout (4.5.3), so that no file is read twice
 * and none is too large.
 */
async function* zipOf(files: readonly ArchiveFile[]): AsyncGenerator<Uint8Array> {
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, read } of files) {
    const path = Buffer.from(name);
    const local = Buffer.alloc(50);
    local.writeUInt32LE(0x04034b50, 0);
    writeCommon(local, 4, path.length);
    local.writeUInt16LE(20, 28);
    local.writeUInt16LE(1, 30); // An empty ZIP64 extra: the descriptor's sizes have 64 bits.
    local.writeUInt16LE(16, 32);
    const header = Buffer.concat([local.subarray(0, 30), path, local.subarray(30)]);
    yield header;
    let size = 0;
    let sum = 0;
    for await (const chunk of read()) {
      sum = crc32(chunk, sum);
      size += chunk.byteLength;
      yield chunk;
    }
    const descriptor = Buffer.alloc(24);
    descriptor.writeUInt32LE(0x08074b50, 0);
    descriptor.writeUInt32LE(sum, 4);
    descriptor.writeBigUInt64LE(BigInt(size), 8);
    descriptor.writeBigUInt64LE(BigInt(size), 16);
    yield descriptor;
    directory.push(directoryEntry(path, sum, size, offset));
    offset += header.length + size + descriptor.length;
  }
  const entries = Buffer.concat(directory);
  yield entries;
  yield endOfArchive(files.length, entries.length, offset);
}

/** Version 4.5, sizes later, names in UTF-8, stored, no time (1980-01-01): at `at` in either header. */
function writeCommon(header: Buffer, at: number, nameLength: number): void {
  header.writeUInt16LE(45, at);
  header.writeUInt16LE(0x0808, at + 2);
  header.writeUInt16LE(0x21, at + 8);
  header.writeUInt32LE(0xffffffff, at + 14);
  header.writeUInt32LE(0xffffffff, at + 18);
  header.writeUInt16LE(nameLength, at + 22);
}

function directoryEntry(path: Buffer, sum: number, size: number, offset: number): Buffer {
  const entry = Buffer.alloc(46);
  entry.writeUInt32LE(0x02014b50, 0);
  entry.writeUInt16LE(0x0300 | 45, 4);
  writeCommon(entry, 6, path.length);
  entry.writeUInt32LE(sum, 16);
  entry.writeUInt16LE(28, 30);
  entry.writeUInt32LE((0o100644 << 16) >>> 0, 38);
  entry.writeUInt32LE(0xffffffff, 42);
  const extra = Buffer.alloc(28);
  extra.writeUInt16LE(1, 0);
  extra.writeUInt16LE(24, 2);
  extra.writeBigUInt64LE(BigInt(size), 4);
  extra.writeBigUInt64LE(BigInt(size), 12);
  extra.writeBigUInt64LE(BigInt(offset), 20);
  return Buffer.concat([entry, path, extra]);
}

function endOfArchive(count: number, directoryBytes: number, directoryAt: number): Buffer {
  const end = Buffer.alloc(56 + 20 + 22);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4);
  end.writeUInt16LE(0x0300 | 45, 12);
  end.writeUInt16LE(45, 14);
  end.writeBigUInt64LE(BigInt(count), 24);
  end.writeBigUInt64LE(BigInt(count), 32);
  end.writeBigUInt64LE(BigInt(directoryBytes), 40);
  end.writeBigUInt64LE(BigInt(directoryAt), 48);
  end.writeUInt32LE(0x07064b50, 56);
  end.writeBigUInt64LE(BigInt(directoryAt + directoryBytes), 64);
  end.writeUInt32LE(1, 72);
  end.writeUInt32LE(0x06054b50, 76);
  end.writeUInt16LE(count, 84);
  end.writeUInt16LE(count, 86);
  end.writeUInt32LE(0xffffffff, 88);
  end.writeUInt32LE(0xffffffff, 92);
  return end;
}
