/** Runs of words that rows hold, by their hash, and the words of a row that a text shares in such runs. */
import { fewestWholeWords, mostRowsOfRun, runWords } from "./overlap.js";

/** Where a place stands: its row, with the places at which that begins and ends. */
type Bounds = (place: number) => { row: number; start: number; end: number };

/** What a text shares with a row so far. */
interface SharedRuns {
  /** Where in the text the last run ended. */
  textEnd: number;
  /** From where to where they stand in the row. */
  stretches: [number, number][];
}

const none = -1;

/**
 * A hash table of chains in flat arrays: 16 bytes a run. A row's run is kept
 * where it stands first, so that a text of one word over and over costs no more
 * than others.
 */
export class Runs {
  private heads = new Int32Array(1024).fill(none);
  private hashes = new Int32Array(1024);
  private places = new Int32Array(1024);
  private next = new Int32Array(1024);
  private count = 0;

  /** Adds the runs of `length` words of words[start..end). */
  add(words: Int32Array, start: number, end: number, length: number): void {
    const inRow = new Set<number>();
    for (let place = start; place + length <= end; place++) {
      const hash = hashOf(words, place, length);
      if (inRow.has(hash)) continue;
      inRow.add(hash);
      this.push(hash, place);
    }
  }

  /**
   * Words of each row that stand in runs of the text, for rows that share one.
   * @param ids the text's words; one that no row has is negative
   */
  sharedWords(ids: readonly number[], words: Int32Array, bounds: Bounds): Map<number, number> {
    const text = Int32Array.from(ids);
    const sharedBy = new Map<number, SharedRuns>();
    /** How many known words begin at each place of the text, up to runWords. */
    const known = new Uint8Array(text.length + 1);
    for (let at = text.length - 1; at >= 0; at--) {
      known[at] = (text[at] as number) < 0 ? 0 : Math.min(runWords, (known[at + 1] as number) + 1);
    }
    for (let at = 0; at < text.length; at++) {
      for (let length = fewestWholeWords; length <= (known[at] as number); length++) {
        const places = this.placesOf(hashOf(text, at, length));
        if (length === runWords && places.length > mostRowsOfRun) continue;
        for (const place of places) {
          const { row, start, end } = bounds(place);
          // A run shorter than runWords is a row that is short as a whole.
          if (length < runWords && end - start !== length) continue;
          const shared = sharedBy.get(row);
          if (shared !== undefined && at + length <= shared.textEnd) continue;
          const run = runLength(text, at, words, place, end);
          if (run < length) continue;
          const before = runLengthBefore(text, at, words, place, start);
          const stretch: [number, number] = [place - before, place + run];
          sharedBy.set(row, { textEnd: at + run, stretches: [...(shared?.stretches ?? []), stretch] });
        }
      }
    }
    return new Map([...sharedBy].map(([row, { stretches }]) => [row, covered(stretches)]));
  }

  /** Where runs with a hash stand, one place a row. */
  private placesOf(hash: number): number[] {
    const places: number[] = [];
    const head = this.heads[hash & (this.heads.length - 1)] as number;
    for (let entry = head; entry !== none; entry = this.next[entry] as number) {
      if (this.hashes[entry] === hash) places.push(this.places[entry] as number);
    }
    return places;
  }

  private push(hash: number, place: number): void {
    if (this.count === this.hashes.length) this.grow();
    const entry = this.count++;
    this.hashes[entry] = hash;
    this.places[entry] = place;
    this.link(entry);
  }

  private link(entry: number): void {
    const slot = (this.hashes[entry] as number) & (this.heads.length - 1);
    this.next[entry] = this.heads[slot] as number;
    this.heads[slot] = entry;
  }

  private grow(): void {
    const larger = (array: Int32Array) => {
      const grown = new Int32Array(array.length * 2);
      grown.set(array);
      return grown;
    };
    this.hashes = larger(this.hashes);
    this.places = larger(this.places);
    this.next = larger(this.next);
    this.heads = new Int32Array(this.hashes.length).fill(none);
    for (let entry = 0; entry < this.count; entry++) this.link(entry);
  }
}

/** Of some words and their number; equal runs have equal hashes, and other runs are compared. */
function hashOf(words: Int32Array, start: number, length: number): number {
  let hash = length;
  for (let at = start; at < start + length; at++) {
    hash = Math.imul(hash ^ (words[at] as number), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

/** How many words are the same from a place of the text and one of a row on. */
function runLength(text: Int32Array, at: number, words: Int32Array, place: number, end: number): number {
  let length = 0;
  while (at + length < text.length && place + length < end && text[at + length] === words[place + length]) length++;
  return length;
}

/** How many words before both places are the same: the run may have begun with a turn of phrase. */
function runLengthBefore(text: Int32Array, at: number, words: Int32Array, place: number, start: number): number {
  let length = 0;
  while (at > length && place - length > start && text[at - length - 1] === words[place - length - 1]) length++;
  return length;
}

/** How many places lie in any of the stretches. */
function covered(stretches: [number, number][]): number {
  let count = 0;
  let until = 0;
  for (const [start, end] of stretches.sort(([a], [b]) => a - b)) {
    count += Math.max(0, end - Math.max(start, until));
    until = Math.max(until, end);
  }
  return count;
}
