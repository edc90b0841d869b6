/**
 * Deletes a campaign with all that it made, here and in the other services.
 * First it is hidden; then its dataset, its child runs and its files go, each
 * by a call that may be made again; its own row goes last. Whoever dies in
 * between leaves a hidden row: the next call, or the sweeper, goes on.
 */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { notFound, TutelageError } from "@tutelage/platform/errors";
import { RemovalCount } from "@tutelage/platform/removal";
import { isFinal } from "@tutelage/platform/runs";
import type { Removal } from "@tutelage/proto/run/v1/removal";
import { datasetName } from "./campaign.js";
import type { Services } from "./clients.js";
import type { DeletionStore } from "./deletionstore.js";
import { hasForks } from "./fork.js";
import { holderOf } from "./holds.js";
import type { CampaignKey } from "./store.js";

export interface DeletionDependencies {
  services: Services;
  deletions: DeletionStore;
  artifacts: Pick<ArtifactStore, "uri" | "remove">;
}

/** A service may remove millions of rows and gigabytes of files, and wait for runs that stop. */
const childDeadlineMs = 600_000;

/** Throws not_found, and failed_precondition "campaign_running", "campaign_has_forks" or "dataset_in_use". */
export async function deleteCampaign(
  { services, deletions, artifacts }: DeletionDependencies,
  key: CampaignKey,
  signal: AbortSignal,
): Promise<Removal> {
  const { projectId, campaignId } = key;
  const found = await deletions.look(key);
  if (found === undefined) throw notFound("campaign", campaignId);
  if (!found.deleting) {
    if (!isFinal(found.status)) {
      throw new TutelageError(
        "failed_precondition",
        `The campaign is ${found.status.toLowerCase()}: cancel it first, and delete it when it has stopped.`,
        { reason: "campaign_running" },
      );
    }
    const forks = await deletions.forks(key);
    if (forks.length > 0) throw hasForks(forks);
    // Looked at before anything is hidden, so that a refused campaign is visible all the time.
    await deleteDataset(services, key, { checkOnly: true, signal });
  }
  const mark = await deletions.hide(key);
  // One that was stored since the look found it visible, and will take over what it made.
  const late = await deletions.forks(key);
  if (late.length > 0) {
    await deletions.unhide(key, mark);
    throw hasForks(late);
  }

  const count = new RemovalCount();
  try {
    count.merge(await deleteDataset(services, key, { checkOnly: false, signal }));
  } catch (error) {
    // Something began to use it since the look. Nothing was removed yet.
    if (error instanceof TutelageError && error.reason === "dataset_in_use") await deletions.unhide(key, mark);
    throw error;
  }
  const children = { projectId, keyPrefix: `${campaignId}/` };
  const options = { signal, deadline: childDeadlineMs };
  count.merge(
    await services.training.deleteTrainingRuns({ ...children, keepRunIds: [], checkpointsOnly: false }, options),
  );
  count.merge(await services.evaluation.deleteEvaluationRuns(children, options));
  count.merge(await services.teacher.deleteGenerationRuns(children, options));
  count.artifactBytes += await artifacts.remove(artifacts.uri(`${projectId}/runs/${campaignId}`));
  await services.datasets.releaseHolds({ projectId, holder: holderOf(campaignId) }, { signal });
  for (const [kind, number] of Object.entries(await deletions.remove(key))) count.add(kind, number);
  return count.removal;
}

/** Deletes the campaign's own dataset, found by its name: a campaign that died early may not know that it has one. */
async function deleteDataset(
  services: Pick<Services, "datasets">,
  { projectId, campaignId }: CampaignKey,
  { checkOnly, signal }: { checkOnly: boolean; signal: AbortSignal },
): Promise<Removal> {
  const which = { projectId, id: "", name: datasetName(campaignId), checkOnly, owner: holderOf(campaignId) };
  return await services.datasets.deleteDataset(which, { signal, deadline: childDeadlineMs }).catch((error: unknown) => {
    if (error instanceof TutelageError && error.code === "not_found") return new RemovalCount().removal;
    throw error;
  });
}
