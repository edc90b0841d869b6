/** /v1/campaigns/{id}/events: what happens in a campaign, as server-sent events. */
import type { TutelageError } from "@tutelage/platform/errors";
import { watchDeadlineMs } from "@tutelage/platform/grpc";
import type { Campaign, WatchCampaignResponse } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { z } from "zod";
import { campaignSchema } from "./campaign-schemas.js";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { enumName, problems, streamed, wholeNumber } from "./fields.js";
import type { Routes } from "./routes.js";
import { byteStream, clientGone, closedWithReason, sseEvent, started, withHeartbeat } from "./streams.js";

const statusName = enumName(RunStatus);
const finalStatuses: ReadonlySet<RunStatus> = new Set([RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED]);

export const campaignEventRoutes: Routes = (app, { backends, shutdown, heartbeatMs }) => {
  app.get(
    "/campaigns/:campaign/events",
    {
      schema: {
        tags: ["campaigns"],
        summary: "A campaign's events as they happen",
        description:
          "Server-sent events. The first is campaign.snapshot, the campaign as it then is, without an id. Each stored " +
          "event has its sequence as id; a client that comes back with Last-Event-ID misses none and sees none again. " +
          "Between them, campaign.progress tells how far it is. The stream ends with the campaign; 204 when there is " +
          "nothing left to tell. One that ends sooner says why in a last event, stream.closing: come back.",
        params: campaignRef,
        querystring: z.strictObject({
          after: wholeNumber(0, Number.MAX_SAFE_INTEGER).default(0).describe("Only events after this sequence"),
        }),
        headers: z.object({ "last-event-id": wholeNumber(0, Number.MAX_SAFE_INTEGER).optional() }),
        response: {
          200: streamed("text/event-stream", "Events"),
          204: z.undefined().describe("The campaign has ended and every event was seen"),
          ...problems,
        },
      },
    },
    async ({ params, query, headers, log }, reply) => {
      const signal = clientGone(reply, shutdown);
      const afterSequence = headers["last-event-id"] ?? query.after;
      const watch = backends.campaigns.watchCampaign(
        { ...campaignKey(params.campaign), afterSequence },
        { signal, deadline: watchDeadlineMs },
      );
      const { empty, items } = await started(nonTrivial(watch, afterSequence > 0));
      if (empty) return reply.code(204).send();
      reply.header("x-accel-buffering", "no").type("text/event-stream");
      const texts = withHeartbeat(eventTexts(items), heartbeatMs, signal);
      const onError = (error: TutelageError) => log.error({ err: error.cause ?? error }, "event stream broke off");
      return reply.send(byteStream(closedWithReason(texts, shutdown, onError)));
    },
  );
};

/** Drops what a client that has seen events gains nothing from: a final campaign's state without a new event. */
async function* nonTrivial(watch: AsyncIterable<WatchCampaignResponse>, seenSome: boolean) {
  for await (const response of watch) {
    const status = response.campaign?.run?.status ?? RunStatus.UNSPECIFIED;
    if (seenSome && finalStatuses.has(status) && response.event === undefined) continue;
    yield response;
  }
}

async function* eventTexts(responses: AsyncIterable<WatchCampaignResponse>): AsyncGenerator<string> {
  // A lost connection is tried again after two seconds.
  yield "retry: 2000\n\n";
  let isFirst = true;
  for await (const { event, campaign } of responses) {
    if (isFirst && campaign !== undefined) {
      // Whoever comes, for the first time or again, knows where the campaign stands before what comes next.
      yield sseEvent({ type: "campaign.snapshot", data: z.encode(campaignSchema, snake(campaign)) });
      isFirst = false;
      if (event === undefined) continue;
    }
    if (event !== undefined) {
      const { sequence, at, type, payloadJson } = event;
      const payload: unknown = payloadJson === "" ? {} : JSON.parse(payloadJson);
      yield sseEvent({ id: sequence, type, data: { sequence, type, at, payload } });
    } else if (campaign !== undefined) {
      yield sseEvent({ type: "campaign.progress", data: progressJson(campaign) });
    }
  }
}

function progressJson({ run, iteration, phase, usage }: Campaign) {
  const status = run === undefined ? "unspecified" : statusName.encode(run.status);
  return snake({ id: run?.id, status, progress: run?.progress, iteration, phase, usage });
}
