/** Finds the dev and test rows of a version that texts say again, or its own other rows. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { comparedText } from "@tutelage/platform/conversation";
import { TutelageError } from "@tutelage/platform/errors";
import { readRows } from "@tutelage/platform/rowfile";
import {
  type ListOverlapsResponse,
  Overlap,
  type OverlapCount,
  OverlapKind,
  type RowOverlap,
} from "@tutelage/proto/datasets/v1/datasets";
import { type Row, Split } from "@tutelage/proto/task/v1/task";
import { wholeVersion } from "./draft.js";
import { type Found, HeldOutIndex } from "./heldoutindex.js";
import type { VersionRecord } from "./store.js";
import { VersionCache } from "./versioncache.js";

/** Longest stretch of work before others get a turn. */
const turnMs = 10;
/** Words kept in memory over all versions: some 45 bytes each, so some 180 MB. */
const maxCachedWords = 4_000_000;
/** Words of one version's dev and test rows: some 1.4 GB. */
const maxHeldOutWords = 32_000_000;
const overlapsPerMessage = 1_000;

/** A held-out split, ready to be searched. */
interface IndexedSplit {
  split: Split;
  index: HeldOutIndex;
  rowIds: string[];
}

/** From the strongest to the weakest. */
const kinds = [OverlapKind.EXACT, OverlapKind.NGRAM, OverlapKind.NEAR_DUPLICATE];

export class OverlapMeter {
  /** Test before dev: of equals the test row is told. */
  private readonly versions: VersionCache<IndexedSplit[]>;

  constructor(
    private readonly artifacts: ArtifactStore,
    private readonly limits = { cachedWords: maxCachedWords, heldOutWords: maxHeldOutWords },
  ) {
    this.versions = new VersionCache((version) => this.load(version), wordsIn, limits.cachedWords);
  }

  /** One overlap a text. Throws resource_exhausted "held_out_too_large". */
  async measure(version: VersionRecord, texts: readonly string[], signal: AbortSignal): Promise<Overlap[]> {
    const splits = await this.versions.get(version);
    const turns = new Turns(signal);
    const overlaps: Overlap[] = [];
    for (const text of texts) {
      overlaps.push(strongest(splits.map((split) => overlapWith(split, text))));
      await turns.yield();
    }
    return overlaps;
  }

  /** Train rows against dev and test, dev rows against test. */
  async *list(version: VersionRecord, signal: AbortSignal): AsyncGenerator<ListOverlapsResponse> {
    const splits = await this.versions.get(version);
    const turns = new Turns(signal);
    const counts = new Map<string, OverlapCount>();
    const batch: RowOverlap[] = [];
    for await (const row of readRows(this.artifacts, wholeVersion(version))) {
      for (const against of splits.filter(({ split }) => isComparedWith(row, split))) {
        const overlap = overlapWith(against, comparedText(row));
        if (overlap === undefined) continue;
        batch.push({ rowId: row.id, split: row.split, overlap });
        const key = `${row.split} ${against.split} ${overlap.kind}`;
        const count = counts.get(key) ?? { split: row.split, against: against.split, kind: overlap.kind, rows: 0 };
        counts.set(key, { ...count, rows: count.rows + 1 });
      }
      if (batch.length >= overlapsPerMessage) {
        yield { overlaps: batch.splice(0, overlapsPerMessage), counts: [] };
      }
      await turns.yield();
    }
    yield { overlaps: batch, counts: [...counts.values()].sort(byPlace) };
  }

  private async load(version: VersionRecord): Promise<IndexedSplit[]> {
    const splits = [Split.TEST, Split.DEV].map((split) => ({
      split,
      index: new HeldOutIndex(),
      rowIds: [] as string[],
    }));
    for await (const row of readRows(this.artifacts, wholeVersion(version))) {
      const own = splits.find(({ split }) => split === row.split);
      if (own === undefined) continue;
      own.index.add(comparedText(row));
      own.rowIds.push(row.id);
      if (wordsIn(splits) > this.limits.heldOutWords) {
        throw new TutelageError(
          "resource_exhausted",
          `The version's dev and test rows have more than ${this.limits.heldOutWords} words, which is more than texts ` +
            "can be compared with; keep fewer or shorter rows in these splits.",
          { reason: "held_out_too_large" },
        );
      }
    }
    return splits;
  }
}

function wordsIn(splits: readonly IndexedSplit[]): number {
  return splits.reduce((sum, { index }) => sum + index.wordCount, 0);
}

function isComparedWith(row: Row, against: Split): boolean {
  return row.split === Split.TRAIN || (row.split === Split.DEV && against === Split.TEST);
}

function overlapWith({ split, index, rowIds }: IndexedSplit, text: string): Overlap | undefined {
  const found: Found | undefined = index.find(text);
  return found && { kind: found.kind, rowId: rowIds[found.row] ?? "", split, strength: found.strength };
}

function strongest(overlaps: readonly (Overlap | undefined)[]): Overlap {
  const rank = ({ kind }: Overlap) => kinds.indexOf(kind);
  return overlaps
    .filter((one) => one !== undefined)
    .reduce(
      (best, one) =>
        best.kind === OverlapKind.UNSPECIFIED ||
        rank(one) < rank(best) ||
        (rank(one) === rank(best) && one.strength > best.strength)
          ? one
          : best,
      Overlap.fromPartial({}),
    );
}

/** Train before dev, against dev before test, the strongest kind first. */
function byPlace(a: OverlapCount, b: OverlapCount): number {
  const order = [Split.TRAIN, Split.DEV, Split.TEST];
  return (
    order.indexOf(a.split) - order.indexOf(b.split) ||
    order.indexOf(a.against) - order.indexOf(b.against) ||
    kinds.indexOf(a.kind) - kinds.indexOf(b.kind)
  );
}

/** Lets others work now and then, and stops when nobody waits any more. */
class Turns {
  private began = performance.now();

  constructor(private readonly signal: AbortSignal) {}

  async yield(): Promise<void> {
    if (performance.now() - this.began <= turnMs) return;
    await nextTurn();
    this.signal.throwIfAborted();
    this.began = performance.now();
  }
}
