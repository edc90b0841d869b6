/**
 * Tar archives (POSIX ustar) in the one form that a list of names and sizes has: no times, owners or modes of their own,
 * so that equal contents are equal bytes, and any other byte in a header is wrong. Pure.
 */

export const tarBlockBytes = 512;
/** Two empty blocks. */
export const tarEnd = Buffer.alloc(2 * tarBlockBytes);
/** What a header's eleven octal digits can say. */
export const mostTarBytes = 8 ** 11 - 1;

/** A file's header: readable by all, of user and group 0, of 1970. Throws for a name or size that has none. */
export function tarHeader(name: string, sizeBytes: number): Buffer {
  if (!/^[\w./-]{1,100}$/.test(name)) throw new RangeError(`"${name}" is no name for a file in a tar archive.`);
  if (sizeBytes > mostTarBytes) throw new RangeError(`${name} has ${sizeBytes} bytes; a tar header cannot say that.`);
  const header = Buffer.alloc(tarBlockBytes);
  header.write(name, 0, "latin1");
  header.write("0000644\0", 100, "latin1");
  header.write("0000000\0", 108, "latin1");
  header.write("0000000\0", 116, "latin1");
  header.write(`${octal(sizeBytes)}\0`, 124, "latin1");
  header.write(`${octal(0)}\0`, 136, "latin1");
  // The sum counts its own field as blanks.
  header.write("        ", 148, "latin1");
  header.write("0", 156, "latin1");
  header.write("ustar\u000000", 257, "latin1");
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return header;
}

/** What a header says; undefined where its bytes are not those that `tarHeader` gives. */
export function readTarHeader(header: Buffer): { name: string; sizeBytes: number } | undefined {
  const name = header.toString("latin1", 0, 100).replace(/\0.*$/s, "");
  const sizeBytes = Number.parseInt(header.toString("latin1", 124, 135), 8);
  if (!/^[\w./-]{1,100}$/.test(name) || !Number.isSafeInteger(sizeBytes) || sizeBytes > mostTarBytes) return undefined;
  return header.equals(tarHeader(name, sizeBytes)) ? { name, sizeBytes } : undefined;
}

/** Zeros up to the next block. */
export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((tarBlockBytes - (sizeBytes % tarBlockBytes)) % tarBlockBytes);
}

function octal(value: number): string {
  return value.toString(8).padStart(11, "0");
}
