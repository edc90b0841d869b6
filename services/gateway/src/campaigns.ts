/** /v1/campaigns: start, look, cancel. */
import { notFound } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";
import { Settings, type StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import type { Backends } from "./backends.js";
import * as schema from "./campaign-schemas.js";
import { camel, snake } from "./cases.js";
import { findDataset } from "./datasets.js";
import { idempotencyHeaders, pageQuery, problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

const tags = ["campaigns"];
export const campaignRef = z.object({ campaign: z.string().describe("Id") });

export const campaignRoutes: Routes = (app, { backends }) => {
  const { campaigns } = backends;

  app.post(
    "/campaigns",
    {
      schema: {
        tags,
        summary: "Start a campaign",
        headers: idempotencyHeaders,
        body: schema.startCampaignBody,
        response: { 201: schema.campaignSchema, ...problems },
      },
    },
    async ({ body, headers }, reply) => {
      const campaign = await campaigns.startCampaign(await asked(backends, body, headers["idempotency-key"]));
      return reply.code(201).header("location", `/v1/campaigns/${campaign.run?.id}`).send(snake(campaign));
    },
  );

  app.post(
    "/campaigns/estimate",
    {
      schema: {
        tags,
        summary: "Resolve and check a campaign, and forecast what it will take, without starting it",
        body: schema.startCampaignBody,
        response: { 200: schema.campaignEstimate, ...problems },
      },
    },
    async ({ body }) => {
      const { campaign, forecasts } = await campaigns.estimateCampaign({ campaign: await asked(backends, body, "") });
      return snake({ request: campaign, forecasts });
    },
  );

  app.get(
    "/campaigns",
    {
      schema: {
        tags,
        summary: "All campaigns, newest first",
        querystring: z.strictObject(pageQuery),
        response: { 200: schema.campaignPage, ...problems },
      },
    },
    async ({ query }) =>
      snake(await campaigns.listCampaigns({ projectId, pageSize: query.limit, cursor: query.cursor })),
  );

  app.get(
    "/campaigns/:campaign",
    {
      schema: {
        tags,
        summary: "One campaign",
        params: campaignRef,
        response: { 200: schema.campaignSchema, ...problems },
      },
    },
    async ({ params }) => snake(await campaigns.getCampaign(campaignKey(params.campaign))),
  );

  app.post(
    "/campaigns/:campaign/cancel",
    {
      schema: {
        tags,
        summary: "Ask a campaign to stop",
        params: campaignRef,
        response: { 200: schema.campaignSchema, ...problems },
      },
    },
    async ({ params }) => snake(await campaigns.cancelCampaign(campaignKey(params.campaign))),
  );

  app.get(
    "/campaigns/:campaign/iterations",
    {
      schema: {
        tags,
        summary: "A campaign's iterations, in order",
        params: campaignRef,
        response: { 200: schema.iterationList, ...problems },
      },
    },
    async ({ params }) => snake(await campaigns.listIterations(campaignKey(params.campaign))),
  );

  app.get(
    "/campaigns/:campaign/candidates",
    {
      schema: {
        tags,
        summary: "What the teacher wrote, in the order in which it was judged",
        params: campaignRef,
        querystring: schema.candidatesQuery,
        response: { 200: schema.candidatePage, ...problems },
      },
    },
    async ({ params, query }) =>
      snake(
        await campaigns.listCandidates({
          ...campaignKey(params.campaign),
          iteration: query.iteration ?? -1,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );
};

/** What the service is asked by. */
export function campaignKey(id: string): { projectId: string; id: string } {
  if (!isUuid(id)) throw notFound("campaign", id);
  return { projectId, id };
}

/** A request's body as the campaigns service is asked. */
async function asked(
  backends: Backends,
  body: z.output<typeof schema.startCampaignBody>,
  idempotencyKey: string,
): Promise<StartCampaignRequest> {
  return {
    projectId,
    idempotencyKey,
    name: body.name ?? body.task.name,
    datasetVersionId: body.dataset_version_id ?? "",
    datasetId: body.dataset === undefined ? "" : (await findDataset(backends, body.dataset)).id,
    studentProfile: body.student_profile,
    teacherProfile: body.teacher_profile,
    task: camel(body.task),
    taskName: "",
    settings: Settings.fromPartial(camel(body.settings)),
  };
}
