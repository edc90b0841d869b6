/**
 * What nobody waits for: deletions that were interrupted, holds that were not
 * confirmed, runs of campaigns that ended, and checkpoints and webhook deliveries
 * past their time. Every replica looks, one at a time works, and all of it may be
 * done twice.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isDatabaseAway } from "@tutelage/platform/database";
import type { Logger } from "@tutelage/platform/log";
import type { Iteration } from "@tutelage/proto/campaigns/v1/campaigns";
import { StopKind } from "@tutelage/proto/run/v1/owner";
import { type DeletionDependencies, deleteCampaign } from "./deletion.js";
import type { EndedCampaign, LeftCampaign } from "./deletionstore.js";
import type { DeliveryStore } from "./deliverystore.js";
import { stopChildren } from "./ending.js";
import { confirmHold } from "./holds.js";
import type { CampaignKey, CampaignStore } from "./store.js";

export interface SweepTiming {
  /** Between two looks. */
  pauseMs: number;
  /** A deletion that began this long ago counts as interrupted. */
  interruptedMs: number;
}

export const defaultSweepTiming: SweepTiming = { pauseMs: 60_000, interruptedMs: 900_000 };
const sweepDeadlineMs = 600_000;
/** A campaign whose runs do not stop in this time has its turn again at the next look. */
const stopPatienceMs = 2_000;

interface Dependencies extends DeletionDependencies {
  store: CampaignStore;
  deliveries: Pick<DeliveryStore, "tidy">;
  keepDeliveriesDays: number;
  log: Logger;
  /** 0 for ever. */
  keepCheckpointsDays: number;
  timing: SweepTiming;
  signal: AbortSignal;
}

/** Sweeps until the signal aborts. Never throws. */
export async function sweep(deps: Dependencies): Promise<void> {
  const { deletions, log, timing, signal } = deps;
  while (!signal.aborted) {
    await deletions
      .alone(() => sweepOnce(deps))
      .catch((error: unknown) => {
        if (!signal.aborted) log.warn({ err: error }, "could not sweep; trying again later");
      });
    await sleep(timing.pauseMs, undefined, { signal }).catch(() => {});
  }
}

async function sweepOnce(deps: Dependencies): Promise<void> {
  const { deletions, services, log, timing, signal, keepCheckpointsDays } = deps;
  // One that fails must not keep the others from their turn.
  const each = async <Item extends CampaignKey>(
    what: string,
    items: Item[],
    work: (item: Item) => Promise<unknown>,
  ) => {
    for (const item of items) {
      signal.throwIfAborted();
      await work(item).catch((error: unknown) => {
        signal.throwIfAborted();
        if (isDatabaseAway(error)) throw error;
        log.warn({ err: error, campaignId: item.campaignId }, `could not ${what}; trying again later`);
      });
    }
  };
  await each("finish an interrupted deletion", await deletions.interrupted(timing.interruptedMs), async (key) => {
    const removed = await deleteCampaign(deps, key, signal);
    log.info({ ...key, removed }, "finished a deletion that had been interrupted");
  });
  await each("confirm a hold", await deletions.unheld(), (campaign) => confirmHold({ services, deletions }, campaign));
  await each("stop the runs of a campaign that ended", await deletions.left(), (campaign) => stopLeft(deps, campaign));
  await deps.deliveries.tidy(deps.keepDeliveriesDays);
  if (keepCheckpointsDays === 0) return;
  await each("remove checkpoints", await deletions.unswept(keepCheckpointsDays), (campaign) =>
    removeUnnamedCheckpoints(deps, campaign),
  );
}

/** One that failed may be tried again, and goes on with its runs; any other never does. */
async function stopLeft(
  { services, deletions, signal }: Dependencies,
  { status, fence, asked, ...key }: LeftCampaign,
): Promise<void> {
  const run = { id: key.campaignId, projectId: key.projectId, fence, state: { asked } };
  const patience = AbortSignal.any([signal, AbortSignal.timeout(stopPatienceMs)]);
  await stopChildren(services, run, status === "FAILED" ? StopKind.PAUSE : StopKind.CANCEL, patience);
  await deletions.mark(key, { childrenStopped: fence });
}

async function removeUnnamedCheckpoints(
  { services, store, deletions, log, signal }: Dependencies,
  campaign: EndedCampaign,
): Promise<void> {
  const { projectId, campaignId } = campaign;
  const key = { projectId, campaignId };
  if (!(await deletions.giveUpCheckpoints(key))) return;
  const removed = await services.training.deleteTrainingRuns(
    {
      projectId,
      keyPrefix: `${campaignId}/`,
      keepRunIds: namedTrainingRuns(campaign.outcome, await store.iterations(key)),
      checkpointsOnly: true,
    },
    { signal, deadline: sweepDeadlineMs },
  );
  await deletions.mark(key, { checkpointsGone: true });
  if (removed.artifactBytes > 0) log.info({ ...key, removed }, "removed checkpoints that no outcome names");
}

/** The runs whose students a campaign's outcome or one of its iterations names. */
export function namedTrainingRuns(
  outcome: EndedCampaign["outcome"],
  iterations: readonly Pick<Iteration, "trainingRunId">[],
): string[] {
  const arms = outcome === undefined ? [] : [outcome.final, outcome.baseline, ...outcome.otherArms];
  const ids = [...arms, ...iterations].map((one) => one?.trainingRunId ?? "");
  return [...new Set(ids)].filter((id) => id !== "");
}
