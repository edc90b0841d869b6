/**
 * A temporary file. It is unlinked as soon as it is open, so it is gone with
 * the process, however that ends.
 */
import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, unlink } from "node:fs/promises";
import { join } from "node:path";

const blockBytes = 256 * 1024;

export class Spool {
  private pending: Buffer[] = [];
  private pendingBytes = 0;
  private writtenBytes = 0;

  private constructor(private readonly file: FileHandle) {}

  static async open(directory: string): Promise<Spool> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, randomUUID());
    const file = await open(path, "wx+", 0o600);
    await unlink(path);
    return new Spool(file);
  }

  get sizeBytes(): number {
    return this.writtenBytes + this.pendingBytes;
  }

  /** Adds bytes; returns a promise only when it wrote, so that a caller may skip an await a line. */
  append(bytes: Uint8Array | string): Promise<void> | undefined {
    const buffer = typeof bytes === "string" ? Buffer.from(bytes) : Buffer.from(bytes);
    this.pending.push(buffer);
    this.pendingBytes += buffer.byteLength;
    return this.pendingBytes >= blockBytes ? this.flush() : undefined;
  }

  /** All bytes from the first on; may be read any number of times. */
  async *read(): AsyncGenerator<Buffer> {
    await this.flush();
    let position = 0;
    while (position < this.writtenBytes) {
      const { bytesRead, buffer } = await this.file.read(Buffer.allocUnsafe(blockBytes), 0, blockBytes, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private async flush(): Promise<void> {
    if (this.pendingBytes === 0) return;
    const bytes = Buffer.concat(this.pending);
    this.pending = [];
    this.pendingBytes = 0;
    let done = 0;
    while (done < bytes.byteLength) {
      const { bytesWritten } = await this.file.write(bytes, done, bytes.byteLength - done, this.writtenBytes + done);
      done += bytesWritten;
    }
    this.writtenBytes += bytes.byteLength;
  }
}
