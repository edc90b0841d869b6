/**
 * ROUGE-L F without stemming, as Google's rouge-score computes it, and the
 * exact greatest one over many texts. Pure.
 *
 * Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004):
 * P = lcs / candidate length, R = lcs / reference length, F = 2PR / (P + R).
 */

/**
 * Lower-case runs of a-z and 0-9 for ASCII texts, exactly as rouge-score. Other
 * texts, of which rouge-score would drop all but such runs, give runs of
 * letters, numbers and their marks; in scripts that are written without
 * spaces, every character is a token.
 */
export function tokenize(text: string): string[] {
  if (isAscii.test(text)) return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
  return text.normalize("NFC").toLowerCase().match(unicodeToken) ?? [];
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII begins at U+0000.
const isAscii = /^[\u0000-\u007f]*$/;
const unspaced = "\\p{scx=Han}\\p{scx=Hira}\\p{scx=Kana}\\p{scx=Thai}\\p{scx=Laoo}\\p{scx=Khmr}\\p{scx=Mymr}";
const unicodeToken = new RegExp(
  `(?=[${unspaced}])[\\p{L}\\p{N}]\\p{M}*|(?:(?![${unspaced}])[\\p{L}\\p{N}\\p{M}])+`,
  "gu",
);

/** F of a longest common subsequence, 0 to 1, in rouge-score's order of operations; 0 when a text has no tokens. */
export function rougeLF(lcs: number, candidateLength: number, referenceLength: number): number {
  if (lcs === 0) return 0;
  const precision = lcs / candidateLength;
  const recall = lcs / referenceLength;
  return (2 * precision * recall) / (precision + recall);
}

/** ROUGE-L F of two texts, 0 to 1. */
export function rougeL(candidate: string, reference: string): number {
  const index = new RougeIndex();
  index.add(tokenize(reference));
  const tokens = tokenize(candidate);
  const { lcs, length } = index.nearest(tokens);
  return rougeLF(lcs, tokens.length, length);
}

/** The nearest text: F is 2 lcs / (both lengths), kept as integers so that comparing is exact. */
export interface Nearest {
  /** Number of the text in the index; -1 when no text shares a token. */
  text: number;
  lcs: number;
  /** Tokens of the indexed text. */
  length: number;
}

/** True when a's F is greater than b's, for one candidate of the given length. */
export function isNearer(a: Nearest, b: Nearest, candidateLength: number): boolean {
  return a.lcs * (candidateLength + b.length) > b.lcs * (candidateLength + a.length);
}

const initialTokens = 4096;

/**
 * Texts, in the order of their coming, ready to be searched for the nearest.
 *
 * An inverted index over (token, k-th occurrence) counts for every text the
 * tokens that it shares with the candidate, as bags. That bounds the longest
 * common subsequence from above, so only texts whose bound beats the best so
 * far are compared, by the bit-parallel algorithm of Hyyrö (2004): 32 tokens of
 * the candidate a machine operation.
 */
export class RougeIndex {
  private readonly vocabulary = new Map<string, number>();
  /** For each token and k, the texts that have it more than k times. */
  private readonly postings: number[][][] = [];
  private tokens = new Uint32Array(initialTokens);
  private readonly starts: number[] = [0];
  /** Scratch: shared tokens of each text with the candidate; zero between searches. */
  private overlaps = new Uint32Array(1024);
  /** Scratch: 1 + the candidate's slot of each token; zero between searches. */
  private slots = new Uint32Array(1024);

  /** Number of texts. */
  get size(): number {
    return this.starts.length - 1;
  }

  get tokenCount(): number {
    return this.starts[this.size] as number;
  }

  add(tokens: readonly string[]): void {
    const text = this.size;
    let end = this.tokenCount;
    this.tokens = withRoom(this.tokens, end + tokens.length);
    const seen = new Map<number, number>();
    for (const token of tokens) {
      let id = this.vocabulary.get(token);
      if (id === undefined) {
        id = this.vocabulary.size;
        this.vocabulary.set(token, id);
        this.postings.push([]);
      }
      const occurrence = seen.get(id) ?? 0;
      seen.set(id, occurrence + 1);
      const lists = this.postings[id] as number[][];
      const list = lists[occurrence];
      if (list === undefined) lists.push([text]);
      else list.push(text);
      this.tokens[end++] = id;
    }
    this.starts.push(end);
    this.overlaps = withRoom(this.overlaps, this.size);
    this.slots = withRoom(this.slots, this.vocabulary.size);
  }

  /** The text with the greatest F, the earliest of equals. */
  nearest(candidate: readonly string[]): Nearest {
    const ids = candidate.map((token) => this.vocabulary.get(token) ?? -1);
    const touched = this.countOverlaps(ids);
    let best: Nearest = { text: -1, lcs: 0, length: 0 };
    if (touched.length === 0) return best;
    const matcher = new Matcher(ids, this.slots);
    // The text with the greatest bound first: it often is the answer, and then the others need no look.
    const first = this.greatestBound(touched, candidate.length);
    best = this.compare(first, matcher);
    for (const text of touched) {
      const bound = { text, lcs: this.overlaps[text] as number, length: this.lengthOf(text) };
      this.overlaps[text] = 0;
      if (text === first || !isBefore(bound, best, candidate.length)) continue;
      const found = this.compare(text, matcher);
      if (isBefore(found, best, candidate.length)) best = found;
    }
    matcher.clear();
    return best;
  }

  /** Sets this.overlaps and returns the texts that share a token. */
  private countOverlaps(ids: readonly number[]): number[] {
    const { overlaps } = this;
    const touched: number[] = [];
    const seen = new Map<number, number>();
    for (const id of ids) {
      if (id === -1) continue;
      const occurrence = seen.get(id) ?? 0;
      seen.set(id, occurrence + 1);
      const list = (this.postings[id] as number[][])[occurrence];
      if (list === undefined) continue;
      for (const text of list) {
        const overlap = overlaps[text] as number;
        if (overlap === 0) touched.push(text);
        overlaps[text] = overlap + 1;
      }
    }
    return touched;
  }

  private greatestBound(touched: readonly number[], candidateLength: number): number {
    let best = touched[0] as number;
    let bestOverlap = this.overlaps[best] as number;
    let bestTotal = candidateLength + this.lengthOf(best);
    for (const text of touched) {
      const overlap = this.overlaps[text] as number;
      const total = candidateLength + this.lengthOf(text);
      if (overlap * bestTotal > bestOverlap * total) {
        best = text;
        bestOverlap = overlap;
        bestTotal = total;
      }
    }
    return best;
  }

  private lengthOf(text: number): number {
    return (this.starts[text + 1] as number) - (this.starts[text] as number);
  }

  private compare(text: number, matcher: Matcher): Nearest {
    const start = this.starts[text] as number;
    const end = this.starts[text + 1] as number;
    return { text, lcs: matcher.lcs(this.tokens, start, end), length: end - start };
  }
}

/** True when a has the greater F, or the same and comes earlier. */
function isBefore(a: Nearest, b: Nearest, candidateLength: number): boolean {
  const left = a.lcs * (candidateLength + b.length);
  const right = b.lcs * (candidateLength + a.length);
  return left > right || (left === right && a.text < b.text);
}

/** A candidate ready to be compared with many texts. */
class Matcher {
  private readonly words: number;
  /** For each distinct token, `words` words whose bits are the places where it stands. */
  private readonly masks: Uint32Array;
  private readonly row: Uint32Array;

  constructor(
    private readonly ids: readonly number[],
    private readonly slots: Uint32Array,
  ) {
    this.words = Math.max(1, Math.ceil(ids.length / 32));
    let distinct = 0;
    for (const id of ids) if (id !== -1 && slots[id] === 0) slots[id] = ++distinct;
    this.masks = new Uint32Array((distinct + 1) * this.words);
    this.row = new Uint32Array(this.words);
    for (const [place, id] of ids.entries()) {
      if (id === -1) continue;
      const at = (slots[id] as number) * this.words + (place >>> 5);
      this.masks[at] = (this.masks[at] as number) | (1 << (place & 31));
    }
  }

  /** Length of the longest common subsequence with tokens[start..end). */
  lcs(tokens: Uint32Array, start: number, end: number): number {
    return this.words === 1 ? this.shortLcs(tokens, start, end) : this.longLcs(tokens, start, end);
  }

  /** Gives the slots back as zeros. */
  clear(): void {
    for (const id of this.ids) if (id !== -1) this.slots[id] = 0;
  }

  private shortLcs(tokens: Uint32Array, start: number, end: number): number {
    const { masks, slots } = this;
    let row = -1;
    for (let at = start; at < end; at++) {
      const mask = masks[slots[tokens[at] as number] as number] as number;
      if (mask !== 0) row = (row + (row & mask)) | 0 | (row & ~mask);
    }
    return bitCount(~row);
  }

  private longLcs(tokens: Uint32Array, start: number, end: number): number {
    const { masks, slots, row, words } = this;
    row.fill(0xffffffff);
    for (let at = start; at < end; at++) {
      const slot = slots[tokens[at] as number] as number;
      if (slot === 0) continue;
      let carry = 0;
      for (let word = 0, base = slot * words; word < words; word++, base++) {
        const bits = row[word] as number;
        const mask = masks[base] as number;
        const sum = bits + ((bits & mask) >>> 0) + carry;
        carry = sum > 0xffffffff ? 1 : 0;
        row[word] = sum | (bits & ~mask);
      }
    }
    let length = 0;
    for (const bits of row) length += bitCount(~bits);
    return length;
  }
}

function bitCount(bits: number): number {
  let count = bits - ((bits >>> 1) & 0x55555555);
  count = (count & 0x33333333) + ((count >>> 2) & 0x33333333);
  return (((count + (count >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

function withRoom(array: Uint32Array<ArrayBuffer>, length: number): Uint32Array<ArrayBuffer> {
  if (length <= array.length) return array;
  const larger = new Uint32Array(Math.max(length, array.length * 2));
  larger.set(array);
  return larger;
}
