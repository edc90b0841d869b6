/** All SQL of the campaigns service beyond its run rows. Writes take the transaction of a lease, so they are fenced. */

import type { Database, Transaction } from "@tutelage/platform/database";
import type { CampaignEvent, Candidate, Iteration, SeedGrade } from "@tutelage/proto/campaigns/v1/campaigns";
import { and, asc, eq, gt, inArray, sql } from "drizzle-orm";
import type { MinedRow } from "./mining.js";
import { candidates, events, iterations, seedGrades, steps } from "./tables.js";

/** Which campaign, of which project. */
export interface CampaignKey {
  projectId: string;
  campaignId: string;
}

/** Rows of one insert; Postgres takes at most 65,535 parameters. */
const insertRows = 1_000;

export class CampaignStore {
  constructor(private readonly database: Database) {}

  /** A finished step, or undefined. */
  async step(key: CampaignKey, name: string): Promise<{ output: unknown; seconds: number } | undefined> {
    const [row] = await this.database.drizzle
      .select({ output: steps.output, seconds: steps.seconds })
      .from(steps)
      .where(and(eq(steps.projectId, key.projectId), eq(steps.campaignId, key.campaignId), eq(steps.name, name)));
    return row;
  }

  async putStep(transaction: Transaction, key: CampaignKey, step: { name: string; output: unknown; seconds: number }) {
    await transaction.insert(steps).values({ ...key, ...step });
  }

  /** Stores an iteration as it now is. */
  async putIteration(transaction: Transaction, key: CampaignKey, iteration: Iteration): Promise<void> {
    await transaction
      .insert(iterations)
      .values({ ...key, number: iteration.number, iteration })
      .onConflictDoUpdate({ target: [iterations.campaignId, iterations.number], set: { iteration } });
  }

  async iterations(key: CampaignKey): Promise<Iteration[]> {
    const rows = await this.database.drizzle
      .select({ iteration: iterations.iteration })
      .from(iterations)
      .where(and(eq(iterations.projectId, key.projectId), eq(iterations.campaignId, key.campaignId)))
      .orderBy(asc(iterations.number));
    return rows.map((row) => row.iteration);
  }

  async putCandidates(transaction: Transaction, key: CampaignKey, judged: readonly Candidate[]): Promise<void> {
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

  /** A page of candidates after a number, in order; iteration undefined means all. */
  async candidates(
    key: CampaignKey,
    page: { after: number; limit: number; iteration: number | undefined },
  ): Promise<Candidate[]> {
    const rows = await this.database.drizzle
      .select({ candidate: candidates.candidate })
      .from(candidates)
      .where(
        and(
          eq(candidates.projectId, key.projectId),
          eq(candidates.campaignId, key.campaignId),
          gt(candidates.number, page.after),
          page.iteration === undefined ? undefined : eq(candidates.iteration, page.iteration),
        ),
      )
      .orderBy(asc(candidates.number))
      .limit(page.limit);
    return rows.map((row) => row.candidate);
  }

  /** Appends an event. The lease's transaction holds the campaign's row, so sequences have no gaps. */
  async putEvent(transaction: Transaction, key: CampaignKey, type: string, payload: object): Promise<void> {
    await transaction.execute(sql`
      insert into events (project_id, campaign_id, sequence, type, payload)
      select ${key.projectId}, ${key.campaignId}::uuid, coalesce(max(sequence), 0) + 1, ${type}, ${JSON.stringify(payload)}::jsonb
      from events where campaign_id = ${key.campaignId}::uuid`);
  }

  /** At most `limit` events after a sequence number, in order. */
  async events(key: CampaignKey, afterSequence: number, limit: number): Promise<CampaignEvent[]> {
    const rows = await this.database.drizzle
      .select()
      .from(events)
      .where(
        and(
          eq(events.projectId, key.projectId),
          eq(events.campaignId, key.campaignId),
          gt(events.sequence, afterSequence),
        ),
      )
      .orderBy(asc(events.sequence))
      .limit(limit);
    return rows.map((row) => ({
      sequence: row.sequence,
      at: row.at,
      type: row.type,
      payloadJson: JSON.stringify(row.payload),
    }));
  }

  /** Stores how an iteration's students did on the judged rows. */
  async putGrades(
    transaction: Transaction,
    key: CampaignKey,
    iteration: number,
    mined: readonly MinedRow[],
  ): Promise<void> {
    for (let start = 0; start < mined.length; start += insertRows) {
      const values = mined.slice(start, start + insertRows).map((one) => ({
        ...key,
        rowId: one.row.id,
        iteration,
        correct: one.correct,
        answer: one.answer,
        expectedProbability: one.expectedLogProbability === undefined ? null : Math.exp(one.expectedLogProbability),
      }));
      await transaction.insert(seedGrades).values(values);
    }
  }

  /** The grades of some rows, by row id and in the order of iterations. */
  async grades(key: CampaignKey, rowIds: readonly string[]): Promise<Map<string, SeedGrade[]>> {
    const rows = await this.database.drizzle
      .select()
      .from(seedGrades)
      .where(
        and(
          eq(seedGrades.projectId, key.projectId),
          eq(seedGrades.campaignId, key.campaignId),
          inArray(seedGrades.rowId, [...rowIds]),
        ),
      )
      .orderBy(asc(seedGrades.iteration));
    const byRow = new Map<string, SeedGrade[]>();
    for (const { rowId, iteration, correct, answer, expectedProbability } of rows) {
      const grade = { iteration, correct, answer, expectedProbability: expectedProbability ?? undefined };
      byRow.set(rowId, [...(byRow.get(rowId) ?? []), grade]);
    }
    return byRow;
  }

  /** Candidates written from each seed row, and how many of them became rows. */
  async candidateCounts(key: CampaignKey): Promise<Map<string, { candidates: number; accepted: number }>> {
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

  /** The project's newest campaign that succeeded with these profiles. */
  async newestLike(projectId: string, studentProfile: string, teacherProfile: string): Promise<string | undefined> {
    const { rows } = await this.database.pool.query(
      `select id from runs where project_id = $1 and status = 'SUCCEEDED' and deleting_at is null
         and request->>'studentProfile' = $2 and request->>'teacherProfile' = $3
       order by created_at desc limit 1`,
      [projectId, studentProfile, teacherProfile],
    );
    return rows[0]?.id;
  }
}
