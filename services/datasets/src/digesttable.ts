/**
 * A set of 16-byte digests that numbers its members 0, 1, 2, … in the order of
 * their coming. 21 to 27 bytes a member (16 the digest, the rest open-addressing
 * slots at a load of ⅜ to ¾), where a Set of strings takes about 100. Digests are SHA-256 prefixes, so their bits are
 * the hash, and two that differ never collide at any size that matters (2^-64
 * at 2^32 members).
 */
const wordsPerDigest = 4;
/** Members a block; blocks are added, never copied. */
const blockSize = 65_536;

export class DigestTable {
  private readonly blocks: Uint32Array[] = [];
  /** Number of the member + 1; 0 is free. Always a power of two long. */
  private slots = new Uint32Array(1024);
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** The digest's number; -1 when it is not there. */
  find(digest: Uint32Array): number {
    return (this.slots[this.slotOf(digest, 0)] ?? 0) - 1;
  }

  /** The digest's number: that of before, or the size before when it is new. */
  add(digest: Uint32Array): number {
    const slot = this.slotOf(digest, 0);
    const there = this.slots[slot] ?? 0;
    if (there !== 0) return there - 1;
    const offset = (this.count % blockSize) * wordsPerDigest;
    if (offset === 0) this.blocks.push(new Uint32Array(blockSize * wordsPerDigest));
    (this.blocks[this.blocks.length - 1] as Uint32Array).set(digest, offset);
    this.count++;
    this.slots[slot] = this.count;
    if (this.count * 4 > this.slots.length * 3) this.grow();
    return this.count - 1;
  }

  /** The slot that holds the digest at `offset` of `words`, or the free one where it belongs. */
  private slotOf(words: Uint32Array, offset: number): number {
    const mask = this.slots.length - 1;
    let slot = (words[offset] as number) & mask;
    for (;;) {
      const member = this.slots[slot] as number;
      if (member === 0) return slot;
      const block = this.blocks[Math.floor((member - 1) / blockSize)] as Uint32Array;
      const at = ((member - 1) % blockSize) * wordsPerDigest;
      if (
        block[at] === words[offset] &&
        block[at + 1] === words[offset + 1] &&
        block[at + 2] === words[offset + 2] &&
        block[at + 3] === words[offset + 3]
      ) {
        return slot;
      }
      slot = (slot + 1) & mask;
    }
  }

  private grow(): void {
    this.slots = new Uint32Array(this.slots.length * 2);
    for (let member = 0; member < this.count; member++) {
      const block = this.blocks[Math.floor(member / blockSize)] as Uint32Array;
      this.slots[this.slotOf(block, (member % blockSize) * wordsPerDigest)] = member + 1;
    }
  }
}

/** The first 16 bytes of hexadecimal digits, as words. */
export function digestWords(hex: string): Uint32Array {
  const words = new Uint32Array(wordsPerDigest);
  for (let index = 0; index < wordsPerDigest; index++) {
    words[index] = Number.parseInt(hex.slice(index * 8, index * 8 + 8), 16);
  }
  return words;
}
