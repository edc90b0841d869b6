/** gRPC handlers of webhooks. */
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import { isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { requireProject } from "@tutelage/platform/project";
import { isUuid } from "@tutelage/platform/runs";
import { requireStorable } from "@tutelage/platform/text";
import type { Delivery, Webhook, WebhooksServiceImplementation } from "@tutelage/proto/campaigns/v1/webhooks";
import type { DeliveryStore, WebhookKey } from "./deliverystore.js";
import { newSecret, requireDescription, requireEventTypes, requireWebhookUrl } from "./webhook.js";
import type { WebhookStore } from "./webhookstore.js";

const longestOverlapSeconds = 604_800;

export function webhooksService({
  webhooks,
  deliveries,
}: {
  webhooks: WebhookStore;
  deliveries: DeliveryStore;
}): WebhooksServiceImplementation {
  /** One that something is to be sent to now. */
  const enabled = async (key: WebhookKey): Promise<Webhook> => {
    const webhook = await webhooks.get(key);
    if (webhook.enabled) return webhook;
    throw new TutelageError("failed_precondition", "The webhook is disabled: enable it first, then send again.", {
      reason: "webhook_disabled",
    });
  };
  const found = (delivery: Delivery | undefined, id: string): Delivery => {
    if (delivery === undefined) throw notFound("delivery", id);
    return delivery;
  };
  return {
    async createWebhook({ projectId, url, description, eventTypes }) {
      requireProject(projectId);
      requireStorable({ url, description, eventTypes }, "");
      const secret = newSecret();
      const webhook = await webhooks.create(projectId, {
        url: requireWebhookUrl(url),
        description: requireDescription(description),
        eventTypes: requireEventTypes(eventTypes),
        secret,
      });
      return { webhook, secret };
    },

    async listWebhooks({ projectId }) {
      return { webhooks: await webhooks.list(requireProject(projectId)) };
    },

    async getWebhook({ projectId, id }) {
      return await webhooks.get({ projectId: requireProject(projectId), webhookId: id });
    },

    async updateWebhook({ projectId, id, url, description, eventTypes, enabled }) {
      requireStorable({ url, description, eventTypes: eventTypes?.values }, "");
      return await webhooks.update(
        { projectId: requireProject(projectId), webhookId: id },
        {
          url: url === undefined ? undefined : requireWebhookUrl(url),
          description: description === undefined ? undefined : requireDescription(description),
          eventTypes: eventTypes === undefined ? undefined : requireEventTypes(eventTypes.values),
          enabled,
        },
      );
    },

    async deleteWebhook({ projectId, id }) {
      await webhooks.delete({ projectId: requireProject(projectId), webhookId: id });
      return {};
    },

    async rotateWebhookSecret({ projectId, id, overlapSeconds }) {
      if (overlapSeconds < 0 || overlapSeconds > longestOverlapSeconds) {
        throw invalidField("overlap_seconds", `must be from 0 to ${longestOverlapSeconds}; not ${overlapSeconds}.`);
      }
      const secret = newSecret();
      const key = { projectId: requireProject(projectId), webhookId: id };
      return { webhook: await webhooks.rotate(key, secret, overlapSeconds), secret };
    },

    async testWebhook({ projectId, id }) {
      const key = { projectId: requireProject(projectId), webhookId: id };
      await enabled(key);
      return await deliveries.putTest(key);
    },

    async listDeliveries({ projectId, webhookId, status, campaignId, pageSize, cursor }) {
      const key = { projectId: requireProject(projectId), webhookId };
      await webhooks.get(key);
      if (campaignId !== "" && !isUuid(campaignId)) throw notFound("campaign", campaignId);
      const limit = requirePageSize(pageSize);
      const listing = `deliveries ${webhookId}`;
      const before = readCursor(cursor, listing, isNumber);
      const page = await deliveries.page(key, { status, campaignId, limit: limit + 1, before });
      const shown = page.slice(0, limit);
      return {
        deliveries: shown.map(({ delivery }) => delivery),
        nextCursor: nextCursor(listing, page.length > limit, shown.at(-1)?.number),
      };
    },

    async getDelivery({ projectId, webhookId, id }) {
      const key = { projectId: requireProject(projectId), webhookId };
      await webhooks.get(key);
      return found(isUuid(id) ? await deliveries.get(key, id) : undefined, id);
    },

    async redeliver({ projectId, webhookId, id }) {
      const key = { projectId: requireProject(projectId), webhookId };
      await enabled(key);
      return found(isUuid(id) ? await deliveries.redeliver(key, id) : undefined, id);
    },

    async redeliverDead({ projectId, webhookId }) {
      const key = { projectId: requireProject(projectId), webhookId };
      await enabled(key);
      return { deliveries: await deliveries.redeliverDead(key) };
    },
  };
}
