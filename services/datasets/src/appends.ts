/** Appends rows to a version: what campaigns do with the rows that a teacher wrote. */

import { createHash, type Hash } from "node:crypto";
import { invalidField, notFound } from "@tutelage/platform/errors";
import { requireProject } from "@tutelage/platform/project";
import { identify } from "@tutelage/platform/rowidentity";
import type { AppendHeader, AppendRowsRequest, Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin } from "@tutelage/proto/task/v1/task";
import { versionMessage } from "./answers.js";
import { DigestTable, digestWords } from "./digesttable.js";
import { type Dependencies, Draft, isTooLarge } from "./draft.js";
import { requireKey, requireUuid, requireWhole } from "./fields.js";
import { versionOf } from "./imports.js";
import { checkAppended } from "./row.js";
import type { VersionRecord } from "./store.js";

const maxBatchRows = 1_000;
const rowIdPattern = /^[0-9a-f]{32}$/;

/** The ids of a version's rows, and which of them are seed rows. */
class RowIds {
  private readonly ids = new DigestTable();
  private seeds = new Uint8Array(1024);

  has(id: string): boolean {
    return rowIdPattern.test(id) && this.ids.find(digestWords(id)) !== -1;
  }

  isSeed(id: string): boolean {
    return rowIdPattern.test(id) && this.seeds[this.ids.find(digestWords(id))] === 1;
  }

  /** False when the id is there already. */
  add(row: Row): boolean {
    const size = this.ids.size;
    const index = this.ids.add(digestWords(row.id));
    if (index !== size) return false;
    if (index === this.seeds.length) {
      const larger = new Uint8Array(this.seeds.length * 2);
      larger.set(this.seeds);
      this.seeds = larger;
    }
    this.seeds[index] = row.origin === RowOrigin.SEED ? 1 : 0;
    return true;
  }
}

export async function appendRows(
  dependencies: Dependencies,
  requests: AsyncIterable<AppendRowsRequest>,
  signal: AbortSignal,
): Promise<Version> {
  const { store } = dependencies;
  let append: Append | undefined;
  let end: number | undefined;
  try {
    for await (const { part } of requests) {
      if (part?.$case === "header") {
        if (append !== undefined) throw invalidField("header", "came twice; send it once, first.");
        append = await Append.begin(dependencies, part.value);
      } else if (part?.$case === "batch") {
        if (append === undefined) throw invalidField("header", "must be the first message of the stream.");
        if (part.value.rows.length > maxBatchRows) {
          throw invalidField("batch.rows", `must be at most ${maxBatchRows}; send more batches.`);
        }
        for (const row of part.value.rows) await append.add(row);
      } else if (part?.$case === "end") {
        end = part.value.rowCount;
      }
    }
    signal.throwIfAborted();
    if (append === undefined) throw invalidField("header", "is missing; send it as the first message of the stream.");
    requireWhole(end, append.count, "rows");
    const { parent, datasetId, idempotencyKey, draft } = append;
    const requestSha256 = append.finish();
    const before = await store.commitOf(parent.projectId, datasetId, idempotencyKey);
    if (before !== undefined) return versionMessage(await versionOf(dependencies, before, requestSha256));
    // The same rows in the same dataset are the parent; in another dataset they begin it.
    if (draft.addedRows === 0 && datasetId === parent.datasetId) return versionMessage(parent);
    const result = { importedRows: draft.addedRows, rejectedRows: 0, rejects: [] };
    const committed = await draft.publish({ idempotencyKey, requestSha256, result }, undefined, signal, append.aside);
    if ("version" in committed) return versionMessage(committed.version);
    if ("before" in committed) return versionMessage(await versionOf(dependencies, committed.before, requestSha256));
    throw new Error("an append does not depend on the newest version");
  } finally {
    await append?.draft.close();
  }
}

/** An append under way. */
class Append {
  count = 0;

  private constructor(
    readonly parent: VersionRecord,
    /** The dataset that gets the new version. */
    readonly datasetId: string,
    readonly idempotencyKey: string,
    readonly aside: boolean,
    readonly draft: Draft,
    private readonly ids: RowIds,
    /** Over the parent and the rows: what an idempotency key stands for. */
    private readonly sha256: Hash,
  ) {}

  static async begin(dependencies: Dependencies, header: AppendHeader): Promise<Append> {
    const projectId = requireProject(header.projectId);
    const parentId = requireUuid("parent_version_id", header.parentVersionId);
    const idempotencyKey = requireKey(header.idempotencyKey);
    const parent = await dependencies.store.version(projectId, parentId);
    if (parent === undefined) throw notFound("version", parentId);
    const datasetId = header.datasetId === "" ? parent.datasetId : requireUuid("dataset_id", header.datasetId);
    const dataset = await dependencies.store.datasetById(projectId, datasetId);
    if (dataset === undefined) throw notFound("dataset", datasetId);
    const ids = new RowIds();
    const draft = await Draft.begin(dependencies, dataset, parent, (row) => ids.add(row));
    const sha256 = createHash("sha256").update(`append ${parent.id}\n`);
    return new Append(parent, datasetId, idempotencyKey, header.aside, draft, ids, sha256);
  }

  async add(given: Row): Promise<void> {
    const field = `rows[${this.count++}]`;
    checkAppended(given, field);
    if (given.origin === RowOrigin.SYNTHETIC) {
      if (!this.ids.isSeed(given.rootRowId)) {
        throw invalidField(`${field}.root_row_id`, "is not the id of a seed row of the version.", "root_row_unknown");
      }
      if (!this.ids.has(given.parentRowId)) {
        throw invalidField(`${field}.parent_row_id`, "is not the id of a row of the version.", "parent_row_unknown");
      }
    }
    const identified = identify(given);
    if (isTooLarge(identified.line)) throw invalidField(field, "is larger than 1 MiB; shorten it.", "too_large");
    if (!this.ids.add(identified.row)) {
      throw invalidField(field, `is in the version already (row ${identified.row.id}); leave it out.`, "duplicate_row");
    }
    this.sha256.update(identified.row.id);
    const writing = this.draft.add(identified);
    if (writing !== undefined) await writing;
  }

  finish(): string {
    return this.sha256.digest("hex");
  }
}
