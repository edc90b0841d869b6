/** All SQL of the teacher. */
import { setTimeout as sleep } from "node:timers/promises";
import { inBatches } from "@tutelage/platform/batch";
import { type Database, isDatabaseAway, sqlState, type Transaction } from "@tutelage/platform/database";
import type { Lease } from "@tutelage/platform/runs";
import type { Outcome } from "@tutelage/platform/teacheroutcome";
import type { Call, GenerationBudget, Result, Usage } from "@tutelage/proto/teacher/v1/teacher";
import { and, asc, eq, getTableColumns, gt, ne, or, sql } from "drizzle-orm";
import { afterCrash, inFlightAtCrash, lockLedger, settleMonth, takeReservation } from "./reservations.js";
import { calls, ledger, results } from "./tables.js";
import type { Reply } from "./teacher.js";
import type { GenerationRequest, GenerationState } from "./work.js";

export type GenerationLease = Lease<GenerationRequest, GenerationState>;
export type NewCall = typeof calls.$inferInsert;

export interface NewResult {
  position: number;
  attempt: number;
  rowId: string;
  callId: string;
  reused: boolean;
  outcome: Outcome;
}

/** Rows of a stream's message, and their characters, which have at most four bytes each. */
const batchRows = 256;
const message = { mostItems: batchRows, mostSize: 8_000_000 };
const longestKeepWaitMs = 4_000;
/** SQLSTATE. */
export const foreignKeyViolation = "23503";

/** Calls as they fit into the messages of a stream. */
export function inMessages(calls: readonly Call[]): Call[][] {
  return inBatches(calls, ({ prompt, rawReply }) => prompt.length + rawReply.length, message);
}

/** Gives a run another budget. */
export async function putBudget(
  transaction: Transaction,
  projectId: string,
  runId: string,
  budget: GenerationBudget,
): Promise<void> {
  await transaction.execute(sql`
    update runs set request = jsonb_set(request, '{budget}', ${JSON.stringify(budget)}::jsonb)
    where project_id = ${projectId} and id = ${runId}`);
}

/** A run that goes on after a rest or a failure may wait for its teacher as long as a new one. */
export async function forgetWait(transaction: Transaction, projectId: string, runId: string): Promise<void> {
  await transaction.execute(sql`
    update runs set state = state || '{"waiting": null}'
    where project_id = ${projectId} and id = ${runId} and jsonb_typeof(state->'waiting') = 'object'`);
}

export class Store {
  constructor(private readonly database: Database) {}

  /** The reply that this call already got, whoever made it; the first where two were made at once. */
  async answered(
    projectId: string,
    requestDigest: string,
  ): Promise<{ callId: string; runId: string; reply: Reply } | undefined> {
    const [row] = await this.database.drizzle
      .select({ callId: calls.id, runId: calls.runId, reply: calls.reply })
      .from(calls)
      .where(and(eq(calls.projectId, projectId), eq(calls.requestDigest, requestDigest), eq(calls.status, "answered")))
      .orderBy(asc(calls.sequence))
      .limit(1);
    return row === undefined ? undefined : { ...row, reply: row.reply as Reply };
  }

  /** How often a provider answered a call of this run, but with an error. */
  async refusals(projectId: string, runId: string, requestDigest: string): Promise<number> {
    const [row] = await this.database.drizzle
      .select({ count: sql<number>`count(*)::int` })
      .from(calls)
      .where(
        and(
          eq(calls.projectId, projectId),
          eq(calls.runId, runId),
          eq(calls.requestDigest, requestDigest),
          eq(calls.status, "failed"),
          ne(calls.errorCode, "teacher_rate_limited"),
          ne(calls.rawReply, ""),
        ),
      );
    return row?.count ?? 0;
  }

  /** Stores a call that was made, in place of what was set aside for it. While the database is away it is tried again: the reply exists nowhere else. */
  async keep(call: NewCall): Promise<void> {
    for (let waitMs = 250; ; waitMs = Math.min(2 * waitMs, longestKeepWaitMs)) {
      try {
        await this.keepOnce(call);
        return;
      } catch (error) {
        if (!isDatabaseAway(error)) throw error;
      }
      await sleep(waitMs);
    }
  }

  private async keepOnce(call: NewCall): Promise<void> {
    await this.database.drizzle.transaction(async (transaction) => {
      // One after another until the commit, or a reader who follows the sequence would miss
      // a call that got its number before another and was committed after it.
      await lockLedger(transaction, call.projectId);
      const run = await transaction.execute(
        sql`select 1 from runs where project_id = ${call.projectId} and id = ${call.runId} for key share`,
      );
      const reserved =
        (await takeReservation(transaction, call.projectId, call.id)) ??
        (await this.countedAtCrash(transaction, call.projectId, call.id));
      if (reserved !== undefined) await settleMonth(transaction, call.projectId, reserved, call);
      if (run.rowCount !== 0) {
        const { id: _, ...made } = call;
        await transaction
          .insert(calls)
          .values({ ...call, month: reserved?.month ?? null })
          .onConflictDoUpdate({
            target: calls.id,
            // A successor took its holder for dead. A try whose answer was lost may have stored it already.
            setWhere: sql`${calls.projectId} = ${call.projectId} and ${calls.errorCode} = ${inFlightAtCrash}`,
            set: made,
          });
        return;
      }
      // Its holder hung while the run was deleted: what it cost counts, what was said is nobody's any more.
      const { promptTokens, completionTokens, costMicroUsd, durationMs, finishedAt, status } = call;
      await transaction
        .insert(ledger)
        .values({ ...call, callId: call.id })
        .onConflictDoUpdate({
          target: ledger.callId,
          setWhere: eq(ledger.projectId, call.projectId),
          set: { promptTokens, completionTokens, costMicroUsd, durationMs, finishedAt, status },
        });
    });
  }

  /** A call of a holder that was taken for dead, as it was counted then. */
  private async countedAtCrash(transaction: Transaction, projectId: string, callId: string) {
    const [counted] = await transaction
      .select()
      .from(calls)
      .where(and(eq(calls.projectId, projectId), eq(calls.id, callId), eq(calls.errorCode, inFlightAtCrash)));
    return counted;
  }

  /**
   * Stores what came of a call, fenced: with it the run got further. False when the call is gone: it was of
   * a run that was deleted after its reply was found.
   */
  async record(lease: GenerationLease, result: NewResult): Promise<boolean> {
    try {
      await lease.advance(async (transaction: Transaction) => {
        await transaction.insert(results).values({ projectId: lease.run.projectId, runId: lease.run.id, ...result });
      });
      return true;
    } catch (error) {
      if (sqlState(error) === foreignKeyViolation) return false;
      throw error;
    }
  }

  /** The outcomes that a run has: position → attempt → outcome. */
  async outcomes(projectId: string, runId: string): Promise<Map<number, Map<number, Outcome>>> {
    const rows = await this.database.drizzle
      .select({ position: results.position, attempt: results.attempt, outcome: results.outcome })
      .from(results)
      .where(and(eq(results.projectId, projectId), eq(results.runId, runId)));
    const byPosition = new Map<number, Map<number, Outcome>>();
    for (const { position, attempt, outcome } of rows) {
      const attempts = byPosition.get(position) ?? new Map<number, Outcome>();
      byPosition.set(position, attempts.set(attempt, outcome));
    }
    return byPosition;
  }

  /** What a run used and how many results it has. */
  async usage(projectId: string, runId: string): Promise<{ usage: Usage; results: number }> {
    // Calls overlap: the teacher worked while at least one was under way.
    const { rows } = await this.database.pool.query(
      `with spans as (
         select finished_at - duration_ms * interval '1 millisecond' as began, finished_at as ended
         from calls where project_id = $1 and run_id = $2),
       ordered as (
         select began, ended,
           max(ended) over (order by began, ended rows between unbounded preceding and 1 preceding) as before
         from spans),
       sums as (
         select count(*) as calls, sum(prompt_tokens) as prompt, sum(completion_tokens) as completion,
           sum(cost_micro_usd) as cost
         from calls where project_id = $1 and run_id = $2),
       made as (
         select count(*) as results, count(*) filter (where reused) as reused,
           sum(c.cost_micro_usd) filter (where reused) as saved
         from results s join calls c on c.id = s.call_id where s.project_id = $1 and s.run_id = $2)
       select sums.*, made.*,
         (select extract(epoch from sum(greatest(ended - greatest(began, before), interval '0'))) from ordered) as seconds
       from sums, made`,
      [projectId, runId],
    );
    const [row] = rows;
    return {
      results: Number(row.results),
      usage: {
        calls: Number(row.calls),
        reusedCalls: Number(row.reused),
        promptTokens: Number(row.prompt ?? 0),
        completionTokens: Number(row.completion ?? 0),
        costMicroUsd: Number(row.cost ?? 0),
        teacherSeconds: Number(row.seconds ?? 0),
        savedMicroUsd: Number(row.saved ?? 0),
      },
    };
  }

  /** A run's results in the order of its orders, then of the attempts; in batches. */
  async *results(projectId: string, runId: string): AsyncGenerator<Result[]> {
    let after = { position: -1, attempt: -1 };
    for (;;) {
      const rows = await this.database.drizzle
        .select({
          position: results.position,
          attempt: results.attempt,
          rowId: results.rowId,
          callId: results.callId,
          outcome: results.outcome,
          teacherProfile: calls.teacherProfile,
        })
        .from(results)
        .innerJoin(calls, eq(calls.id, results.callId))
        .where(
          and(
            eq(results.projectId, projectId),
            eq(results.runId, runId),
            or(
              gt(results.position, after.position),
              and(eq(results.position, after.position), gt(results.attempt, after.attempt)),
            ),
          ),
        )
        .orderBy(asc(results.position), asc(results.attempt))
        .limit(batchRows);
      const last = rows.at(-1);
      if (last === undefined) return;
      yield* inBatches(
        rows.map(({ position: _, ...result }) => result),
        ({ outcome }) => JSON.stringify(outcome).length,
        message,
      );
      after = last;
    }
  }

  /** A run's calls in the order in which they ended; in batches. */
  async *calls(projectId: string, runId: string): AsyncGenerator<Call[]> {
    let after = 0;
    for (;;) {
      const rows = await this.database.drizzle
        .select({ ...getTableColumns(calls), afterCrash: sql<boolean>`${sql.raw(afterCrash("calls"))}` })
        .from(calls)
        .where(and(eq(calls.projectId, projectId), eq(calls.runId, runId), gt(calls.sequence, after)))
        .orderBy(sql`${calls.sequence}`)
        .limit(batchRows);
      const last = rows.at(-1);
      if (last === undefined) return;
      yield* inMessages(
        rows.map(({ sequence: _, projectId: __, runId: ___, reply: ____, month: _____, ...call }) => call),
      );
      after = last.sequence;
    }
  }
}
