/** Random choices that depend only on the campaign's seed and on what is chosen. */
import { createHash } from "node:crypto";

/** A whole number from 0 to 2^31 - 1, the same for the same parts on every machine. */
export function derivedSeed(...parts: (string | number)[]): number {
  const digest = createHash("sha256").update(JSON.stringify(parts)).digest();
  return digest.readUInt32BE(0) & 0x7fffffff;
}

/** The items in a random order that depends only on `parts` and on each item's key. */
export function shuffled<Item>(
  items: readonly Item[],
  keyOf: (item: Item) => string,
  ...parts: (string | number)[]
): Item[] {
  const keyed = items.map((item) => ({
    item,
    rank: createHash("sha256")
      .update(JSON.stringify([...parts, keyOf(item)]))
      .digest("hex"),
  }));
  return keyed.sort((a, b) => (a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : 0)).map(({ item }) => item);
}

/** Numbers from 0 to below 1, without end, which depend only on `parts`. */
export function randomStream(...parts: (string | number)[]): () => number {
  const key = JSON.stringify(parts);
  let drawn = Buffer.alloc(0);
  let blocks = 0;
  let offset = 0;
  return () => {
    if (offset === drawn.length) {
      drawn = createHash("sha256").update(`${blocks}\n${key}`).digest();
      blocks += 1;
      offset = 0;
    }
    const value = drawn.readUInt32BE(offset) / 2 ** 32;
    offset += 4;
    return value;
  };
}
