/** The reviews of a campaign as its service shows them and has them decided. */
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { wakeRestingRun } from "@tutelage/platform/runcontrol";
import type { RunRow, Runs } from "@tutelage/platform/runs";
import {
  type DecideReviewRequest,
  type ListReviewsRequest,
  type ListReviewsResponse,
  type Review,
  ReviewDecision,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { Task } from "@tutelage/proto/task/v1/task";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import type { Services } from "./clients.js";
import { type StoredSplitOverlaps, splitsStep } from "./overlaps.js";
import { fewestSeedRows } from "./request.js";
import { decided } from "./reviewdecision.js";
import { reviewsOpen } from "./reviewing.js";
import type { ReviewStore } from "./reviewstore.js";
import type { CampaignStore } from "./store.js";

interface Dependencies {
  runs: Runs<ResolvedRequest, CampaignState>;
  reviews: ReviewStore;
  store: CampaignStore;
  services: Pick<Services, "datasets">;
}

export async function reviewsPage(
  reviews: ReviewStore,
  { projectId, id, status, pageSize, cursor }: ListReviewsRequest,
): Promise<ListReviewsResponse> {
  const listing = `reviews ${id} ${status}`;
  const page = await reviews.reviews(
    { projectId, campaignId: id },
    { status, after: readCursor(cursor, listing, isNumber) ?? -1, pageSize: requirePageSize(pageSize) },
  );
  return { reviews: page.reviews, nextCursor: nextCursor(listing, page.more, page.last) };
}

/** Decides one, and wakes a campaign that waited for the last. */
export async function decideReview(
  { runs, reviews, store, services }: Dependencies,
  run: RunRow<ResolvedRequest, CampaignState>,
  asked: DecideReviewRequest,
  signal: AbortSignal,
): Promise<Review> {
  const { projectId, id: campaignId } = run;
  const key = { projectId, campaignId };
  if (asked.seedRowId.includes("\0")) throw invalidField("seed_row_id", "holds the character U+0000; remove it.");
  const hasEnded = run.status === "SUCCEEDED" || run.status === "CANCELLED";
  if (asked.decision === ReviewDecision.EXCLUDE && !hasEnded) {
    const which = { projectId, id: run.request.datasetVersionId };
    const { splits } = await services.datasets.getVersion(which, { signal });
    const overlaps = (await store.step(key, splitsStep))?.output as StoredSplitOverlaps | undefined;
    const dropped = overlaps?.droppedRowIds.length ?? 0;
    const left = (splits?.train ?? 0) - dropped - (await reviews.excluded(key)) - 1;
    if (left < fewestSeedRows) {
      throw new TutelageError(
        "failed_precondition",
        `Without the row ${left} seed rows are left, and a campaign needs ${fewestSeedRows}; relabel it instead.`,
        { reason: "too_few_seed_rows" },
      );
    }
  }
  return await reviews.decide(
    key,
    asked.seedRowId,
    (review) => {
      const change = decided(review, Task.fromPartial(run.request.task), asked);
      // One that failed may be tried again.
      if (change !== undefined && hasEnded) {
        throw new TutelageError(
          "failed_precondition",
          `The campaign has ${run.status.toLowerCase()}, and nothing would take the decision up; start another one with the row corrected.`,
          { reason: "campaign_ended" },
        );
      }
      return change;
    },
    async (transaction) => await wakeRestingRun(runs, transaction, { projectId, id: campaignId, code: reviewsOpen }),
  );
}
