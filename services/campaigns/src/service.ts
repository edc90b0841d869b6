/** gRPC handlers of the campaigns service. */
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import { toRunMessage } from "@tutelage/platform/runmessage";
import { isFinal, isUuid, type RunRow, type Runs } from "@tutelage/platform/runs";
import type {
  Campaign,
  CampaignsServiceImplementation,
  WatchCampaignResponse,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import { abandon, type Services } from "./clients.js";
import { resolveRequest } from "./request.js";
import type { CampaignStore } from "./store.js";

const defaultPageSize = 100;
const largestPageSize = 1_000;
const eventBatch = 500;

export function campaignsService(deps: {
  runs: Runs<ResolvedRequest, CampaignState>;
  store: CampaignStore;
  services: Services;
}): CampaignsServiceImplementation {
  const { runs, store, services } = deps;
  const get = async (projectId: string, id: string) => {
    if (!isUuid(id)) throw notFound("campaign", id);
    return await runs.get(projectId, id).catch((error: unknown) => {
      throw error instanceof TutelageError && error.code === "not_found" ? notFound("campaign", id) : error;
    });
  };
  return {
    async startCampaign(request, context) {
      if (request.projectId === "") throw invalidField("project_id", "is empty; name the project.");
      const { projectId, idempotencyKey } = request;
      // Before anything is resolved: the same call after an import must find the campaign that it started.
      const before = idempotencyKey === "" ? undefined : await runs.startedBy(projectId, idempotencyKey, request);
      if (before !== undefined) return toCampaign(before);
      const resolved = await resolveRequest(services, request, context.signal);
      return toCampaign(await runs.start(projectId, idempotencyKey, resolved, { asked: request }));
    },

    async getCampaign({ projectId, id }) {
      return toCampaign(await get(projectId, id));
    },

    async listCampaigns({ projectId, pageSize, cursor }) {
      const limit = checkedPageSize(pageSize);
      const page = await runs.list(projectId, limit, cursor === "" ? undefined : decodeRunCursor(cursor));
      const last = page.at(-1);
      return {
        campaigns: page.map(toCampaign),
        nextCursor:
          page.length < limit || last === undefined ? "" : encodeCursor([last.createdAt.toISOString(), last.id]),
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
      await get(projectId, id);
      const run = await runs.cancel(projectId, id, (transaction) =>
        store.putEvent(transaction, { projectId, campaignId: id }, "campaign.cancelled", {}),
      );
      // One that was between two holders is cancelled at once, and has nobody else to end what it waited for.
      if (run.status === "CANCELLED") await abandon(services, run);
      return toCampaign(run);
    },

    async listIterations({ projectId, id }) {
      await get(projectId, id);
      return { iterations: await store.iterations({ projectId, campaignId: id }) };
    },

    async listCandidates({ projectId, id, iteration, pageSize, cursor }) {
      await get(projectId, id);
      const limit = checkedPageSize(pageSize);
      const after = cursor === "" ? -1 : Number(decodeCursor(cursor)[0]);
      if (!Number.isInteger(after)) throw badCursor();
      const page = await store.candidates(
        { projectId, campaignId: id },
        { after, limit, iteration: iteration === -1 ? undefined : iteration },
      );
      const last = page.at(-1);
      return {
        candidates: page,
        nextCursor: page.length < limit || last === undefined ? "" : encodeCursor([String(last.number)]),
      };
    },
  };
}

function toCampaign(run: RunRow<ResolvedRequest, CampaignState>): Campaign {
  return {
    run: toRunMessage(run),
    request: run.request,
    iteration: run.state.iteration ?? 0,
    phase: run.state.phase ?? "",
    outcome: run.state.outcome,
    usage: run.state.usage,
    datasetId: run.state.datasetId ?? "",
  };
}

function checkedPageSize(pageSize: number): number {
  if (pageSize === 0) return defaultPageSize;
  if (pageSize >= 1 && pageSize <= largestPageSize) return pageSize;
  throw invalidField("page_size", `is ${pageSize}; must be from 1 to ${largestPageSize}.`);
}

function encodeCursor(parts: string[]): string {
  return Buffer.from(JSON.stringify(parts)).toString("base64url");
}

function decodeCursor(cursor: string): string[] {
  try {
    const parts: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    if (Array.isArray(parts) && parts.every((part) => typeof part === "string") && parts.length > 0) return parts;
  } catch {
    // Falls through: whatever is wrong with it, it is not a cursor of ours.
  }
  throw badCursor();
}

function decodeRunCursor(cursor: string): { createdAt: string; id: string } {
  const [createdAt, id] = decodeCursor(cursor);
  if (createdAt === undefined || Number.isNaN(Date.parse(createdAt)) || id === undefined || !isUuid(id))
    throw badCursor();
  return { createdAt, id };
}

function badCursor(): TutelageError {
  return invalidField("cursor", "is not one that this service gave; leave it out to begin at the start.");
}
