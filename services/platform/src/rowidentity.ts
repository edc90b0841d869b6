/** Who a row is, and which rows a version is: digests that anyone can check with the artifact alone. Pure. */
import { createHash, hash } from "node:crypto";
import type { Row } from "@tutelage/proto/task/v1/task";
import { rowToLine } from "./rowfile.js";

const idLength = 32;
const emptyId = '{"id":"",';

/**
 * The row with its id, and its line in an artifact. The id is the first 32
 * hexadecimal digits of the SHA-256 over that line without its "id" member and
 * newline, so anyone can check it with the artifact alone.
 */
export function identify(row: Row): { row: Row; line: string } {
  const content = `{${rowToLine({ ...row, id: "" }).slice(emptyId.length, -1)}`;
  const id = hash("sha256", content, "hex").slice(0, idLength);
  return { row: { ...row, id }, line: `{"id":"${id}",${content.slice(1)}\n` };
}

/**
 * SHA-256 over the ids of a version's rows, each followed by a newline, in
 * order. It runs over all ids, not over the parent's digest: the same rows have
 * the same digest however they were cut into versions.
 */
export class VersionDigest {
  constructor(private readonly sha256 = createHash("sha256")) {}

  add(rowId: string): void {
    this.sha256.update(`${rowId}\n`);
  }

  /** One that goes on from here, for a version that grows from this one. */
  copy(): VersionDigest {
    return new VersionDigest(this.sha256.copy());
  }

  /** Hexadecimal; the last call on this object. */
  finish(): string {
    return this.sha256.digest("hex");
  }
}
