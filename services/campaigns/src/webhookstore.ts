/** All SQL of webhooks themselves. Through plain pg: its errors do not repeat what was sent, and secrets are. */
import { type Database, sqlState } from "@tutelage/platform/database";
import { notFound, TutelageError } from "@tutelage/platform/errors";
import { isUuid } from "@tutelage/platform/runs";
import type { Webhook } from "@tutelage/proto/campaigns/v1/webhooks";
import type { WebhookKey } from "./deliverystore.js";

/** Each event is written once for each. */
export const mostWebhooks = 50;
const uniqueViolation = "23505";

const columns = `id, url, description, event_types as "eventTypes", disabled_reason as "disabledReason",
  created_at as "createdAt", case when previous_secret_until > now() then previous_secret_until end as "previousSecretUntil",
  case when paused_until > now() then paused_until end as "pausedUntil",
  (select count(*)::float8 from deliveries d where d.webhook_id = webhooks.id and d.status = 'PENDING') as "pendingDeliveries",
  (select count(*)::float8 from deliveries d where d.webhook_id = webhooks.id and d.status = 'DEAD') as "deadDeliveries"`;

export class WebhookStore {
  constructor(private readonly database: Database) {}

  /** Throws already_exists for a URL that the project has, and resource_exhausted when it has too many. */
  async create(
    projectId: string,
    webhook: { url: string; description: string; eventTypes: string[]; secret: string },
  ): Promise<Webhook> {
    const { url, description, eventTypes, secret } = webhook;
    const { rows } = await this.whileUrlIsFree(url, () =>
      this.database.pool.query(
        `insert into webhooks (project_id, url, description, event_types, secret)
         select $1, $2, $3, $4, $5 where (select count(*) from webhooks where project_id = $1) < ${mostWebhooks}
         returning ${columns}`,
        [projectId, url, description, eventTypes, secret],
      ),
    );
    if (rows[0] !== undefined) return toWebhook(rows[0]);
    throw new TutelageError(
      "resource_exhausted",
      `The project has ${mostWebhooks} webhooks, which is the most; delete one first.`,
      { reason: "too_many_webhooks" },
    );
  }

  async list(projectId: string): Promise<Webhook[]> {
    const { rows } = await this.database.pool.query(
      `select ${columns} from webhooks where project_id = $1 order by created_at, id`,
      [projectId],
    );
    return rows.map(toWebhook);
  }

  /** Throws not_found. */
  async get({ projectId, webhookId }: WebhookKey): Promise<Webhook> {
    if (!isUuid(webhookId)) throw notFound("webhook", webhookId);
    const { rows } = await this.database.pool.query(
      `select ${columns} from webhooks where project_id = $1 and id = $2`,
      [projectId, webhookId],
    );
    if (rows[0] === undefined) throw notFound("webhook", webhookId);
    return toWebhook(rows[0]);
  }

  /** Changes what is given. Throws not_found, and already_exists for a URL that another webhook has. */
  async update(
    key: WebhookKey,
    change: {
      url: string | undefined;
      description: string | undefined;
      eventTypes: string[] | undefined;
      enabled: boolean | undefined;
    },
  ): Promise<Webhook> {
    const { url, description, eventTypes, enabled } = change;
    await this.get(key);
    await this.whileUrlIsFree(url ?? "", () =>
      this.database.pool.query(
        `update webhooks set url = coalesce($3, url), description = coalesce($4, description),
           event_types = coalesce($5, event_types),
           disabled_reason = case when $6 then null when not $6 then coalesce(disabled_reason, 'by_user')
                                  else disabled_reason end,
           -- Another receiver, or one that is wanted again, did not ask for a pause.
           paused_until = case when $6 or $3 is not null then null else paused_until end
         where project_id = $1 and id = $2`,
        [key.projectId, key.webhookId, url, description, eventTypes, enabled],
      ),
    );
    return await this.get(key);
  }

  /** Stores a new secret; the one before stays beside it for so long. Throws not_found. */
  async rotate(key: WebhookKey, secret: string, overlapSeconds: number): Promise<Webhook> {
    await this.get(key);
    await this.database.pool.query(
      `update webhooks set previous_secret = case when $4 > 0 then secret end,
         previous_secret_until = case when $4 > 0 then now() + $4 * interval '1 second' end, secret = $3
       where project_id = $1 and id = $2`,
      [key.projectId, key.webhookId, secret, overlapSeconds],
    );
    return await this.get(key);
  }

  /** Removes a webhook with its deliveries. Throws not_found. */
  async delete(key: WebhookKey): Promise<void> {
    const which = [key.projectId, key.webhookId];
    const gone = isUuid(key.webhookId)
      ? await this.database.pool.query("delete from webhooks where project_id = $1 and id = $2", which)
      : undefined;
    if (!gone?.rowCount) throw notFound("webhook", key.webhookId);
    // What an event under way still writes for it, the sweeper removes.
    await this.database.pool.query("delete from deliveries where project_id = $1 and webhook_id = $2", which);
  }

  private async whileUrlIsFree<T>(url: string, write: () => Promise<T>): Promise<T> {
    return await write().catch((error: unknown) => {
      if (sqlState(error) !== uniqueViolation) throw error;
      throw new TutelageError("already_exists", `url: ${url} is another webhook's; change that one, or delete it.`, {
        reason: "webhook_url_taken",
        fields: [{ field: "url", description: "is another webhook's; change that one, or delete it." }],
      });
    });
  }
}

function toWebhook({ disabledReason, previousSecretUntil, pausedUntil, ...row }: Record<string, unknown>): Webhook {
  return {
    ...row,
    enabled: disabledReason === null,
    disabledReason: disabledReason ?? "",
    previousSecretUntil: previousSecretUntil ?? undefined,
    pausedUntil: pausedUntil ?? undefined,
  } as Webhook;
}
