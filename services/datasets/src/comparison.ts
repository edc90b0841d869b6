/** Two versions compared by the ids of their rows. What a side is, and how its pages go on, is pure. */

import { fitting, isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { originFromName, splitFromName } from "@tutelage/platform/rowfile";
import {
  type ChangeCount,
  type DiffSummary,
  type DiffVersionsRequest,
  type DiffVersionsResponse,
  type RowChange,
  RowChangeKind,
} from "@tutelage/proto/datasets/v1/datasets";
import type { RowPlace } from "./rowplace.js";
import type { RowStore, Side } from "./rowstore.js";
import type { VersionRecord } from "./store.js";

/**
 * The two sides of a comparison. A version has each row once and its rows are
 * those of its lineage, so what both lineages share needs no look.
 */
export function sidesOf(version: VersionRecord, against: VersionRecord | undefined): { added: Side; removed: Side } {
  const { projectId, lineage } = version;
  const other = against?.lineage ?? [];
  return {
    added: { projectId, versionIds: lineage.filter((id) => !other.includes(id)) },
    removed: { projectId, versionIds: other.filter((id) => !lineage.includes(id)) },
  };
}

/** Where a page ends: added rows count up from 1, removed ones down from -1, by their position in their version. */
const placeOf = (kind: RowChangeKind, position: number) =>
  kind === RowChangeKind.ADDED ? position + 1 : -(position + 1);

/** A page of the comparison; with the summary when it is the first. */
export async function comparisonPage(
  store: RowStore,
  version: VersionRecord,
  against: VersionRecord | undefined,
  { kind, pageSize, cursor }: Pick<DiffVersionsRequest, "kind" | "pageSize" | "cursor">,
): Promise<DiffVersionsResponse> {
  const listing = `diff ${version.projectId} ${version.id} ${against?.id ?? ""} ${kind}`;
  const size = requirePageSize(pageSize);
  const place = readCursor(cursor, listing, isNumber) ?? 0;
  const { added, removed } = sidesOf(version, against);
  const found: (RowPlace & { kind: RowChangeKind })[] = [];
  if (kind !== RowChangeKind.REMOVED && place >= 0) {
    const places = await store.placesOnlyIn(added, removed, size + 1, place - 1);
    found.push(...places.map((one) => ({ kind: RowChangeKind.ADDED, ...one })));
  }
  if (kind !== RowChangeKind.ADDED && found.length <= size) {
    const after = place < 0 ? -place - 1 : -1;
    const places = await store.placesOnlyIn(removed, added, size + 1 - found.length, after);
    found.push(...places.map((one) => ({ kind: RowChangeKind.REMOVED, ...one })));
  }
  const count = fitting(
    found.map(({ bytes }) => bytes),
    size,
  );
  const shown = found.slice(0, count);
  const last = shown.at(-1);
  // Of one kind after the other, as places of two versions may be alike.
  const rowsOfKind = async (only: RowChangeKind): Promise<RowChange[]> => {
    const places = shown.filter((one) => one.kind === only);
    return (await store.rowsAt(version.projectId, places)).map((row) => ({ kind: only, row }));
  };
  return {
    changes: [...(await rowsOfKind(RowChangeKind.ADDED)), ...(await rowsOfKind(RowChangeKind.REMOVED))],
    nextCursor: nextCursor(listing, found.length > count, last && placeOf(last.kind, last.position)),
    againstVersionId: against?.id ?? "",
    summary: cursor === "" ? await summaryOf(store, version, { added, removed }) : undefined,
  };
}

async function summaryOf(
  store: RowStore,
  version: VersionRecord,
  { added, removed }: { added: Side; removed: Side },
): Promise<DiffSummary> {
  const [addedCounts, removedCounts] = await Promise.all([
    store.countOnlyIn(added, removed),
    store.countOnlyIn(removed, added),
  ]);
  const sum = (counts: { rows: number }[]) => counts.reduce((total, { rows }) => total + rows, 0);
  const asMessages = (kind: RowChangeKind, counts: typeof addedCounts): ChangeCount[] =>
    counts.map(({ split, origin, rows }) => ({
      kind,
      split: splitFromName(split),
      origin: originFromName(origin),
      rows,
    }));
  return {
    addedRows: sum(addedCounts),
    removedRows: sum(removedCounts),
    unchangedRows: version.rowCount - sum(addedCounts),
    counts: [...asMessages(RowChangeKind.ADDED, addedCounts), ...asMessages(RowChangeKind.REMOVED, removedCounts)],
  };
}
