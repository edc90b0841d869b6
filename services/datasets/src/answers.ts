/** Stored records as messages of the contract. Pure. */
import type { Dataset, Version } from "@tutelage/proto/datasets/v1/datasets";
import type { DatasetRecord, VersionRecord } from "./store.js";

export function datasetMessage(record: DatasetRecord): Dataset {
  return {
    id: record.id,
    projectId: record.projectId,
    name: record.name,
    latestVersionId: record.latestVersionId ?? "",
    createdAt: record.createdAt,
  };
}

export function versionMessage(record: VersionRecord): Version {
  return {
    id: record.id,
    projectId: record.projectId,
    datasetId: record.datasetId,
    parentVersionId: record.parentVersionId ?? "",
    digest: record.digest,
    rowCount: record.rowCount,
    addedRowCount: record.addedRowCount,
    splits: { train: record.trainCount, dev: record.devCount, test: record.testCount },
    artifactUri: record.artifactUri,
    artifactSha256: record.artifactSha256,
    createdAt: record.createdAt,
  };
}
