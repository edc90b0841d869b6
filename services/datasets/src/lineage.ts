/** A row's family: from which row it was written, and which were written from it. */
import { notFound } from "@tutelage/platform/errors";
import type { RowLineage } from "@tutelage/proto/datasets/v1/datasets";
import type { Row } from "@tutelage/proto/task/v1/task";
import { versionMessage } from "./answers.js";
import type { Relative, RowStore } from "./rowstore.js";
import type { DatasetStore, VersionRecord } from "./store.js";

const mostChildren = 1_000;

/**
 * Kinship in the family of one seed row. Ancestors from the parent upwards,
 * without the seed row, which is not in the family; children in the family's
 * order. Pure.
 */
export function kinship(family: readonly Relative[], rowId: string) {
  const parentOf = new Map(family.map(({ id, parentId }) => [id, parentId]));
  const childrenOf = new Map<string, string[]>();
  for (const { id, parentId } of family) {
    const siblings = childrenOf.get(parentId);
    if (siblings === undefined) childrenOf.set(parentId, [id]);
    else siblings.push(id);
  }
  const ancestors: string[] = [];
  for (let id = parentOf.get(rowId); id !== undefined && parentOf.has(id); id = parentOf.get(id)) ancestors.push(id);
  const children = childrenOf.get(rowId) ?? [];
  let descendants = 0;
  const toVisit = [...children];
  for (let id = toVisit.pop(); id !== undefined; id = toVisit.pop()) {
    descendants++;
    toVisit.push(...(childrenOf.get(id) ?? []));
  }
  return { ancestors, children, descendants };
}

/** Throws not_found when the version does not hold the row. */
export async function lineageOf(
  stores: { store: DatasetStore; rowStore: RowStore },
  version: VersionRecord,
  rowId: string,
): Promise<RowLineage> {
  const { store, rowStore } = stores;
  const found = await rowStore.row(version, rowId);
  if (found === undefined) throw notFound("row", rowId);
  const { row, addedIn } = found;
  const rootId = row.rootRowId === "" ? row.id : row.rootRowId;
  const { ancestors, children, descendants } = kinship(await rowStore.family(version, rootId), row.id);
  const shownChildren = children.slice(0, mostChildren);
  const [relatives, root, added] = await Promise.all([
    rowStore.relatives(version, rootId, [...ancestors, ...shownChildren]),
    rootId === row.id ? undefined : rowStore.row(version, rootId),
    store.version(version.projectId, addedIn),
  ]);
  const byId = new Map(relatives.map((one) => [one.id, one]));
  const rowsOf = (ids: readonly string[]) =>
    ids.map((id) => byId.get(id)).filter((one): one is Row => one !== undefined);
  return {
    row,
    ancestors: [...rowsOf(ancestors), ...(root === undefined ? [] : [root.row])],
    children: rowsOf(shownChildren),
    childCount: children.length,
    descendantCount: descendants,
    addedIn: added === undefined ? undefined : versionMessage(added),
  };
}
