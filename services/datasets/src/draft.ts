/**
 * A version in the making. Its new rows lie in a spool; publish() writes the
 * artifact and then commits, so that a version which anyone can see has its
 * file, and a process that dies before has made nothing.
 */
import { randomUUID } from "node:crypto";
import type { Artifact, ArtifactStore } from "@tutelage/platform/artifacts";
import { TutelageError } from "@tutelage/platform/errors";
import { maxRowBytes } from "@tutelage/platform/records";
import { linesOf, readRows, rowFromLine } from "@tutelage/platform/rowfile";
import { VersionDigest } from "@tutelage/platform/rowidentity";
import { type Row, Split } from "@tutelage/proto/task/v1/task";
import { Spool } from "./spool.js";
import type { Committed, DatasetStore, NewVersion, VersionRecord } from "./store.js";

/** An import remembers at most 41 bytes a row: 205 MB at the greatest version. */
export const maxVersionRows = 5_000_000;

/** What imports and appends need. */
export interface Dependencies {
  store: DatasetStore;
  artifacts: ArtifactStore;
  /** Folder for temporary files, on a disk. */
  spoolDirectory: string;
}

export class Draft {
  private readonly digest = new VersionDigest();
  private readonly counts = { [Split.UNSPECIFIED]: 0, [Split.TRAIN]: 0, [Split.DEV]: 0, [Split.TEST]: 0 };
  private added = 0;

  private constructor(
    private readonly dependencies: Dependencies,
    private readonly dataset: { projectId: string; id: string },
    private readonly parent: VersionRecord | undefined,
    private readonly spool: Spool,
  ) {}

  /** Begins a version after `parent`, whose rows are shown to `onRow` in order. */
  static async begin(
    dependencies: Dependencies,
    dataset: { projectId: string; id: string },
    parent: VersionRecord | undefined,
    onRow: (row: Row) => void,
  ): Promise<Draft> {
    const draft = new Draft(dependencies, dataset, parent, await Spool.open(dependencies.spoolDirectory));
    try {
      if (parent !== undefined) {
        for await (const row of readRows(dependencies.artifacts, wholeVersion(parent))) {
          draft.digest.add(row.id);
          onRow(row);
        }
      }
    } catch (error) {
      await draft.close();
      throw error;
    }
    return draft;
  }

  /** Number of rows that this version adds so far. */
  get addedRows(): number {
    return this.added;
  }

  /** Adds a row as row.ts's identify() gives it. Returns a promise only when it wrote. */
  add({ row, line }: { row: Row; line: string }): Promise<void> | undefined {
    if ((this.parent?.rowCount ?? 0) + this.added >= maxVersionRows) {
      throw new TutelageError("resource_exhausted", `A version holds at most ${maxVersionRows} rows; split the data.`, {
        reason: "too_many_rows",
      });
    }
    this.digest.add(row.id);
    this.counts[row.split]++;
    this.added++;
    return this.spool.append(line);
  }

  /** Writes the artifact, then commits. Once only. */
  async publish(
    commit: NewVersion["commit"],
    expectedLatestId: string | null | undefined,
    signal: AbortSignal,
    aside = false,
  ): Promise<Exclude<Committed, { artifactGone: true }>> {
    const { artifacts, store } = this.dependencies;
    const { projectId } = this.dataset;
    const digest = this.digest.finish();
    let uri: string | undefined;
    let committed: Committed | undefined;
    try {
      for (;;) {
        const artifact = await artifacts.put(`${projectId}/versions/${digest}.jsonl`, this.artifactBytes());
        uri = artifact.uri;
        signal.throwIfAborted();
        committed = await store.commitVersion(this.newVersion(digest, artifact, commit, expectedLatestId, aside));
        if (!("artifactGone" in committed)) return committed;
      }
    } finally {
      // Rows of a version that did not come to be, e.g. as its dataset is being deleted, are not left lying.
      if (uri !== undefined && (committed === undefined || !("version" in committed))) {
        const written = uri;
        await store.discardArtifact({ projectId, digest }, () => artifacts.remove(written)).catch(() => {});
      }
    }
  }

  private newVersion(
    digest: string,
    artifact: Artifact,
    commit: NewVersion["commit"],
    expectedLatestId: NewVersion["expectedLatestId"],
    aside: boolean,
  ): NewVersion {
    const { projectId } = this.dataset;
    const id = randomUUID();
    return {
      version: {
        id,
        projectId,
        datasetId: this.dataset.id,
        parentVersionId: this.parent?.id ?? null,
        lineage: [...(this.parent?.lineage ?? []), id],
        digest,
        rowCount: (this.parent?.rowCount ?? 0) + this.added,
        addedRowCount: this.added,
        trainCount: (this.parent?.trainCount ?? 0) + this.counts[Split.TRAIN],
        devCount: (this.parent?.devCount ?? 0) + this.counts[Split.DEV],
        testCount: (this.parent?.testCount ?? 0) + this.counts[Split.TEST],
        artifactUri: artifact.uri,
        artifactSha256: artifact.sha256,
      },
      addedRows: () => this.rows(),
      expectedLatestId,
      aside,
      commit,
      artifactIsThere: () => this.dependencies.artifacts.exists(artifact.uri),
    };
  }

  async close(): Promise<void> {
    await this.spool.close();
  }

  private async *artifactBytes(): AsyncGenerator<Buffer> {
    if (this.parent !== undefined) {
      yield* this.dependencies.artifacts.read(this.parent.artifactUri, this.parent.artifactSha256);
    }
    yield* this.spool.read();
  }

  private async *rows(): AsyncGenerator<Row> {
    for await (const line of linesOf(this.spool.read())) yield rowFromLine(line);
  }
}

/** A version's artifact as platform/rowfile reads it. */
export function wholeVersion(version: VersionRecord, split = Split.UNSPECIFIED) {
  return { uri: version.artifactUri, sha256: version.artifactSha256, split, rowIds: [], excludeRootRowIds: [] };
}

/** True when the row's line is longer than a row may be. */
export function isTooLarge(line: string): boolean {
  return line.length > maxRowBytes / 3 && Buffer.byteLength(line) > maxRowBytes;
}
