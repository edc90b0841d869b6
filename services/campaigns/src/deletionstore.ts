/** The SQL of deleting campaigns and of what the sweeper looks for. */
import type { Database } from "@tutelage/platform/database";
import { deleteRunRow } from "@tutelage/platform/rundeletion";
import type { RunStatus } from "@tutelage/platform/runs";
import type { Outcome } from "@tutelage/proto/campaigns/v1/campaigns";
import { sql } from "drizzle-orm";
import type { CampaignState } from "./campaign.js";
import type { ChildService } from "./clients.js";
import { forksOf } from "./forkstore.js";
import type { CampaignKey } from "./store.js";

/** A look of the sweeper gives at most this many. */
const mostAtOnce = 100;
const sweepLock = "tutelage campaigns sweep";

/** A fork may go on from its parent's checkpoints, itself or in a fork of its own, until its own have gone. */
const neededByFork = `exists (
  select 1 from runs fork where fork.project_id = runs.project_id and fork.request ? 'fork'
    and fork.request->'fork'->>'campaignId' = runs.id::text and fork.deleting_at is null
    and not fork.state ? 'checkpointsSwept')`;

/** A campaign with the version that it needs. */
export interface HeldCampaign extends CampaignKey {
  versionId: string;
}

/** A campaign that ended, with whom it asked for runs. */
export interface LeftCampaign extends CampaignKey {
  status: RunStatus;
  fence: number;
  asked: ChildService[];
}

/** A campaign with what decides about its checkpoints. */
export interface EndedCampaign extends CampaignKey {
  outcome: Outcome | undefined;
}

export class DeletionStore {
  constructor(private readonly database: Database) {}

  /** A campaign's status, and whether it is being deleted; undefined when there is none. */
  async look({ projectId, campaignId }: CampaignKey): Promise<{ status: RunStatus; deleting: boolean } | undefined> {
    const { rows } = await this.database.pool.query(
      `select status, deleting_at is not null as deleting from runs where project_id = $1 and id = $2`,
      [projectId, campaignId],
    );
    return rows[0];
  }

  /** The campaigns that were made of it and are there. */
  async forks(key: CampaignKey): Promise<string[]> {
    return await forksOf(this.database, key);
  }

  /** Hides a final campaign, or says anew that its deletion is under way. Gives the mark of this deletion. */
  async hide({ projectId, campaignId }: CampaignKey): Promise<string | undefined> {
    const { rows } = await this.database.pool.query<{ mark: string }>(
      `update runs set deleting_at = clock_timestamp()
       where project_id = $1 and id = $2 and status in ('SUCCEEDED', 'FAILED', 'CANCELLED')
       returning deleting_at::text as mark`,
      [projectId, campaignId],
    );
    return rows[0]?.mark;
  }

  /** Makes a hidden campaign that cannot be deleted visible again, unless another deletion has begun since the mark. */
  async unhide({ projectId, campaignId }: CampaignKey, mark: string | undefined): Promise<void> {
    await this.database.pool.query(
      "update runs set deleting_at = null where project_id = $1 and id = $2 and deleting_at = $3::timestamptz",
      [projectId, campaignId, mark],
    );
  }

  /** Removes all that this service knows of a hidden campaign, its row last. Gives how many of each kind. */
  async remove({ projectId, campaignId }: CampaignKey): Promise<Record<string, number>> {
    return await this.database.drizzle.transaction(async (transaction) => {
      const removed: Record<string, number> = {};
      for (const table of ["steps", "iterations", "candidates", "seed_grades", "reviews", "events"]) {
        const { rowCount } = await transaction.execute(
          sql`delete from ${sql.identifier(table)} where project_id = ${projectId} and campaign_id = ${campaignId}`,
        );
        removed[table] = rowCount ?? 0;
      }
      // Those that are still to be made are made, from their own copy of the event.
      await transaction.execute(
        sql`delete from deliveries
            where project_id = ${projectId} and campaign_id = ${campaignId} and status <> 'PENDING'`,
      );
      removed.campaigns = await deleteRunRow(transaction, projectId, campaignId);
      return removed;
    });
  }

  /** Notes something in a campaign's state. False when it is gone or being deleted. */
  async mark({ projectId, campaignId }: CampaignKey, patch: Partial<CampaignState>): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      "update runs set state = state || $3::jsonb where project_id = $1 and id = $2 and deleting_at is null",
      [projectId, campaignId, JSON.stringify(patch)],
    );
    return rowCount === 1;
  }

  /** Deletions that began so long ago that whoever began them has died, of every project. */
  async interrupted(quietMs: number): Promise<CampaignKey[]> {
    const { rows } = await this.database.pool.query(
      `select project_id as "projectId", id as "campaignId" from runs
       where deleting_at < now() - $1 * interval '1 millisecond' order by deleting_at limit ${mostAtOnce}`,
      [quietMs],
    );
    return rows;
  }

  /** Campaigns whose hold is not confirmed, of every project. */
  async unheld(): Promise<HeldCampaign[]> {
    const { rows } = await this.database.pool.query(
      `select project_id as "projectId", id as "campaignId", request->>'datasetVersionId' as "versionId" from runs
       where not state ? 'versionHeld' and deleting_at is null order by created_at limit ${mostAtOnce}`,
    );
    return rows;
  }

  /** Campaigns that ended since their runs elsewhere were last seen to; of every project. */
  async left(): Promise<LeftCampaign[]> {
    const { rows } = await this.database.pool.query(
      `select project_id as "projectId", id as "campaignId", status, fence::int as fence, state->'asked' as asked
       from runs where status in ('SUCCEEDED', 'FAILED', 'CANCELLED') and state ? 'asked' and deleting_at is null
         and (state->>'childrenStopped')::bigint is distinct from fence
       order by finished_at limit ${mostAtOnce}`,
    );
    return rows;
  }

  /** Campaigns that ended so long ago, with checkpoints that nobody needs any more; of every project. */
  async unswept(days: number): Promise<EndedCampaign[]> {
    const { rows } = await this.database.pool.query(
      `select project_id as "projectId", id as "campaignId", state->'outcome' as outcome from runs
       where status in ('SUCCEEDED', 'FAILED', 'CANCELLED') and not state ? 'checkpointsGone' and deleting_at is null
         and finished_at < now() - $1 * interval '1 day' and not ${neededByFork}
       order by finished_at limit ${mostAtOnce}`,
      [days],
    );
    return rows.map((row) => ({ ...row, outcome: row.outcome ?? undefined }));
  }

  /** Notes that the checkpoints of a campaign go now: no retry or fork may want them. False where one does. */
  async giveUpCheckpoints({ projectId, campaignId }: CampaignKey): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      `update runs set state = state || '{"checkpointsSwept": true}'
       where project_id = $1 and id = $2 and status in ('SUCCEEDED', 'FAILED', 'CANCELLED') and deleting_at is null
         and not ${neededByFork}`,
      [projectId, campaignId],
    );
    return rowCount === 1;
  }

  /** Does a piece of work unless another replica does it now; the lock goes with the connection, however that ends. */
  async alone(work: () => Promise<void>): Promise<void> {
    const client = await this.database.pool.connect();
    let failure: Error | undefined;
    try {
      const { rows } = await client.query("select pg_try_advisory_lock(hashtext($1)) as mine", [sweepLock]);
      if (!rows[0].mine) return;
      try {
        await work();
      } finally {
        await client.query("select pg_advisory_unlock(hashtext($1))", [sweepLock]);
      }
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      // A connection that may still have the lock is not used again.
      client.release(failure);
    }
  }
}
