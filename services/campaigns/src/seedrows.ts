/** Seed rows as a campaign sees them: what its students made of each, and what was written from it. */
import { stateOf } from "@tutelage/platform/seedrowstate";
import type { SeedRow } from "@tutelage/proto/campaigns/v1/campaigns";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import type { Services } from "./clients.js";
import type { CampaignKey, CampaignStore } from "./store.js";

/** A page of them in the order of the dataset; the cursor is the datasets service's. */
export async function seedRowsPage(
  { store, services }: { store: CampaignStore; services: Pick<Services, "datasets"> },
  key: CampaignKey,
  page: { datasetVersionId: string; pageSize: number; cursor: string },
  signal: AbortSignal,
): Promise<{ rows: SeedRow[]; nextCursor: string }> {
  const { rows, nextCursor } = await services.datasets.listRows(
    {
      projectId: key.projectId,
      versionId: page.datasetVersionId,
      split: Split.TRAIN,
      origin: RowOrigin.SEED,
      pageSize: page.pageSize,
      cursor: page.cursor,
    },
    { signal },
  );
  const ids = rows.map((row) => row.id);
  const [grades, counts] = await Promise.all([store.grades(key, ids), store.candidates.countsBySeedRow(key)]);
  return {
    rows: rows.map((row) => ({
      row,
      grades: grades.get(row.id) ?? [],
      state: stateOf(grades.get(row.id) ?? []),
      candidates: counts.get(row.id)?.candidates ?? 0,
      accepted: counts.get(row.id)?.accepted ?? 0,
    })),
    nextCursor,
  };
}
