/** The gRPC handlers: check, call, answer. */
import { hash } from "node:crypto";
import { invalidField, notFound } from "@tutelage/platform/errors";
import { fitting, isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { requireProject } from "@tutelage/platform/project";
import { RougeIndex } from "@tutelage/platform/rouge";
import { readRows, rowToLine } from "@tutelage/platform/rowfile";
import type { DatasetsServiceImplementation } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { datasetMessage, versionMessage } from "./answers.js";
import { appendRows } from "./appends.js";
import { comparisonPage } from "./comparison.js";
import { type DeletionDependencies, deleteDataset, holdVersion, requireHolder } from "./deletion.js";
import { type Dependencies, wholeVersion } from "./draft.js";
import { checkRowFilter, requireName, requireRowId, requireUuid } from "./fields.js";
import { collectGarbage } from "./garbage.js";
import { importRows } from "./imports.js";
import { lineageOf } from "./lineage.js";
import type { NoveltyMeter } from "./novelty.js";
import type { OverlapMeter } from "./overlapmeter.js";
import type { RowStore } from "./rowstore.js";
import type { VersionRecord } from "./store.js";

const maxExportChunkBytes = 64 * 1024;
const maxTexts = 10_000;

function requireTexts({ length }: readonly string[]): void {
  if (length > maxTexts) {
    throw invalidField(
      "texts",
      `holds ${length}, at most ${maxTexts} are taken; send more in further messages of a stream.`,
    );
  }
}

/** A stream is about one version. */
function requireSame(version: VersionRecord, projectId: string, versionId: string): void {
  if (version.projectId !== projectId || version.id !== versionId)
    throw invalidField("version_id", "is another than the stream's first request named; use one stream each.");
}

export function datasetsService(
  dependencies: Dependencies &
    DeletionDependencies & { novelty: NoveltyMeter; overlaps: OverlapMeter; rowStore: RowStore },
): DatasetsServiceImplementation {
  const { store, rowStore, artifacts, novelty, overlaps, deletions } = dependencies;

  async function versionOf(projectId: string, field: string, id: string): Promise<VersionRecord> {
    const version = await store.version(requireProject(projectId), requireUuid(field, id));
    if (version === undefined) throw notFound("version", id);
    return version;
  }

  return {
    async createDataset(request) {
      const owner = request.owner === "" ? "" : requireHolder(request.owner, "owner");
      const [projectId, name] = [requireProject(request.projectId), requireName(request.name)];
      return datasetMessage(await store.createDataset(projectId, name, owner));
    },

    async getDataset({ projectId, id, name }) {
      requireProject(projectId);
      if ((id === "") === (name === "")) throw invalidField("id", "give the id or the name, one of them.");
      const dataset =
        id !== ""
          ? await store.datasetById(projectId, requireUuid("id", id))
          : await store.datasetByName(projectId, requireName(name));
      if (dataset === undefined) throw notFound("dataset", id === "" ? name : id);
      return datasetMessage(dataset);
    },

    async listDatasets({ projectId, pageSize, cursor }) {
      const listing = `datasets ${requireProject(projectId)}`;
      const size = requirePageSize(pageSize);
      const page = await store.listDatasets(projectId, size + 1, readCursor(cursor, listing, isNumber));
      const datasets = page.slice(0, size);
      return {
        datasets: datasets.map(datasetMessage),
        nextCursor: nextCursor(listing, page.length > size, datasets.at(-1)?.ordinal),
      };
    },

    importRows: (requests, context) => importRows(dependencies, requests, context.signal),

    appendRows: (requests, context) => appendRows(dependencies, requests, context.signal),

    async getVersion({ projectId, id }) {
      return versionMessage(await versionOf(projectId, "id", id));
    },

    async listVersions({ projectId, datasetId, pageSize, cursor }) {
      const id = requireUuid("dataset_id", datasetId);
      if ((await store.datasetById(requireProject(projectId), id)) === undefined) throw notFound("dataset", datasetId);
      const listing = `versions ${projectId} ${id}`;
      const size = requirePageSize(pageSize);
      const page = await store.listVersions(projectId, id, size + 1, readCursor(cursor, listing, isNumber));
      const versions = page.slice(0, size);
      return {
        versions: versions.map(versionMessage),
        nextCursor: nextCursor(listing, page.length > size, versions.at(-1)?.ordinal),
      };
    },

    async listRows({ projectId, versionId, pageSize, cursor, ...filter }) {
      const version = await versionOf(projectId, "version_id", versionId);
      checkRowFilter(filter);
      // The filters themselves may be long; a cursor should not be.
      const listing = `rows ${projectId} ${version.id} ${hash("sha256", JSON.stringify(filter), "hex").slice(0, 16)}`;
      const size = requirePageSize(pageSize);
      const places = await store.rowPlaces(version, filter, size + 1, readCursor(cursor, listing, isNumber) ?? -1);
      const count = fitting(
        places.map(({ bytes }) => bytes),
        size,
      );
      const shown = places.slice(0, count);
      return {
        rows: await rowStore.rowsAt(projectId, shown),
        nextCursor: nextCursor(listing, places.length > count, shown.at(-1)?.position),
      };
    },

    async diffVersions({ projectId, versionId, againstVersionId, ...page }) {
      const version = await versionOf(projectId, "version_id", versionId);
      const otherId = againstVersionId === "" ? (version.parentVersionId ?? "") : againstVersionId;
      const against = otherId === "" ? undefined : await versionOf(projectId, "against_version_id", otherId);
      return await comparisonPage(rowStore, version, against, page);
    },

    async getRowLineage({ projectId, versionId, rowId }) {
      const version = await versionOf(projectId, "version_id", versionId);
      return await lineageOf({ store, rowStore }, version, requireRowId("row_id", rowId));
    },

    async *exportRows({ projectId, versionId, split }) {
      const version = await versionOf(projectId, "version_id", versionId);
      const bytes =
        split === Split.UNSPECIFIED
          ? artifacts.read(version.artifactUri, version.artifactSha256)
          : linesOfSplit(version, split);
      for await (const block of bytes) {
        for (let start = 0; start < block.byteLength; start += maxExportChunkBytes) {
          yield { chunk: block.subarray(start, start + maxExportChunkBytes) };
        }
      }
    },

    async measureNovelty({ projectId, versionId, texts }, context) {
      requireTexts(texts);
      const version = await versionOf(projectId, "version_id", versionId);
      return { novelties: await novelty.measure(version, texts, context.signal) };
    },

    async *measureNovelties(requests, context) {
      const earlier = new RougeIndex();
      let version: VersionRecord | undefined;
      for await (const { projectId, versionId, texts } of requests) {
        requireTexts(texts);
        version ??= await versionOf(projectId, "version_id", versionId);
        requireSame(version, projectId, versionId);
        yield { novelties: await novelty.measure(version, texts, context.signal, earlier) };
      }
    },

    async *measureOverlaps(requests, context) {
      let version: VersionRecord | undefined;
      for await (const { projectId, versionId, texts } of requests) {
        requireTexts(texts);
        version ??= await versionOf(projectId, "version_id", versionId);
        requireSame(version, projectId, versionId);
        yield { overlaps: await overlaps.measure(version, texts, context.signal) };
      }
    },

    async *listOverlaps({ projectId, versionId }, context) {
      yield* overlaps.list(await versionOf(projectId, "version_id", versionId), context.signal);
    },

    async holdVersion(request) {
      await holdVersion(dependencies, request);
      return {};
    },

    async releaseHolds({ projectId, holder }) {
      return { released: await deletions.release(requireProject(projectId), requireHolder(holder)) };
    },

    async collectGarbage(request, { signal }) {
      return await collectGarbage(dependencies, request, signal);
    },

    deleteDataset: (request) => deleteDataset(dependencies, request),
  };

  /** Lines in blocks of about a chunk. */
  async function* linesOfSplit(version: VersionRecord, split: Split): AsyncGenerator<Buffer> {
    let lines: string[] = [];
    let length = 0;
    for await (const row of readRows(artifacts, wholeVersion(version, split))) {
      const line = rowToLine(row);
      lines.push(line);
      length += line.length;
      if (length < maxExportChunkBytes) continue;
      yield Buffer.from(lines.join(""));
      lines = [];
      length = 0;
    }
    if (length > 0) yield Buffer.from(lines.join(""));
  }
}
