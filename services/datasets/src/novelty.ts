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
import { VersionCache } from "./versioncache.js";

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
  private readonly versions: VersionCache<IndexedVersion>;

  constructor(
    private readonly artifacts: ArtifactStore,
    maxTokens = maxCachedTokens,
  ) {
    const sizeOf = ({ train, heldOut }: IndexedVersion) => train.index.tokenCount + heldOut.index.tokenCount;
    this.versions = new VersionCache((version) => this.load(version), sizeOf, maxTokens);
  }

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
    const { train, heldOut } = await this.versions.get(version);
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
}
