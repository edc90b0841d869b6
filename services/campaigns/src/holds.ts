/**
 * The hold on the version that a campaign uses: placed before the campaign is
 * stored, under the id that it will have and with an end, and confirmed after.
 * So a campaign that is stored always holds its version, and one that never
 * came to be holds nothing for long. A confirmation that was lost in between is
 * made up for by the sweeper, well before the hold would end.
 */
import { randomUUID } from "node:crypto";
import { isDatabaseAway, sqlState } from "@tutelage/platform/database";
import { TutelageError } from "@tutelage/platform/errors";
import type { RunRow, Runs } from "@tutelage/platform/runs";
import type { StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import type { Services } from "./clients.js";
import type { DeletionStore, HeldCampaign } from "./deletionstore.js";

/** Many times the sweeper's pause. */
const unconfirmedSeconds = 3_600;

/** Who a campaign is to the datasets service. */
export function holderOf(campaignId: string): string {
  return `campaign/${campaignId}`;
}

interface Dependencies {
  runs: Runs<ResolvedRequest, CampaignState>;
  services: Pick<Services, "datasets">;
  deletions: DeletionStore;
}

/** Stores a campaign, or finds the one that its key already made, with its version held. */
export async function startHeld(
  deps: Dependencies,
  resolved: ResolvedRequest,
  asked: Pick<StartCampaignRequest, "idempotencyKey">,
): Promise<RunRow<ResolvedRequest, CampaignState>> {
  const { runs, services } = deps;
  const { projectId, datasetVersionId: versionId } = resolved;
  const id = randomUUID();
  const holder = holderOf(id);
  const release = () =>
    services.datasets
      .releaseHolds({ projectId, holder })
      .catch((error: unknown) => runs.log.warn({ err: error, holder }, "could not release a hold; it ends by itself"));
  await services.datasets.holdVersion({ projectId, versionId, holder, expireSeconds: unconfirmedSeconds });
  const run = await runs
    .start(projectId, asked.idempotencyKey, resolved, { asked, id })
    .catch(async (error: unknown) => {
      // Refused for sure, by us or by the database; where it may have been stored all the same, the hold stays until it ends.
      const isRefused = error instanceof TutelageError || (sqlState(error) !== undefined && !isDatabaseAway(error));
      if (isRefused) await release();
      throw error;
    });
  // Another call with this key was faster, and has a hold of its own.
  if (run.id !== id) await release();
  else {
    await confirmHold(deps, { projectId, campaignId: id, versionId }).catch((error: unknown) =>
      runs.log.warn({ err: error, campaignId: id }, "could not confirm the hold of a version; the sweeper will"),
    );
  }
  return run;
}

/** Takes the end from a stored campaign's hold. */
export async function confirmHold(
  { services, deletions }: Pick<Dependencies, "services" | "deletions">,
  { projectId, campaignId, versionId }: HeldCampaign,
): Promise<void> {
  const holder = holderOf(campaignId);
  const held = await services.datasets.holdVersion({ projectId, versionId, holder, expireSeconds: 0 }).then(
    () => true,
    (error: unknown) => {
      // Of a campaign from before there were holds, the version may be gone.
      if (error instanceof TutelageError && error.code === "not_found") return false;
      throw error;
    },
  );
  if (await deletions.mark({ projectId, campaignId }, { versionHeld: held })) return;
  // Deleted meanwhile, its holds released: this one came too late.
  await services.datasets.releaseHolds({ projectId, holder });
}
