/** What a campaign's change of state is called, and what its event tells. */
import type { OnChange, RunChange, RunRow } from "@tutelage/platform/runs";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import type { CampaignStore } from "./store.js";

/** Every type of event there is: what a webhook can ask for, and what the store takes. */
export const eventTypes = [
  "campaign.queued",
  "campaign.started",
  "campaign.handed_back",
  "campaign.continued",
  "campaign.taken_over",
  "campaign.pausing",
  "campaign.paused",
  "campaign.budget_exhausted",
  "campaign.resumed",
  "campaign.retried",
  "campaign.cancelling",
  "campaign.cancelled",
  "campaign.finished",
  "campaign.failed",
  "campaign.forked",
  "budget.threshold",
  "preflight.finished",
  "rows.contaminated",
  "rows.too_long",
  "rows.disputed",
  "rows.doubted",
  "review.decided",
  "iteration.started",
  "phase.started",
  "iteration.finished",
  "training.incident",
  "teacher.waiting",
  "teacher.answered",
  "teacher.given_up",
] as const;

export type EventType = (typeof eventTypes)[number];

/** The event of a change. `run` is the campaign as the change left it. */
export function eventOf(
  change: RunChange,
  run: Pick<
    RunRow<Pick<ResolvedRequest, "name">, Partial<CampaignState>>,
    "request" | "state" | "fence" | "failure" | "rest"
  >,
): { type: EventType; payload: object } {
  const { request, state, fence, failure, rest } = run;
  switch (change.kind) {
    case "queued":
    case "started":
      return { type: `campaign.${change.kind}`, payload: { name: request.name } };
    case "continued":
    case "taken_over":
      return { type: `campaign.${change.kind}`, payload: { fence } };
    case "handed_back":
      return { type: "campaign.handed_back", payload: { reason: change.reason } };
    case "cancelling":
    case "cancelled":
    case "pausing":
    case "resumed":
    case "retried":
      return { type: `campaign.${change.kind}`, payload: {} };
    case "succeeded": {
      const { summary, stopReason } = state.outcome ?? {};
      return { type: "campaign.finished", payload: { summary, stop_reason: stopReason } };
    }
    case "paused":
    case "budget_exhausted":
      return { type: `campaign.${change.kind}`, payload: { ...rest } };
    case "failed":
      return { type: "campaign.failed", payload: { ...failure } };
  }
}

/** Writes the event of each change in the transaction that makes it: no state without its event, no event without it. */
export function recordChanges(store: Pick<CampaignStore, "putEvent">): OnChange<ResolvedRequest, CampaignState> {
  return async (transaction, change, run) => {
    // One that waits for its teacher looks again and again; that it waits is told, and when that ends.
    if (run.state.teacherWait && (change.kind === "handed_back" || change.kind === "continued")) return;
    const { type, payload } = eventOf(change, run);
    await store.putEvent(transaction, { projectId: run.projectId, campaignId: run.id }, type, payload);
  };
}
