/**
 * Deletes datasets. First one is marked, and from then on not found; then its
 * versions go, children first, each with its artifact, rows and keys in one
 * transaction; its own row goes last. Whoever dies in between has left a mark,
 * and the next call, or the next start of the service, goes on.
 */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import type { Logger } from "@tutelage/platform/log";
import { requireProject } from "@tutelage/platform/project";
import { RemovalCount } from "@tutelage/platform/removal";
import type { DeleteDatasetRequest, HoldVersionRequest } from "@tutelage/proto/datasets/v1/datasets";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import type { DeletionStore, User } from "./deletionstore.js";
import { hasNul, requireName, requireUuid } from "./fields.js";
import type { DatasetRecord } from "./store.js";

export interface DeletionDependencies {
  deletions: DeletionStore;
  artifacts: Pick<ArtifactStore, "remove">;
}

const maxHolderLength = 200;
/** A week: longer than anything between a hold and its confirmation. */
const maxExpireSeconds = 604_800;

export async function deleteDataset(
  dependencies: DeletionDependencies,
  { projectId, id, name, checkOnly, owner }: DeleteDatasetRequest,
): Promise<Removal> {
  requireProject(projectId);
  if ((id === "") === (name === "")) throw invalidField("id", "give the id or the name, one of them.");
  const ref = { projectId, id: id === "" ? "" : requireUuid("id", id), name: id === "" ? requireName(name) : "" };
  const begun = await dependencies.deletions.begin(ref, { checkOnly, owner });
  if (begun === undefined) throw notFound("dataset", id === "" ? name : id);
  if (begun.users.length > 0) throw inUse(begun.dataset, begun.users);
  if (checkOnly) return new RemovalCount().removal;
  return await finishDeletion(dependencies, begun.dataset);
}

async function finishDeletion(
  { deletions, artifacts }: DeletionDependencies,
  dataset: DatasetRecord,
): Promise<Removal> {
  const count = new RemovalCount();
  for (const version of await deletions.versions(dataset)) {
    const removed = await deletions.deleteVersion(dataset, version, () => artifacts.remove(version.artifactUri));
    count.add("dataset_versions", removed.versions);
    count.add("rows", removed.rows);
    count.artifactBytes += removed.artifactBytes;
  }
  count.add("datasets", await deletions.deleteDataset(dataset));
  return count.removal;
}

/** Goes on with the deletions that a process which died had begun. Several replicas may do so at once. */
export async function resumeDeletions(dependencies: DeletionDependencies, log: Logger): Promise<void> {
  for (const dataset of await dependencies.deletions.begun()) {
    try {
      const removed = await finishDeletion(dependencies, dataset);
      log.info({ datasetId: dataset.id, removed }, "finished a deletion that had been interrupted");
    } catch (error) {
      log.warn({ err: error, datasetId: dataset.id }, "could not finish an interrupted deletion; the next look tries");
    }
  }
}

/** Checks and places a hold. */
export async function holdVersion(
  { deletions }: DeletionDependencies,
  { projectId, versionId, holder, expireSeconds }: HoldVersionRequest,
): Promise<void> {
  requireProject(projectId);
  const id = requireUuid("version_id", versionId);
  if (!Number.isInteger(expireSeconds) || expireSeconds < 0 || expireSeconds > maxExpireSeconds) {
    throw invalidField("expire_seconds", `must be from 0 to ${maxExpireSeconds}, not ${expireSeconds}.`);
  }
  if (!(await deletions.hold(projectId, id, requireHolder(holder), expireSeconds))) throw notFound("version", id);
}

export function requireHolder(holder: string, field = "holder"): string {
  if (holder !== "" && holder.length <= maxHolderLength && !hasNul(holder)) return holder;
  throw invalidField(field, `must be 1 to ${maxHolderLength} characters, without U+0000, e.g. "campaign/<id>".`);
}

/** Names what must go first. */
function inUse(dataset: DatasetRecord, users: readonly User[]): TutelageError {
  const named = users.map(({ kind, name }) => {
    if (kind === "dataset") return `dataset "${name}", which grew from it`;
    return kind === "owner" ? `${name}, whose own it is` : name;
  });
  return new TutelageError(
    "failed_precondition",
    `Dataset "${dataset.name}" is in use by ${named.join("; ")}. Delete what uses it first.`,
    {
      reason: "dataset_in_use",
      fields: users.map(({ kind, name, versionId }) => ({
        field: "dataset",
        description: {
          owner: `belongs to ${name}; it goes when that is deleted.`,
          holder: `version ${versionId} is held by ${name}; delete that first.`,
          dataset: `version ${versionId} of dataset "${name}" grew from it; delete that dataset first.`,
        }[kind],
      })),
    },
  );
}
