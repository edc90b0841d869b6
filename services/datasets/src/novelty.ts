/** Measures how near texts are to a version's rows and to one another. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { comparedText } from "@tutelage/platform/conversation";
import { isNearer, RougeIndex, rougeLF, tokenize } from "@tutelage/platform/rouge";
import { readRows } from "@tutelage/platform/rowfile";
import type { Novelty } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { wholeVersion } from "./draft.js";
import type { VersionRecord } from "./store.js";

/** Longest stretch of work before others get a turn. */
const turnMs = 10;
/** Tokens kept in memory over all versions: about 50 bytes each (measured at 300,000 rows), so some 200 MB. */
const maxCachedTokens = 4_000_000;

/** Rows ready to be searched. */
interface IndexedRows {
  index: RougeIndex;
  rowIds: string[];
}

/** A version's rows: those that are trained on, and those that measure. */
interface IndexedVersion {
  train: IndexedRows;
  heldOut: IndexedRows;
}

export class NoveltyMeter {
  /** By project and digest; the least recently used first. */
  private readonly cache = new Map<string, Promise<IndexedVersion>>();
  private readonly sizes = new Map<string, number>();
  private cachedTokens = 0;

  constructor(
    private readonly artifacts: ArtifactStore,
    private readonly maxTokens = maxCachedTokens,
  ) {}

  /**
   * One measurement a text, exact. Ties go to a train row, then to a held-out row, and to the earliest of each.
   * @param earlier the texts before these, to which these are added
   */
  async measure(
    version: VersionRecord,
    texts: readonly string[],
    signal: AbortSignal,
    earlier = new RougeIndex(),
  ): Promise<Novelty[]> {
    const { train, heldOut } = await this.indexed(version);
    const novelties: Novelty[] = [];
    let turnBegan = performance.now();
    for (const text of texts) {
      const tokens = tokenize(text);
      const trained = train.index.nearest(tokens);
      const held = heldOut.index.nearest(tokens);
      const isHeld = isNearer(held, trained, tokens.length);
      const row = isHeld ? held : trained;
      const before = earlier.nearest(tokens);
      earlier.add(tokens);
      const isText = isNearer(before, row, tokens.length);
      const nearest = isText ? before : row;
      novelties.push({
        maxRougeL: rougeLF(nearest.lcs, tokens.length, nearest.length),
        nearestRowId: isText ? "" : ((isHeld ? heldOut : train).rowIds[row.text] ?? ""),
        nearestTextIndex: isText ? before.text : -1,
        heldOutMaxRougeL: rougeLF(held.lcs, tokens.length, held.length),
      });
      if (performance.now() - turnBegan > turnMs) {
        await nextTurn();
        signal.throwIfAborted();
        turnBegan = performance.now();
      }
    }
    return novelties;
  }

  private async indexed(version: VersionRecord): Promise<IndexedVersion> {
    const key = `${version.projectId}/${version.digest}`;
    const cached = this.cache.get(key);
    if (cached !== undefined) {
      this.cache.delete(key);
      this.cache.set(key, cached);
      return await cached;
    }
    const loading = this.load(version);
    this.cache.set(key, loading);
    try {
      const loaded = await loading;
      const tokens = loaded.train.index.tokenCount + loaded.heldOut.index.tokenCount;
      this.sizes.set(key, tokens);
      this.cachedTokens += tokens;
      this.evict();
      return loaded;
    } catch (error) {
      this.cache.delete(key);
      throw error;
    }
  }

  private async load(version: VersionRecord): Promise<IndexedVersion> {
    const train: IndexedRows = { index: new RougeIndex(), rowIds: [] };
    const heldOut: IndexedRows = { index: new RougeIndex(), rowIds: [] };
    for await (const row of readRows(this.artifacts, wholeVersion(version))) {
      const rows = row.split === Split.TRAIN ? train : heldOut;
      rows.index.add(tokenize(comparedText(row)));
      rows.rowIds.push(row.id);
    }
    return { train, heldOut };
  }

  /** A version too large for the bound is dropped too, once it has been used. */
  private evict(): void {
    for (const key of this.cache.keys()) {
      if (this.cachedTokens <= this.maxTokens) return;
      const size = this.sizes.get(key);
      if (size === undefined) continue; // still loading
      this.cache.delete(key);
      this.sizes.delete(key);
      this.cachedTokens -= size;
    }
  }
}
