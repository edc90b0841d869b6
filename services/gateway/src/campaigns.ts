/** /v1/campaigns: start, estimate, look, change, cancel, pause, resume, retry. */
import { randomUUID } from "node:crypto";
import { notFound } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";
import { Settings, type StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Task } from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import type { Backends } from "./backends.js";
import * as schema from "./campaign-schemas.js";
import { camel, snake } from "./cases.js";
import { findDataset } from "./datasets.js";
import { enumName, idempotencyHeaders, pageQuery, problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";
import { forkBody, startCampaignBody } from "./settings-schemas.js";

const tags = ["campaigns"];
export const campaignRef = z.object({ campaign: z.string().describe("Id") });

const statusName = enumName(RunStatus);
/** A moment as text: RFC 3339 with its zone, or a day, which begins in UTC. */
const moment = z.union([z.iso.datetime({ offset: true }), z.iso.date()]).transform((text) => new Date(text));

const campaignsQuery = z.strictObject({
  ...pageQuery,
  status: z
    .string()
    .transform((text) => text.split(","))
    .pipe(z.array(statusName))
    .default([])
    .describe("Only these statuses, separated by commas"),
  name: z.string().default("").describe("Only names that contain this, whatever its case"),
  dataset: z.string().optional().describe("Only campaigns on this dataset's rows; its id or name"),
  since: moment.optional().describe("Only campaigns stored at or after this time (RFC 3339, or a day in UTC)"),
  before: moment.optional().describe("Only campaigns stored before this time"),
  tag: z.string().default("").describe("Only campaigns with this tag"),
});

const campaignPatch = z.strictObject({
  name: z.string().min(1).max(200).optional().describe("A name for people"),
  note: z.string().max(10_000).optional().describe("Whatever is worth remembering; empty removes it"),
  tags: z.array(z.string().min(1).max(50)).max(20).optional().describe("Instead of the tags it has"),
  max_teacher_calls: z.number().int().min(0).optional().describe("A higher cap; 0 for none"),
  max_teacher_tokens: z.number().int().min(0).optional().describe("A higher cap; 0 for none"),
  max_cost_micro_usd: z.number().int().min(0).optional().describe("A higher cap, in micro-USD; 0 for none"),
  max_training_seconds: z.number().int().min(0).optional().describe("A higher cap; 0 for none"),
});

/** What may be asked of a campaign that is there; asking twice is asking once. */
const controls = [
  [
    "cancel",
    "Ask a campaign to stop",
    "Its status is cancelling until it has stopped. One that has ended stays as it is.",
  ],
  [
    "pause",
    "Ask a campaign to rest",
    "No new teacher call begins, those under way are waited for and stored, and a training stops: until then its " +
      "status is pausing.",
  ],
  ["resume", "Let a campaign go on that rests", "One that works already stays as it is."],
  [
    "retry",
    "Let a failed campaign go on from the step that failed",
    "What it made until then is kept. One that works stays as it is.",
  ],
] as const;

export const campaignRoutes: Routes = (app, { backends }) => {
  const { campaigns } = backends;

  app.post(
    "/campaigns",
    {
      schema: {
        tags,
        summary: "Start a campaign",
        headers: idempotencyHeaders,
        body: startCampaignBody,
        response: { 201: schema.campaignSchema, ...problems },
      },
    },
    async ({ body, headers }, reply) => {
      // Under a key of ours where there is none: a replica that dies midway must not leave a second campaign behind.
      const key = headers["idempotency-key"] || randomUUID();
      const campaign = await campaigns.startCampaign(await asked(backends, body, key));
      return reply.code(201).header("location", `/v1/campaigns/${campaign.run?.id}`).send(snake(campaign));
    },
  );

  app.post(
    "/campaigns/estimate",
    {
      schema: {
        tags,
        summary: "Resolve and check a campaign, and forecast what it will take, without starting it",
        body: startCampaignBody,
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
        summary: "Campaigns, newest first",
        querystring: campaignsQuery,
        response: { 200: schema.campaignPage, ...problems },
      },
    },
    async ({ query }) =>
      snake(
        await campaigns.listCampaigns({
          projectId,
          pageSize: query.limit,
          cursor: query.cursor,
          statuses: query.status,
          nameContains: query.name,
          datasetId: query.dataset === undefined ? "" : (await findDataset(backends, query.dataset)).id,
          createdSince: query.since,
          createdBefore: query.before,
          tag: query.tag,
        }),
      ),
  );

  app.patch(
    "/campaigns/:campaign",
    {
      schema: {
        tags,
        summary: "Rename or annotate a campaign, or raise a cap of a running one",
        description:
          "What is left out stays. A raised cap counts at once, and resumes a campaign whose budget is exhausted; with " +
          "finish_at_budget it counts from the next iteration. 0 means none. Other settings are what the campaign's steps " +
          "rest on, and do not change.",
        params: campaignRef,
        body: campaignPatch,
        response: { 200: schema.campaignSchema, ...problems },
      },
    },
    async ({ params, body }) => {
      const { tags: values, ...change } = body;
      return snake(
        await campaigns.updateCampaign({
          ...campaignKey(params.campaign),
          ...camel(change),
          tags: values === undefined ? undefined : { values },
        }),
      );
    },
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
    "/campaigns/:campaign/fork",
    {
      schema: {
        tags,
        summary: "Start a campaign that goes on from an iteration of this one with other settings",
        description:
          "It shares the dataset versions, checkpoints and paid answers before that iteration, and pays for none of them " +
          "again. This campaign may be in any state, and is not deleted before its forks.",
        params: campaignRef,
        headers: idempotencyHeaders,
        body: forkBody,
        response: { 201: schema.campaignSchema, ...problems },
      },
    },
    async ({ params, body, headers }, reply) => {
      const key = campaignKey(params.campaign);
      const { request } = await campaigns.getCampaign(key);
      // Of a setting that is given, 0 means "none" also where the other campaign has one.
      const settings = Settings.fromPartial({ ...request?.settings, ...camel(body.settings) });
      const { iteration, name = "" } = body;
      const idempotencyKey = headers["idempotency-key"];
      const fork = await campaigns.forkCampaign({ ...key, iteration, name, settings, idempotencyKey });
      return reply.code(201).header("location", `/v1/campaigns/${fork.run?.id}`).send(snake(fork));
    },
  );

  for (const [action, summary, description] of controls) {
    app.post(
      `/campaigns/:campaign/${action}`,
      {
        schema: {
          tags,
          summary,
          description,
          params: campaignRef,
          response: { 200: schema.campaignSchema, ...problems },
        },
      },
      async ({ params }) => snake(await campaigns[`${action}Campaign`](campaignKey(params.campaign))),
    );
  }

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
          accepted: query.accepted,
          rejection: query.rejection,
          seedRowId: query.seed_row,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );
};

/** What the service is asked by. */
export function campaignKey(given: string): { projectId: string; id: string } {
  // Some platforms write UUIDs in capitals.
  const id = given.toLowerCase();
  if (!isUuid(id)) throw notFound("campaign", given);
  return { projectId, id };
}

/** A request's body as the campaigns service is asked. */
async function asked(
  backends: Backends,
  body: z.output<typeof startCampaignBody>,
  idempotencyKey: string,
): Promise<StartCampaignRequest> {
  return {
    projectId,
    idempotencyKey,
    name: body.name ?? (typeof body.task === "string" ? body.task : body.task.name),
    datasetVersionId: body.dataset_version_id ?? "",
    datasetId: body.dataset === undefined ? "" : (await findDataset(backends, body.dataset)).id,
    studentProfile: body.student_profile,
    teacherProfile: body.teacher_profile,
    task: typeof body.task === "string" ? undefined : Task.fromPartial(camel(body.task)),
    taskName: typeof body.task === "string" ? body.task : "",
    settings: Settings.fromPartial(camel(body.settings)),
  };
}
