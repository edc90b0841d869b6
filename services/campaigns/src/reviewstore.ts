/** The SQL of reviews. What the loop writes takes the transaction of its lease; what somebody decides has its own. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { notFound } from "@tutelage/platform/errors";
import { fitting } from "@tutelage/platform/page";
import { Review, ReviewStatus } from "@tutelage/proto/campaigns/v1/campaigns";
import { sql } from "drizzle-orm";
import type { Finding, TakenDecision } from "./reviewing.js";
import type { CampaignKey, CampaignStore } from "./store.js";

/** A review as it is stored. */
interface StoredReview extends Omit<Review, "openedAt" | "decidedAt" | "actedIteration"> {
  openedAt: string;
  decidedAt: string | null;
  actedIteration: number | null;
}

/** With its place in the listing, and what its texts take. */
type PlacedReview = StoredReview & { number: number; bytes: number } & Record<string, unknown>;

const columns = sql.raw(`seed_row_id as "seedRowId", kind, status, seed_row as "row", evidence,
  proposed_output as "proposedOutput", output, reading, opened_at as "openedAt", decided_at as "decidedAt",
  decided_by as "decidedBy", acted_iteration as "actedIteration", new_row_id as "newRowId"`);

const ownedBy = ({ projectId, campaignId }: CampaignKey) =>
  sql`project_id = ${projectId} and campaign_id = ${campaignId}::uuid`;

function toReview(stored: StoredReview): Review {
  const { openedAt, decidedAt, actedIteration } = stored;
  return Review.fromPartial({
    ...stored,
    openedAt: new Date(openedAt),
    decidedAt: decidedAt === null ? undefined : new Date(decidedAt),
    actedIteration: actedIteration ?? undefined,
  });
}

/** Opens a review for each row, or adds to the one that it has. */
export async function putFindings(
  transaction: Transaction,
  { projectId, campaignId }: CampaignKey,
  found: readonly Finding[],
): Promise<void> {
  for (const { kind, row, evidence, proposedOutput } of found) {
    await transaction.execute(sql`
      insert into reviews (project_id, campaign_id, seed_row_id, kind, seed_row, evidence, proposed_output)
      values (${projectId}, ${campaignId}::uuid, ${row.id}, ${kind}, ${JSON.stringify(row)}::jsonb,
        ${JSON.stringify([evidence])}::jsonb, ${proposedOutput})
      on conflict (campaign_id, seed_row_id) do update
        set evidence = reviews.evidence || excluded.evidence, proposed_output = excluded.proposed_output`);
  }
}

/** Marks what is decided as taken up by an iteration, and gives all that this iteration took up, however often. */
export async function takeDecided(
  transaction: Transaction,
  key: CampaignKey,
  iteration: number,
): Promise<TakenDecision[]> {
  await transaction.execute(sql`
    update reviews set acted_iteration = ${iteration}
    where ${ownedBy(key)} and status <> ${ReviewStatus.OPEN} and acted_iteration is null`);
  const { rows } = await transaction.execute<TakenDecision & Record<string, unknown>>(sql`
    select seed_row_id as "seedRowId", status, output, reading from reviews
    where ${ownedBy(key)} and acted_iteration = ${iteration} order by number`);
  return rows;
}

/** Notes which row a relabelled one became. */
export async function noteNewRow(
  transaction: Transaction,
  key: CampaignKey,
  seedRowId: string,
  newRowId: string,
): Promise<void> {
  await transaction.execute(
    sql`update reviews set new_row_id = ${newRowId} where ${ownedBy(key)} and seed_row_id = ${seedRowId}`,
  );
}

/** How many reviews of a campaign nobody has decided. */
export async function countOpen({ pool }: Pick<Database, "pool">, key: CampaignKey): Promise<number> {
  const { rows } = await pool.query<{ open: number }>(
    "select count(*)::int as open from reviews where project_id = $1 and campaign_id = $2 and status = $3",
    [key.projectId, key.campaignId, ReviewStatus.OPEN],
  );
  return rows[0]?.open ?? 0;
}

/**
 * A fork's reviews: those that were opened in an iteration that it shares, with what that brought. Decisions that a
 * shared iteration took up stand; any other is open again, as it was made for the other campaign.
 */
export async function takeOverReviews(
  transaction: Transaction,
  { campaignId }: CampaignKey,
  parent: CampaignKey,
  iteration: number,
): Promise<void> {
  await transaction.execute(sql`
    insert into reviews (project_id, campaign_id, seed_row_id, kind, status, seed_row, evidence, proposed_output, output,
      reading, opened_at, decided_at, decided_by, acted_iteration, new_row_id)
    select project_id, ${campaignId}::uuid, seed_row_id, kind,
      case when taken then status else ${ReviewStatus.OPEN} end, seed_row, shared, proposed_output,
      case when taken then output else '' end, case when taken then reading else 'DISPUTES_UNSPECIFIED' end, opened_at,
      case when taken then decided_at end, case when taken then decided_by else '' end,
      case when taken then acted_iteration end, case when taken then new_row_id else '' end
    from (
      select *, coalesce(acted_iteration < ${iteration}, false) as taken,
        (select jsonb_agg(one order by (one->>'iteration')::int) from jsonb_array_elements(evidence) one
          where (one->>'iteration')::int < ${iteration}) as shared
      from reviews where ${ownedBy(parent)}) theirs
    where shared is not null order by number`);
}

/** What somebody decided, as it is stored. */
export type Decided = Pick<Review, "status" | "output" | "reading" | "decidedBy">;

export class ReviewStore {
  constructor(
    private readonly database: Database,
    private readonly events: Pick<CampaignStore, "putEvent">,
  ) {}

  /** A page of reviews after a number, in the order in which they were opened. */
  async reviews(
    key: CampaignKey,
    page: { status: ReviewStatus; after: number; pageSize: number },
  ): Promise<{ reviews: Review[]; last: number | undefined; more: boolean }> {
    const { rows } = await this.database.drizzle.execute<PlacedReview>(sql`
      select ${columns}, number::float8 as number, octet_length(seed_row::text) + octet_length(evidence::text) as bytes
      from reviews where ${ownedBy(key)} and number > ${page.after}
        and (${page.status} = ${ReviewStatus.UNSPECIFIED} or status = ${page.status})
      order by number limit ${page.pageSize + 1}`);
    const count = fitting(
      rows.map(({ bytes }) => bytes),
      page.pageSize,
    );
    const shown = rows.slice(0, count);
    return {
      reviews: shown.map(toReview),
      last: shown.at(-1)?.number,
      more: rows.length > count,
    };
  }

  /** Seed rows that are or will be left out of a campaign. */
  async excluded(key: CampaignKey): Promise<number> {
    const { rows } = await this.database.pool.query<{ excluded: number }>(
      "select count(*)::int as excluded from reviews where project_id = $1 and campaign_id = $2 and status = $3",
      [key.projectId, key.campaignId, ReviewStatus.EXCLUDED],
    );
    return rows[0]?.excluded ?? 0;
  }

  /**
   * Stores a decision by a rule that sees the review as it is, and may refuse;
   * undefined leaves it so. Throws not_found.
   * @param last done in the same transaction, when nothing is open any more
   */
  async decide(
    key: CampaignKey,
    seedRowId: string,
    rule: (review: Review) => Decided | undefined,
    last: (transaction: Transaction) => Promise<void>,
  ): Promise<Review> {
    return await this.database.drizzle.transaction(async (transaction) => {
      // The campaign's row first, as its holder does: of two who decide the last two, one finds nothing open.
      await transaction.execute(sql`
        select 1 from runs where project_id = ${key.projectId} and id = ${key.campaignId}::uuid for no key update`);
      const which = sql`${ownedBy(key)} and seed_row_id = ${seedRowId}`;
      const found = await transaction.execute<StoredReview & Record<string, unknown>>(
        sql`select ${columns} from reviews where ${which}`,
      );
      const [before] = found.rows;
      if (before === undefined) throw notFound("review of row", seedRowId);
      let review = toReview(before);
      const decided = rule(review);
      if (decided !== undefined) {
        const { rows } = await transaction.execute<StoredReview & Record<string, unknown>>(sql`
          update reviews set status = ${decided.status}, output = ${decided.output}, reading = ${decided.reading},
            decided_by = ${decided.decidedBy}, decided_at = now()
          where ${which} returning ${columns}`);
        review = toReview(rows[0] as StoredReview);
        await this.events.putEvent(transaction, key, "review.decided", {
          seed_row_id: seedRowId,
          decision: decided.status.replace("REVIEW_STATUS_", "").toLowerCase(),
        });
      }
      const { rows: open } = await transaction.execute(sql`
        select 1 from reviews where ${ownedBy(key)} and status = ${ReviewStatus.OPEN} limit 1`);
      if (open.length === 0) await last(transaction);
      return review;
    });
  }
}
