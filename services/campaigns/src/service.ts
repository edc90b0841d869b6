/** gRPC handlers of the campaigns service. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { ledgerPage, purposeOf, runKeyPrefix } from "@tutelage/platform/campaignledger";
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import { isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { requireProject } from "@tutelage/platform/project";
import { pauseRun, resumeRun, retryRun, wakeExhaustedRun } from "@tutelage/platform/runcontrol";
import { toRunMessage } from "@tutelage/platform/runmessage";
import { isFinal, isUuid, type RunRow, type Runs } from "@tutelage/platform/runs";
import { requireStorable } from "@tutelage/platform/text";
import {
  type Campaign,
  type CampaignsServiceImplementation,
  Outcome,
  StartCampaignRequest,
  type WatchCampaignResponse,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { type TeacherWait, Usage } from "@tutelage/proto/teacher/v1/teacher";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import { checkedFilter } from "./campaignfilter.js";
import { isCampaignPlace } from "./campaignplace.js";
import type { Services } from "./clients.js";
import { deleteCampaign } from "./deletion.js";
import type { DeletionStore } from "./deletionstore.js";
import { forecast } from "./forecast.js";
import { forecastBasis } from "./forecastbasis.js";
import { forked, requireCheckpoints } from "./fork.js";
import { collectGarbage } from "./garbage.js";
import { startHeld } from "./holds.js";
import type { NamedTasks } from "./namedtasks.js";
import { patched, raisesCap } from "./patch.js";
import { gatherReport } from "./report.js";
import { oracleOf, resolveRequest } from "./request.js";
import { decideReview, reviewsPage } from "./reviews.js";
import type { ReviewStore } from "./reviewstore.js";
import { seedRowsPage } from "./seedrows.js";
import type { CampaignStore } from "./store.js";
import type { StoredTeacherWait } from "./teacherabsence.js";

type CampaignRow = RunRow<ResolvedRequest, CampaignState>;

const eventBatch = 500;
/** How long a caller waits to be told that a campaign has stopped, rather than that it is stopping. */
const stopShownMs = 2_000;

export function campaignsService(deps: {
  runs: Runs<ResolvedRequest, CampaignState>;
  store: CampaignStore;
  tasks: NamedTasks;
  services: Services;
  deletions: DeletionStore;
  reviews: ReviewStore;
  artifacts: ArtifactStore;
  /** Aborts when the service stops. */
  stopping: AbortSignal;
}): CampaignsServiceImplementation {
  const { runs, store, tasks, services } = deps;
  const get = async (projectId: string, id: string) => {
    if (!isUuid(id)) throw notFound("campaign", id);
    return await runs.get(projectId, id).catch((error: unknown) => {
      throw error instanceof TutelageError && error.code === "not_found" ? notFound("campaign", id) : error;
    });
  };
  /** One between two holders is taken up at once to be stopped, which is mostly done before anybody could ask again. */
  const untilStopped = async (before: CampaignRow, run: CampaignRow) => {
    let last = run;
    if (before.status === "RUNNING") return run;
    const signal = AbortSignal.any([deps.stopping, AbortSignal.timeout(stopShownMs)]);
    for await (const now of runs.watch(run.projectId, run.id, signal)) {
      last = now;
      if (now.status !== "QUEUED" && now.status !== "RUNNING") break;
    }
    return last;
  };
  return {
    async startCampaign(request, context) {
      requireProject(request.projectId);
      requireStorable(request, "");
      const { projectId, idempotencyKey } = request;
      // Before anything is resolved: the same call after an import must find the campaign that it started.
      const before = idempotencyKey === "" ? undefined : await runs.startedBy(projectId, idempotencyKey, request);
      if (before !== undefined) return toCampaign(before);
      const resolved = await resolveRequest(services, await tasks.resolve(request), context.signal);
      return toCampaign(await startHeld(deps, resolved, request));
    },

    async estimateCampaign({ campaign }, context) {
      if (campaign === undefined) throw invalidField("campaign", "is missing; give the campaign to estimate.");
      requireProject(campaign.projectId, "campaign.project_id");
      requireStorable(campaign, "");
      const resolved = await resolveRequest(services, await tasks.resolve(campaign), context.signal);
      const basis = await forecastBasis({ runs, store, services }, resolved, context.signal);
      return { campaign: resolved, forecasts: forecast(basis) };
    },

    async getCampaign({ projectId, id }) {
      return toCampaign(await get(projectId, id));
    },

    async updateCampaign({ projectId, id, ...change }) {
      await get(projectId, id);
      const changed = await store.update({ projectId, campaignId: id }, (run) => patched(run, change));
      if (!raisesCap(change)) return toCampaign(changed);
      return toCampaign(await wakeExhaustedRun(runs, projectId, id));
    },

    async listCampaigns({ projectId, pageSize, cursor, ...filter }) {
      requireProject(projectId);
      const limit = requirePageSize(pageSize);
      const listing = `campaigns ${projectId}`;
      const place = readCursor(cursor, listing, isCampaignPlace);
      const page = await store.campaigns(projectId, checkedFilter(filter), limit + 1, place);
      const shown = page.slice(0, limit);
      const last = shown.at(-1);
      return {
        campaigns: shown.map(({ run }) => toCampaign(run)),
        nextCursor: nextCursor(listing, page.length > limit, last && { createdAt: last.createdAt, id: last.run.id }),
      };
    },

    async *watchCampaign({ projectId, id, afterSequence }, context) {
      await get(projectId, id);
      const key = { projectId, campaignId: id };
      let seen = afterSequence;
      for await (const run of runs.watch(projectId, id, context.signal)) {
        const campaign = toCampaign(run);
        let told = false;
        for (;;) {
          const events = await store.events(key, seen, eventBatch);
          for (const event of events) {
            seen = event.sequence;
            told = true;
            yield { event, campaign } satisfies WatchCampaignResponse;
          }
          if (events.length < eventBatch) break;
        }
        if (!told || isFinal(run.status)) yield { event: undefined, campaign } satisfies WatchCampaignResponse;
      }
    },

    async cancelCampaign({ projectId, id }) {
      const before = await get(projectId, id);
      return toCampaign(await untilStopped(before, await runs.cancel(projectId, id)));
    },

    async pauseCampaign({ projectId, id }) {
      const before = await get(projectId, id);
      const run = await pauseRun(runs, projectId, id);
      requireGoing(run, "paused");
      return toCampaign(await untilStopped(before, run));
    },

    async resumeCampaign({ projectId, id }) {
      await get(projectId, id);
      const run = await resumeRun(runs, projectId, id);
      requireGoing(run, "resumed");
      return toCampaign(run);
    },

    async retryCampaign({ projectId, id }) {
      await get(projectId, id);
      const key = { projectId, campaignId: id };
      const run = await retryRun(runs, projectId, id, (transaction) => store.noteRetry(transaction, key));
      requireGoing(run, "tried again");
      return toCampaign(run);
    },

    async forkCampaign(request) {
      requireStorable(request, "");
      const { projectId, id, idempotencyKey } = request;
      const parent = await get(projectId, id);
      const before = idempotencyKey === "" ? undefined : await runs.startedBy(projectId, idempotencyKey, request);
      if (before !== undefined) return toCampaign(before);
      const resolved = forked(parent, request, await store.finishedIterations({ projectId, campaignId: id }));
      const { profiles } = await services.teacher.listTeacherProfiles({ projectId });
      oracleOf(resolved.settings, profiles);
      const fork = await startHeld(deps, resolved, request);
      // A parent whose deletion began meanwhile, or that gave up its checkpoints, did not see the fork.
      try {
        requireCheckpoints(await get(projectId, id), resolved.settings);
      } catch (error) {
        await runs.cancel(projectId, fork.id);
        throw error;
      }
      return toCampaign(fork);
    },

    async resumeExhaustedCampaigns({ projectId }) {
      const found = await store.exhausted(requireProject(projectId));
      // One at work may be about to rest for what it knew before.
      for (const { id } of found) await wakeExhaustedRun(runs, projectId, id);
      return { resumed: found.filter(({ rests }) => rests).length };
    },

    async deleteCampaign({ projectId, id }) {
      requireProject(projectId);
      if (!isUuid(id)) throw notFound("campaign", id);
      // Goes on when the client leaves: what is hidden is not left lying.
      return await deleteCampaign(deps, { projectId, campaignId: id }, deps.stopping);
    },

    async collectGarbage(request, { signal }) {
      return await collectGarbage(deps, request, signal);
    },

    async listIterations({ projectId, id }) {
      await get(projectId, id);
      return { iterations: await store.iterations({ projectId, campaignId: id }) };
    },

    async listSeedRows({ projectId, id, pageSize, cursor }, context) {
      const { request } = await get(projectId, id);
      const page = { datasetVersionId: request.datasetVersionId, pageSize: requirePageSize(pageSize), cursor };
      return await seedRowsPage({ store, services }, { projectId, campaignId: id }, page, context.signal);
    },

    async listReviews(request) {
      await get(request.projectId, request.id);
      return await reviewsPage(deps.reviews, request);
    },

    async decideReview(request, { signal }) {
      requireStorable(request, "");
      return await decideReview(deps, await get(request.projectId, request.id), request, signal);
    },

    async listSteps({ projectId, id }) {
      await get(projectId, id);
      return { steps: await store.steps({ projectId, campaignId: id }) };
    },

    async getReport({ projectId, id }, context) {
      const run = await get(projectId, id);
      return await gatherReport(deps, { ...toCampaign(run), request: run.request }, context.signal);
    },

    async listCandidates({ projectId, id, iteration, pageSize, cursor, ...filter }) {
      await get(projectId, id);
      for (const [field, text] of [
        ["rejection", filter.rejection],
        ["seed_row_id", filter.seedRowId],
      ] as const) {
        if (text?.includes("\0")) throw invalidField(field, "holds the character U+0000; remove it.");
      }
      const listing = `candidates ${id}`;
      const page = await store.candidates.page(
        { projectId, campaignId: id },
        {
          after: readCursor(cursor, listing, isNumber) ?? -1,
          pageSize: requirePageSize(pageSize),
          iteration: iteration === -1 ? undefined : iteration,
          ...filter,
        },
      );
      return {
        candidates: page.candidates,
        nextCursor: nextCursor(listing, page.more, page.candidates.at(-1)?.number),
      };
    },

    async getCandidateOfRow({ projectId, datasetId, rowId }) {
      requireProject(projectId);
      const found = await store.candidates.ofRow(projectId, datasetId, rowId);
      if (found === undefined) throw notFound("candidate of row", rowId);
      return found;
    },

    async listLedger({ projectId, id, pageSize, cursor }, { signal }) {
      await get(projectId, id);
      const page = { pageSize: requirePageSize(pageSize), cursor };
      return ledgerPage(
        await services.teacher.listLedger({ projectId, runKeyPrefix: runKeyPrefix(id), ...page }, { signal }),
      );
    },

    async getLedgerEntry({ projectId, id, callId }, { signal }) {
      await get(projectId, id);
      const which = { projectId, runKeyPrefix: runKeyPrefix(id), id: callId };
      const { call, runKey } = await services.teacher.getCall(which, { signal });
      return { ...purposeOf(runKey), call };
    },

    async listTasks({ projectId }) {
      return { tasks: await tasks.list(requireProject(projectId)) };
    },

    async getTask({ projectId, name }) {
      return await tasks.get(requireProject(projectId), name);
    },

    async putTask({ projectId, task }) {
      return await tasks.put(requireProject(projectId), task);
    },

    async deleteTask({ projectId, name }) {
      await tasks.delete(requireProject(projectId), name);
      return {};
    },
  };
}

/** Throws failed_precondition when a campaign has ended, or is about to. */
function requireGoing(run: CampaignRow, what: string): void {
  if (!isFinal(run.status) && !run.cancelRequested) return;
  const fix = run.status === "FAILED" ? "Retry it." : "Start another one.";
  let how = "is being cancelled";
  if (run.status === "CANCELLED") how = "was cancelled";
  else if (isFinal(run.status)) how = `has ${run.status.toLowerCase()}`;
  throw new TutelageError("failed_precondition", `The campaign ${how} and cannot be ${what}. ${fix}`, {
    reason: "campaign_ended",
  });
}

function toCampaign(run: CampaignRow): Campaign {
  return {
    run: toRunMessage(run),
    // What an earlier release stored lacks the fields that the contract gained since.
    request: StartCampaignRequest.fromPartial(run.request),
    iteration: run.state.iteration ?? 0,
    phase: run.state.phase ?? "",
    outcome: run.state.outcome && Outcome.fromPartial(run.state.outcome),
    usage: run.state.usage && Usage.fromPartial(run.state.usage),
    datasetId: run.state.datasetId ?? "",
    note: run.state.note ?? "",
    tags: run.state.tags ?? [],
    teacherWait: run.status === "QUEUED" || run.status === "RUNNING" ? toWait(run.state.teacherWait) : undefined,
    trainingSeconds: run.state.trainingSeconds ?? 0,
    forkedFrom: run.request.fork && {
      campaignId: run.request.fork.campaignId,
      iteration: run.request.fork.iteration,
      sharedUsage: run.state.sharedUsage,
      sharedTrainingSeconds: run.state.sharedTrainingSeconds ?? 0,
    },
    shortfalls: run.status === "BUDGET_EXHAUSTED" ? (run.state.shortfalls ?? []) : [],
    code: run.state.code ?? [],
  };
}

function toWait(stored: StoredTeacherWait | null | undefined): TeacherWait | undefined {
  if (stored === null || stored === undefined) return undefined;
  return { ...stored, since: new Date(stored.since), until: new Date(stored.until) };
}
