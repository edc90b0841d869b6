/** The SQL of candidates: teacher replies as they were judged. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { fitting } from "@tutelage/platform/page";
import { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import { and, asc, eq, gt, inArray, sql } from "drizzle-orm";
import type { CampaignKey } from "./store.js";
import { candidates } from "./tables.js";

/** Rows of one insert; Postgres takes at most 65,535 parameters. */
const insertRows = 1_000;

export class CandidateStore {
  constructor(private readonly database: Database) {}

  async put(transaction: Transaction, key: CampaignKey, judged: readonly Candidate[]): Promise<void> {
    for (let start = 0; start < judged.length; start += insertRows) {
      const values = judged.slice(start, start + insertRows).map((candidate) => ({
        ...key,
        number: candidate.number,
        iteration: candidate.iteration,
        accepted: candidate.accepted,
        candidate,
      }));
      await transaction.insert(candidates).values(values);
    }
  }

  /**
   * A page of candidates after a number, in order; what is undefined or empty
   * does not choose. `more` says that some were left for another page.
   */
  async page(
    key: CampaignKey,
    page: {
      after: number;
      pageSize: number;
      iteration?: number | undefined;
      accepted?: boolean | undefined;
      rejection?: string;
      seedRowId?: string;
    },
  ): Promise<{ candidates: Candidate[]; more: boolean }> {
    const field = (name: "rejection" | "seedRowId") => sql<string>`${candidates.candidate}->>${sql.raw(`'${name}'`)}`;
    const own = and(eq(candidates.projectId, key.projectId), eq(candidates.campaignId, key.campaignId));
    const sizes = await this.database.drizzle
      .select({ number: candidates.number, bytes: sql<number>`octet_length(${candidates.candidate}::text)` })
      .from(candidates)
      .where(
        and(
          own,
          gt(candidates.number, page.after),
          page.iteration === undefined ? undefined : eq(candidates.iteration, page.iteration),
          page.accepted === undefined ? undefined : eq(candidates.accepted, page.accepted),
          page.rejection ? eq(field("rejection"), page.rejection) : undefined,
          page.seedRowId ? eq(field("seedRowId"), page.seedRowId) : undefined,
        ),
      )
      .orderBy(asc(candidates.number))
      .limit(page.pageSize + 1);
    const count = fitting(
      sizes.map(({ bytes }) => bytes),
      page.pageSize,
    );
    const shown = sizes.slice(0, count).map(({ number }) => number);
    if (shown.length === 0) return { candidates: [], more: false };
    const rows = await this.database.drizzle
      .select({ candidate: candidates.candidate })
      .from(candidates)
      .where(and(own, inArray(candidates.number, shown)))
      .orderBy(asc(candidates.number));
    // What an earlier release stored lacks the fields that the contract gained since.
    return { candidates: rows.map((row) => Candidate.fromPartial(row.candidate)), more: sizes.length > count };
  }

  /** Candidates written from each seed row, and how many of them became rows. */
  async countsBySeedRow(key: CampaignKey): Promise<Map<string, { candidates: number; accepted: number }>> {
    const rows = await this.database.drizzle
      .select({
        rowId: sql<string>`${candidates.candidate}->>'seedRowId'`,
        candidates: sql<number>`count(*)::int`,
        accepted: sql<number>`(count(*) filter (where ${candidates.accepted}))::int`,
      })
      .from(candidates)
      .where(and(eq(candidates.projectId, key.projectId), eq(candidates.campaignId, key.campaignId)))
      .groupBy(sql`1`);
    return new Map(rows.map(({ rowId, ...counts }) => [rowId, counts]));
  }

  /** The candidate that a row of a campaign's dataset was, and the campaign. */
  async ofRow(projectId: string, datasetId: string, rowId: string) {
    const { rows } = await this.database.pool.query<{
      candidate: Candidate;
      campaignId: string;
      campaignName: string;
    }>(
      `select c.candidate, c.campaign_id as "campaignId", r.request->>'name' as "campaignName"
       from candidates c join runs r on r.project_id = $1 and r.id = c.campaign_id and r.state->>'datasetId' = $2
         and r.deleting_at is null
       where c.project_id = $1 and c.accepted and c.candidate->>'rowId' = $3 limit 1`,
      [projectId, datasetId, rowId],
    );
    const [found] = rows;
    return found && { ...found, candidate: Candidate.fromPartial(found.candidate) };
  }
}
