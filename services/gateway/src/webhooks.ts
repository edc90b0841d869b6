/** /v1/webhooks: where campaigns' events are sent, and what became of each. */
import { DeliveryStatus } from "@tutelage/proto/campaigns/v1/webhooks";
import { z } from "zod";
import { snake } from "./cases.js";
import { enumName, nextCursor, pageQuery, problems, projectId } from "./fields.js";
import type { Routes } from "./routes.js";

const tags = ["webhooks"];
const webhookRef = z.object({ webhook: z.string().describe("Id of the webhook") });
const deliveryRef = webhookRef.extend({ delivery: z.string().describe("Id of the delivery") });

const url = z.string().describe("https, or http to this machine's loopback; without credentials");
const description = z.string().describe("Whatever is worth remembering, at most 500 characters");
const eventTypes = z.array(z.string()).max(100).describe('Types of events, e.g. "campaign.finished"; empty for all');

const webhookSchema = z
  .object({
    id: z.string(),
    url,
    description,
    event_types: eventTypes,
    enabled: z.boolean().describe("Whether anything is sent"),
    disabled_reason: z.string().describe('"by_user", or "gone" when the receiver answered 410; empty while enabled'),
    created_at: z.date().optional(),
    previous_secret_until: z.date().optional().describe("Until then the secret before the rotation signs, too"),
    paused_until: z.date().optional().describe("The receiver asked for this with Retry-After"),
    pending_deliveries: z.number().int(),
    dead_deliveries: z.number().int(),
  })
  .meta({ id: "Webhook" });

const webhookSecret = z
  .object({
    webhook: webhookSchema.optional(),
    secret: z.string().describe('"whsec_" and the key in base64. Keep it: no other answer has it'),
  })
  .meta({ id: "WebhookSecret" });

const deliveryFields = {
  id: z.string().describe("The header webhook-id, the same in every try"),
  webhook_id: z.string(),
  campaign_id: z.string().describe("Empty for a test"),
  sequence: z.number().int().describe("The event's in its campaign; 0 for a test"),
  type: z.string(),
  status: enumName(DeliveryStatus).describe("dead: given up after a day, or because the receiver answered 410"),
  attempts: z.number().int(),
  created_at: z.date().optional(),
  due_at: z.date().optional().describe("When it is tried next"),
  last_attempt_at: z.date().optional(),
  last_http_status: z.number().int().describe("0 when there was no answer"),
  last_error: z.string(),
  finished_at: z.date().optional(),
};
const deliverySchema = z.object(deliveryFields).meta({ id: "Delivery" });
const wholeDelivery = z
  .object({ ...deliveryFields, body: z.string().describe("What is signed and sent, byte for byte") })
  .meta({ id: "WholeDelivery" });

export const webhookRoutes: Routes = (app, { backends: { webhooks } }) => {
  app.post(
    "/webhooks",
    {
      schema: {
        tags,
        summary: "Have the project's events sent to a URL",
        description:
          "As the Standard Webhooks specification has it: signed, at least once, with retries for 24 hours. The secret " +
          "that verifies the signatures is in this answer and in no later one.",
        body: z.strictObject({ url, description: description.default(""), event_types: eventTypes.default([]) }),
        response: { 201: webhookSecret, ...problems },
      },
    },
    async ({ body }, reply) => {
      const { url, description, event_types } = body;
      const made = await webhooks.createWebhook({ projectId, url, description, eventTypes: event_types });
      return reply.code(201).header("location", `/v1/webhooks/${made.webhook?.id}`).send(snake(made));
    },
  );

  app.get(
    "/webhooks",
    {
      schema: {
        tags,
        summary: "All webhooks, oldest first",
        response: { 200: z.object({ webhooks: z.array(webhookSchema) }), ...problems },
      },
    },
    async () => snake(await webhooks.listWebhooks({ projectId })),
  );

  app.get(
    "/webhooks/:webhook",
    { schema: { tags, summary: "One webhook", params: webhookRef, response: { 200: webhookSchema, ...problems } } },
    async ({ params }) => snake(await webhooks.getWebhook({ projectId, id: params.webhook })),
  );

  app.patch(
    "/webhooks/:webhook",
    {
      schema: {
        tags,
        summary: "Change a webhook, or switch it off and on",
        description:
          "What is left out stays. What is pending goes to the new URL. While it is off, events wait for up to a day " +
          "and are then given up; switched on, what is pending is sent.",
        params: webhookRef,
        body: z.strictObject({
          url: url.optional(),
          description: description.optional(),
          event_types: eventTypes.optional(),
          enabled: z.boolean().optional(),
        }),
        response: { 200: webhookSchema, ...problems },
      },
    },
    async ({ params, body: { event_types, ...change } }) =>
      snake(
        await webhooks.updateWebhook({
          projectId,
          id: params.webhook,
          ...change,
          ...(event_types === undefined ? {} : { eventTypes: { values: event_types } }),
        }),
      ),
  );

  app.delete(
    "/webhooks/:webhook",
    {
      schema: {
        tags,
        summary: "Remove a webhook and its deliveries, those that are still to be made too",
        params: webhookRef,
        response: { 204: z.undefined().describe("It is gone"), ...problems },
      },
    },
    async ({ params }, reply) => {
      await webhooks.deleteWebhook({ projectId, id: params.webhook });
      return reply.code(204).send();
    },
  );

  app.post(
    "/webhooks/:webhook/rotate-secret",
    {
      schema: {
        tags,
        summary: "Make a new secret; the one before signs beside it for a while",
        params: webhookRef,
        body: z.strictObject({
          overlap_seconds: z
            .number()
            .int()
            .min(0)
            .max(604_800)
            .default(86_400)
            .describe("How long the present secret signs, too; 0 to end it at once"),
        }),
        response: { 200: webhookSecret, ...problems },
      },
    },
    async ({ params, body }) =>
      snake(
        await webhooks.rotateWebhookSecret({ projectId, id: params.webhook, overlapSeconds: body.overlap_seconds }),
      ),
  );

  app.post(
    "/webhooks/:webhook/test",
    {
      schema: {
        tags,
        summary: "Send a webhook.test",
        params: webhookRef,
        response: { 202: deliverySchema, ...problems },
      },
    },
    async ({ params }, reply) =>
      reply.code(202).send(snake(await webhooks.testWebhook({ projectId, id: params.webhook }))),
  );

  app.get(
    "/webhooks/:webhook/deliveries",
    {
      schema: {
        tags,
        summary: "What was sent or is to be sent, newest first",
        description:
          "Deliveries stay for 30 days after they were made or given up, unless the operator says otherwise.",
        params: webhookRef,
        querystring: z.strictObject({
          ...pageQuery,
          status: enumName(DeliveryStatus).optional().describe("Only these"),
          campaign: z.string().default("").describe("Only those of this campaign"),
        }),
        response: {
          200: z.object({ deliveries: z.array(deliverySchema), next_cursor: nextCursor }),
          ...problems,
        },
      },
    },
    async ({ params, query }) =>
      snake(
        await webhooks.listDeliveries({
          projectId,
          webhookId: params.webhook,
          status: query.status ?? DeliveryStatus.UNSPECIFIED,
          campaignId: query.campaign,
          pageSize: query.limit,
          cursor: query.cursor,
        }),
      ),
  );

  app.get(
    "/webhooks/:webhook/deliveries/:delivery",
    {
      schema: {
        tags,
        summary: "One delivery with its body",
        params: deliveryRef,
        response: { 200: wholeDelivery, ...problems },
      },
    },
    async ({ params }) =>
      snake(await webhooks.getDelivery({ projectId, webhookId: params.webhook, id: params.delivery })),
  );

  app.post(
    "/webhooks/:webhook/deliveries/:delivery/redeliver",
    {
      schema: {
        tags,
        summary: "Send a delivery again under the same id, whatever became of it",
        params: deliveryRef,
        response: { 202: deliverySchema, ...problems },
      },
    },
    async ({ params }, reply) =>
      reply
        .code(202)
        .send(snake(await webhooks.redeliver({ projectId, webhookId: params.webhook, id: params.delivery }))),
  );

  app.post(
    "/webhooks/:webhook/redeliver",
    {
      schema: {
        tags,
        summary: "Send all dead deliveries again",
        params: webhookRef,
        response: { 202: z.object({ deliveries: z.number().int().describe("How many were dead") }), ...problems },
      },
    },
    async ({ params }, reply) =>
      reply.code(202).send(snake(await webhooks.redeliverDead({ projectId, webhookId: params.webhook }))),
  );
};
