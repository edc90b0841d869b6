/** All SQL of the campaigns service beyond its run rows. Writes take the transaction of a lease, so they are fenced. */

import type { Database, Transaction } from "@tutelage/platform/database";
import { notFound, TutelageError } from "@tutelage/platform/errors";
import { type RunRow, returned, runColumns, toRow } from "@tutelage/platform/runs";
import { shownStatusSql } from "@tutelage/platform/shownstatus";
import { type CampaignEvent, Iteration, type SeedGrade, type Step } from "@tutelage/proto/campaigns/v1/campaigns";
import { and, asc, eq, gt, inArray, sql } from "drizzle-orm";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import type { CampaignFilter } from "./campaignfilter.js";
import type { CampaignPlace } from "./campaignplace.js";
import { CandidateStore } from "./candidatestore.js";
import { putDeliveries } from "./deliverystore.js";
import type { EventType } from "./events.js";
import { finishedIterations } from "./forkstore.js";
import type { MinedRow } from "./mining.js";
import { countOpen } from "./reviewstore.js";
import type { Trained } from "./shortfall.js";
import type { Caps } from "./spending.js";
import { events, iterations, seedGrades, steps } from "./tables.js";

/** Which campaign, of which project. */
export interface CampaignKey {
  projectId: string;
  campaignId: string;
}

/** Rows of one insert; Postgres takes at most 65,535 parameters. */
const insertRows = 1_000;

export class CampaignStore {
  readonly candidates: CandidateStore;

  constructor(private readonly database: Database) {
    this.candidates = new CandidateStore(database);
  }

  /** A finished step, or undefined. */
  async step(
    key: CampaignKey,
    name: string,
  ): Promise<{ output: unknown; seconds: number; shared: boolean } | undefined> {
    const [row] = await this.database.drizzle
      .select({ output: steps.output, seconds: steps.seconds, shared: steps.shared })
      .from(steps)
      .where(and(eq(steps.projectId, key.projectId), eq(steps.campaignId, key.campaignId), eq(steps.name, name)));
    return row;
  }

  async putStep(transaction: Transaction, key: CampaignKey, step: { name: string; output: unknown; seconds: number }) {
    await transaction.insert(steps).values({ ...key, ...step });
  }

  /** All steps in the order in which they ended, each with the child run that its output names. */
  async steps({ projectId, campaignId }: CampaignKey): Promise<Step[]> {
    const { rows } = await this.database.pool.query<Step>(
      `select name, seconds, finished_at as "finishedAt", shared,
         coalesce(output->>'trainingRunId', '') as "trainingRunId",
         coalesce(output->>'evaluationRunId', '') as "evaluationRunId",
         coalesce(output->>'generationRunId', '') as "generationRunId"
       from steps where project_id = $1 and campaign_id = $2 order by finished_at, name`,
      [projectId, campaignId],
    );
    return rows;
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
    // What an earlier release stored lacks the fields that the contract gained since.
    return rows.map((row) => Iteration.fromPartial(row.iteration));
  }

  /** Lays a part of a campaign's state over what it has. */
  async putState(transaction: Transaction, key: CampaignKey, state: Partial<CampaignState>): Promise<void> {
    await transaction.execute(sql`
      update runs set state = state || ${JSON.stringify(state)}::jsonb
      where project_id = ${key.projectId} and id = ${key.campaignId}::uuid`);
  }

  /**
   * Appends an event. Raising the revision holds the campaign's row until the transaction ends, so that events of one
   * campaign are numbered and committed one after another, without gaps; and it wakes who watches.
   */
  async putEvent(transaction: Transaction, key: CampaignKey, type: EventType, payload: object): Promise<void> {
    await transaction.execute(sql`
      update runs set revision = revision + 1 where project_id = ${key.projectId} and id = ${key.campaignId}::uuid`);
    const { rows } = await transaction.execute<{ sequence: number; atMs: number }>(sql`
      insert into events (project_id, campaign_id, sequence, type, payload)
      select ${key.projectId}, ${key.campaignId}::uuid, coalesce(max(sequence), 0) + 1, ${type}, ${JSON.stringify(payload)}::jsonb
      from events where project_id = ${key.projectId} and campaign_id = ${key.campaignId}::uuid
      returning sequence::float8 as sequence, (extract(epoch from at) * 1000)::float8 as "atMs"`);
    const { sequence = 0, atMs = 0 } = rows[0] ?? {};
    await putDeliveries(transaction, { ...key, sequence, type, at: new Date(atMs), payload });
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

  /**
   * A page of a project's campaigns, newest first, each with where it stands.
   * One that starts meanwhile stands before every page that was given out.
   */
  async campaigns(
    projectId: string,
    filter: CampaignFilter,
    limit: number,
    after: CampaignPlace | undefined,
  ): Promise<{ run: RunRow<ResolvedRequest, CampaignState>; createdAt: string }[]> {
    const { rows } = await this.database.pool.query(
      `select ${runColumns}, created_at::text as place from runs where project_id = $1 and deleting_at is null
         and ($3::timestamptz is null or (created_at, id) < ($3, $4::uuid))
         and (cardinality($5::text[]) = 0 or ${shownStatusSql} = any($5))
         and ($6 = '' or strpos(lower(request->>'name'), lower($6)) > 0)
         and ($7 = '' or request->>'datasetId' = $7)
         and ($8::timestamptz is null or created_at >= $8)
         and ($9::timestamptz is null or created_at < $9)
         and ($10 = '' or state->'tags' ? $10)
       order by created_at desc, id desc limit $2`,
      [
        projectId,
        limit,
        after?.createdAt ?? null,
        after?.id ?? null,
        filter.statuses,
        filter.nameContains,
        filter.datasetId,
        filter.createdSince ?? null,
        filter.createdBefore ?? null,
        filter.tag,
      ],
    );
    return rows.map(({ place, ...row }) => ({ run: toRow(row), createdAt: place }));
  }

  /** Changes a campaign's request, and lays a part of the state over it, by a rule that sees it as it is. */
  async update(
    key: CampaignKey,
    rule: (run: RunRow<ResolvedRequest, CampaignState>) => {
      request: ResolvedRequest;
      state: Partial<CampaignState>;
    },
  ): Promise<RunRow<ResolvedRequest, CampaignState>> {
    return await this.database.drizzle.transaction(async (transaction) => {
      const which = sql`project_id = ${key.projectId} and id = ${key.campaignId}`;
      const { rows } = await transaction.execute(
        sql`select ${returned} from runs where ${which} and deleting_at is null for update`,
      );
      if (rows[0] === undefined) throw notFound("campaign", key.campaignId);
      const { request, state } = rule(toRow(rows[0]));
      const changed = await transaction.execute(sql`
        update runs set request = ${JSON.stringify(request)}::jsonb, state = state || ${JSON.stringify(state)}::jsonb,
          revision = revision + 1
        where ${which} returning ${returned}`);
      return toRow(changed.rows[0] as Record<string, unknown>);
    });
  }

  /**
   * Notes with a retry which child runs it is about. Throws failed_precondition
   * when the checkpoints are gone that the steps so far rest on.
   */
  async noteRetry(transaction: Transaction, key: CampaignKey): Promise<void> {
    const { rowCount } = await transaction.execute(sql`
      update runs set state = state || jsonb_build_object(
        'retries', coalesce((state->>'retries')::int, 0) + 1, 'retryOf',
        coalesce(state->'children', '{}') || jsonb_strip_nulls(jsonb_build_object('child', state->'child')))
      where project_id = ${key.projectId} and id = ${key.campaignId} and not state ? 'checkpointsSwept'`);
    if (rowCount === 0) {
      throw new TutelageError(
        "failed_precondition",
        "The checkpoints that the campaign would go on from were removed since it failed; start another campaign.",
        { reason: "checkpoints_removed" },
      );
    }
  }

  /** The caps as they now are. */
  async caps(key: CampaignKey): Promise<Caps> {
    const { rows } = await this.database.pool.query<{ settings: Partial<Caps> }>(
      "select request->'settings' as settings from runs where project_id = $1 and id = $2",
      [key.projectId, key.campaignId],
    );
    if (rows[0] === undefined) throw notFound("campaign", key.campaignId);
    // A campaign of an earlier release has not all of them.
    const { maxTeacherCalls = 0, maxTeacherTokens = 0, maxCostMicroUsd = 0, maxTrainingSeconds = 0 } = rows[0].settings;
    return { maxTeacherCalls, maxTeacherTokens, maxCostMicroUsd, maxTrainingSeconds };
  }

  /** What its own steps trained. */
  async trained({ projectId, campaignId }: CampaignKey): Promise<Trained> {
    const { rows } = await this.database.pool.query<Trained>(
      `select coalesce(sum((output->>'seconds')::float8), 0) as seconds, coalesce(sum((output->>'steps')::float8), 0) as steps
       from steps where project_id = $1 and campaign_id = $2 and not shared
         and jsonb_typeof(output) = 'object' and output ? 'trainingRunId' and output ? 'seconds'`,
      [projectId, campaignId],
    );
    return rows[0] ?? { seconds: 0, steps: 0 };
  }

  /** How many seed rows of a campaign wait for somebody's decision. */
  async openReviews(key: CampaignKey): Promise<number> {
    return await countOpen(this.database, key);
  }

  /** How many iterations of a campaign have made a version, in a row from 0. */
  async finishedIterations(key: CampaignKey): Promise<number> {
    return await finishedIterations(this.database, key);
  }

  /** The project's campaigns that rest for want of a budget, or may be about to. */
  async exhausted(projectId: string): Promise<{ id: string; rests: boolean }[]> {
    const { rows } = await this.database.pool.query(
      `select id, status = 'BUDGET_EXHAUSTED' as rests from runs
       where project_id = $1 and status in ('RUNNING', 'BUDGET_EXHAUSTED') and deleting_at is null order by created_at`,
      [projectId],
    );
    return rows;
  }

  /** Whether a campaign may still write: it is not over, or it is being deleted and its deletion removes its files. */
  async isAtWork({ projectId, campaignId }: CampaignKey): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      `select 1 from runs where project_id = $1 and id = $2
         and (status not in ('SUCCEEDED', 'FAILED', 'CANCELLED') or deleting_at is not null)`,
      [projectId, campaignId],
    );
    return rowCount !== 0;
  }

  /** Whether a step of any campaign of the project names a file. */
  async isNamedByAStep(projectId: string, uri: string): Promise<boolean> {
    const { rowCount } = await this.database.pool.query(
      "select 1 from steps where project_id = $1 and position($2 in output::text) > 0 limit 1",
      [projectId, uri],
    );
    return rowCount !== 0;
  }

  /** The project's newest campaign that succeeded with these profiles. No fork: it did only a part of its iterations. */
  async newestLike(projectId: string, studentProfile: string, teacherProfile: string): Promise<string | undefined> {
    const { rows } = await this.database.pool.query(
      `select id from runs where project_id = $1 and status = 'SUCCEEDED' and deleting_at is null
         and request->>'studentProfile' = $2 and request->>'teacherProfile' = $3 and not request ? 'fork'
       order by created_at desc limit 1`,
      [projectId, studentProfile, teacherProfile],
    );
    return rows[0]?.id;
  }
}
