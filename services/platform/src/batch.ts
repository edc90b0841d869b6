/** Cuts lists into messages. Pure. */

/**
 * Items in batches, in order: each holds at most `mostItems`, and at most
 * `mostSize` in all unless a single item is larger.
 */
export function inBatches<Item>(
  items: readonly Item[],
  sizeOf: (item: Item) => number,
  { mostItems, mostSize }: { mostItems: number; mostSize: number },
): Item[][] {
  const batches: Item[][] = [];
  let size = 0;
  for (const item of items) {
    const own = sizeOf(item);
    size += own;
    let batch = batches.at(-1);
    if (batch === undefined || batch.length === mostItems || size > mostSize) {
      batch = [];
      batches.push(batch);
      size = own;
    }
    batch.push(item);
  }
  return batches;
}
