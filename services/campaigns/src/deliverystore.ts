/** All SQL of deliveries: written with their event, claimed, settled, looked at, asked for again. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { type Delivery, DeliveryStatus } from "@tutelage/proto/campaigns/v1/webhooks";
import { sql } from "drizzle-orm";
import type { EventType } from "./events.js";
import type { CampaignKey } from "./store.js";
import { deliveryBody, testType } from "./webhook.js";

/** Which webhook, of which project. */
export interface WebhookKey {
  projectId: string;
  webhookId: string;
}

/** A delivery that this process is to send, with what that takes. */
export interface ClaimedDelivery {
  id: string;
  fence: number;
  /** Tries, this one included. */
  attempts: number;
  webhookId: string;
  url: string;
  /** Those that sign; never logged. */
  secrets: string[];
  body: string;
  /** Until its day ends; below 0 after that. */
  leftMs: number;
}

/** How a try ended that did not deliver. */
export interface FailedTry {
  httpStatus: number | undefined;
  error: string;
  /** Undefined to give the delivery up. */
  retryMs: number | undefined;
  /** The receiver is not to be asked for anything meanwhile. */
  pauseMs?: number;
  /** The receiver wants no more. */
  disable?: string;
}

/** How many due deliveries of a webhook a claim looks at, so that those another process is just claiming do not hide others. */
const lookedAt = 16;

const columns = `id, webhook_id as "webhookId", coalesce(campaign_id::text, '') as "campaignId",
  coalesce(sequence, 0)::float8 as sequence, type, status, attempts, created_at as "createdAt",
  case when status = 'PENDING' then due_at end as "dueAt", last_attempt_at as "lastAttemptAt",
  coalesce(last_http_status, 0) as "lastHttpStatus", coalesce(last_error, '') as "lastError", finished_at as "finishedAt"`;

/** Back to the beginning: due now, with a day of tries; whoever sends it now has lost it. */
const again = `status = 'PENDING', attempts = 0, fence = fence + 1, due_at = now(), sending_until = null,
  give_up_at = now() + interval '24 hours', finished_at = null`;

/** Writes an event for every webhook of the project that wants it, in the event's transaction. */
export async function putDeliveries(
  transaction: Transaction,
  event: CampaignKey & { sequence: number; type: EventType; at: Date; payload: object },
): Promise<void> {
  const { projectId, campaignId, sequence, type, at, payload } = event;
  const data = { project_id: projectId, campaign_id: campaignId, sequence, payload };
  await transaction.execute(sql`
    insert into deliveries (project_id, webhook_id, campaign_id, sequence, type, body)
    select project_id, id, ${campaignId}::uuid, ${sequence}::bigint, ${type}, ${deliveryBody({ type, at, data })}
    from webhooks
    where project_id = ${projectId} and (cardinality(event_types) = 0 or ${type} = any(event_types))`);
}

export class DeliveryStore {
  constructor(private readonly database: Database) {}

  /** Writes a delivery that tries a webhook. */
  async putTest({ projectId, webhookId }: WebhookKey): Promise<Delivery> {
    const body = deliveryBody({ type: testType, at: new Date(), data: { project_id: projectId } });
    const { rows } = await this.database.pool.query(
      `insert into deliveries (project_id, webhook_id, type, body) values ($1, $2, $3, $4) returning ${columns}`,
      [projectId, webhookId, testType, body],
    );
    return toDelivery(rows[0]);
  }

  /**
   * Takes the delivery that is due the longest, of the webhooks that fewer than
   * `perWebhook` are being sent to: one that hangs keeps nobody else waiting.
   * Undefined when there is none.
   */
  async claim(leaseMs: number, perWebhook: number): Promise<ClaimedDelivery | undefined> {
    const { rows } = await this.database.pool.query(
      `with chosen as (
         select d.id from webhooks w
         cross join lateral (
           select id, due_at, number from deliveries
           where webhook_id = w.id and status = 'PENDING' and due_at <= now()
           order by due_at, number limit ${lookedAt}) due
         join deliveries d on d.id = due.id
         where w.disabled_reason is null and (w.paused_until is null or w.paused_until <= now())
           and (select count(*) from deliveries s
                where s.webhook_id = w.id and s.status = 'PENDING' and s.sending_until > now()) < $2
           -- Again of the row that is locked: another process may have claimed it since the look.
           and d.status = 'PENDING' and d.due_at <= now()
         order by due.due_at, due.number limit 1 for update of d skip locked)
       update deliveries d set fence = fence + 1, attempts = attempts + 1, last_attempt_at = now(),
         sending_until = now() + $1 * interval '1 millisecond', due_at = now() + $1 * interval '1 millisecond'
       from chosen, webhooks w where d.id = chosen.id and w.id = d.webhook_id
       returning d.id, d.fence::float8 as fence, d.attempts, w.id as "webhookId", w.url, d.body,
         case when w.previous_secret_until > now() then array[w.secret, w.previous_secret] else array[w.secret] end
           as secrets,
         (extract(epoch from d.give_up_at - now()) * 1000)::float8 as "leftMs"`,
      [leaseMs, perWebhook],
    );
    return rows[0];
  }

  /** Lets claims hold for so long again; those that are settled or lost stay as they are. */
  async renew(claimed: readonly ClaimedDelivery[], leaseMs: number): Promise<void> {
    await this.database.pool.query(
      `update deliveries d set sending_until = now() + $3 * interval '1 millisecond',
         due_at = now() + $3 * interval '1 millisecond'
       from unnest($1::uuid[], $2::bigint[]) as held (id, fence)
       where d.id = held.id and d.fence = held.fence and d.status = 'PENDING' and d.sending_until is not null`,
      [claimed.map(({ id }) => id), claimed.map(({ fence }) => fence), leaseMs],
    );
  }

  /** The receiver has it. */
  async delivered({ id, fence }: ClaimedDelivery, httpStatus: number): Promise<void> {
    await this.database.pool.query(
      `update deliveries set status = 'DELIVERED', sending_until = null, finished_at = now(),
         last_http_status = $3, last_error = null
       where id = $1 and fence = $2 and status = 'PENDING'`,
      [id, fence, httpStatus],
    );
  }

  /** The receiver may not have it. */
  async failed(claimed: ClaimedDelivery, how: FailedTry): Promise<void> {
    const { id, fence, webhookId } = claimed;
    await this.database.drizzle.transaction(async (transaction) => {
      const { rowCount } = await transaction.execute(sql`
        update deliveries set sending_until = null, last_http_status = ${how.httpStatus ?? null}::int,
          last_error = ${how.error},
          status = case when ${how.retryMs ?? null}::float8 is null then 'DEAD' else 'PENDING' end,
          finished_at = case when ${how.retryMs ?? null}::float8 is null then now() end,
          due_at = now() + coalesce(${how.retryMs ?? null}::float8, 0) * interval '1 millisecond'
        where id = ${id} and fence = ${fence} and status = 'PENDING'`);
      if (rowCount === 0) return;
      if (how.pauseMs !== undefined) {
        await transaction.execute(sql`
          update webhooks set paused_until = greatest(paused_until, now() + ${how.pauseMs} * interval '1 millisecond')
          where id = ${webhookId}`);
      }
      if (how.disable !== undefined) {
        await transaction.execute(sql`
          update webhooks set disabled_reason = coalesce(disabled_reason, ${how.disable}) where id = ${webhookId}`);
      }
    });
  }

  /** Gives a claim back that was not carried out; the try does not count. */
  async release({ id, fence }: ClaimedDelivery): Promise<void> {
    await this.database.pool.query(
      `update deliveries set sending_until = null, due_at = now(), attempts = attempts - 1
       where id = $1 and fence = $2 and status = 'PENDING'`,
      [id, fence],
    );
  }

  /** A page of a webhook's deliveries, newest first, with the place of each. */
  async page(
    { projectId, webhookId }: WebhookKey,
    page: { status: DeliveryStatus; campaignId: string; limit: number; before: number | undefined },
  ): Promise<{ delivery: Delivery; number: number }[]> {
    const { rows } = await this.database.pool.query(
      `select ${columns}, number::float8 as number from deliveries
       where project_id = $1 and webhook_id = $2 and ($3::text is null or status = $3)
         and ($4::uuid is null or campaign_id = $4) and ($5::float8 is null or number < $5)
       order by number desc limit $6`,
      [
        projectId,
        webhookId,
        statusNames[page.status],
        page.campaignId === "" ? null : page.campaignId,
        page.before ?? null,
        page.limit,
      ],
    );
    return rows.map(({ number, ...row }) => ({ delivery: toDelivery(row), number }));
  }

  /** One delivery with its body. */
  async get({ projectId, webhookId }: WebhookKey, id: string): Promise<Delivery | undefined> {
    const { rows } = await this.database.pool.query(
      `select ${columns}, body from deliveries where project_id = $1 and webhook_id = $2 and id = $3`,
      [projectId, webhookId, id],
    );
    return rows[0] === undefined ? undefined : toDelivery(rows[0]);
  }

  /** Makes one due anew. */
  async redeliver({ projectId, webhookId }: WebhookKey, id: string): Promise<Delivery | undefined> {
    const { rows } = await this.database.pool.query(
      `update deliveries set ${again} where project_id = $1 and webhook_id = $2 and id = $3 returning ${columns}`,
      [projectId, webhookId, id],
    );
    return rows[0] === undefined ? undefined : toDelivery(rows[0]);
  }

  /** Makes all that were given up due anew; gives how many. */
  async redeliverDead({ projectId, webhookId }: WebhookKey): Promise<number> {
    const { rowCount } = await this.database.pool.query(
      `update deliveries set ${again} where project_id = $1 and webhook_id = $2 and status = 'DEAD'`,
      [projectId, webhookId],
    );
    return rowCount ?? 0;
  }

  /** Gives up what waited a day for a disabled webhook, and removes what is past its time or has no webhook any more. */
  async tidy(keepDays: number): Promise<void> {
    await this.database.pool.query(
      `update deliveries d set status = 'DEAD', finished_at = now(), sending_until = null,
         last_error = coalesce(last_error, 'the webhook is disabled')
       from webhooks w
       where w.id = d.webhook_id and w.disabled_reason is not null and d.status = 'PENDING' and d.give_up_at < now()`,
    );
    await this.database.pool.query(
      "delete from deliveries where status <> 'PENDING' and finished_at < now() - $1 * interval '1 day'",
      [keepDays],
    );
    await this.database.pool.query(
      "delete from deliveries d where not exists (select 1 from webhooks w where w.id = d.webhook_id)",
    );
  }
}

/** As they are stored; null for whatever status. */
const statusNames = {
  [DeliveryStatus.UNSPECIFIED]: null,
  [DeliveryStatus.PENDING]: "PENDING",
  [DeliveryStatus.DELIVERED]: "DELIVERED",
  [DeliveryStatus.DEAD]: "DEAD",
};

function toDelivery(row: Record<string, unknown>): Delivery {
  const { status, dueAt, lastAttemptAt, finishedAt, ...rest } = row;
  return {
    body: "",
    ...rest,
    status: DeliveryStatus[status as "PENDING" | "DELIVERED" | "DEAD"],
    dueAt: dueAt ?? undefined,
    lastAttemptAt: lastAttemptAt ?? undefined,
    finishedAt: finishedAt ?? undefined,
  } as Delivery;
}
