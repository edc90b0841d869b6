/** All SQL of what is set aside for tries under way. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { chargeMonth, monthOf } from "@tutelage/platform/monthbudget";
import { and, eq, lt, sql } from "drizzle-orm";
import type { Spending } from "./budget.js";
import type { GenerationLease } from "./store.js";
import { calls, reservations } from "./tables.js";

export type NewReservation = Omit<typeof reservations.$inferInsert, "fence" | "reservedAt" | "month">;

/** Of a call that may have been sent and of which nothing is known: its holder died. */
export const inFlightAtCrash = "in_flight_at_crash";

/** SQL that says of a row of `calls` whether an earlier try of it was lost with its holder, so that both may be billed. */
export function afterCrash(calls: string): string {
  return `exists (select 1 from teacher.calls lost where lost.project_id = ${calls}.project_id
    and lost.request_digest = ${calls}.request_digest and lost.error_code = '${inFlightAtCrash}'
    and lost.sequence < ${calls}.sequence)`;
}

/** Calls of a project get their numbers one after another until the commit; see Store.keep. */
export async function lockLedger(transaction: Transaction, projectId: string): Promise<void> {
  await transaction.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`ledger/${projectId}`}, 0))`);
}

/**
 * Notes a try before it is sent. Fenced: an earlier holder, whose account is
 * old, sends nothing any more. False, and nothing noted, while another run's
 * holder makes the same call, or has made it meanwhile: its reply is as good,
 * and one of them need not be paid. Whoever may be dead is not waited for.
 * Throws MonthBudgetMet, and notes nothing either.
 */
export async function putReservation(lease: GenerationLease, reservation: NewReservation): Promise<boolean> {
  const { projectId, requestDigest } = reservation;
  const month = monthOf(new Date());
  return await lease.write(async (transaction) => {
    const name = `call/${projectId}/${requestDigest}`;
    await transaction.execute(sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`);
    // First who makes it, then whether it was made: in the other order one could slip from the first to the second.
    const { rowCount: made } = await transaction.execute(sql`
      select 1 from reservations s join runs r on r.id = s.run_id
      where s.project_id = ${projectId} and s.request_digest = ${requestDigest} and s.run_id <> ${lease.run.id}
        and r.status = 'RUNNING' and r.lease_until > now() limit 1`);
    if (made !== 0) return false;
    const { rowCount: answered } = await transaction.execute(sql`
      select 1 from calls where project_id = ${projectId} and request_digest = ${requestDigest} and status = 'answered'
      limit 1`);
    if (answered !== 0) return false;
    await transaction.insert(reservations).values({ ...reservation, month, fence: lease.fence });
    const notices = await chargeMonth(transaction, projectId, month, amountsOf(reservation, 1));
    if (notices.length > 0) {
      await transaction.execute(sql`
        update runs set revision = revision + 1, state = jsonb_set(
          state, '{budgetNotices}', coalesce(state->'budgetNotices', '[]') || ${JSON.stringify(notices)}::jsonb)
        where project_id = ${projectId} and id = ${lease.run.id}`);
    }
    return true;
  });
}

/** Takes back what was set aside for a try that was not sent. */
export async function dropReservation({ drizzle }: Database, projectId: string, callId: string): Promise<void> {
  await drizzle.transaction(async (transaction) => {
    const dropped = await takeReservation(transaction, projectId, callId);
    if (dropped?.month) await chargeMonth(transaction, projectId, dropped.month, amountsOf(dropped, -1));
  });
}

/** Removes what was set aside for a call, in the transaction that says what came of it. */
export async function takeReservation(transaction: Transaction, projectId: string, callId: string) {
  const [taken] = await transaction
    .delete(reservations)
    .where(and(eq(reservations.projectId, projectId), eq(reservations.callId, callId)))
    .returning();
  return taken;
}

/** Whether tries of a project are under way that may turn out cheaper than what is set aside for them. */
export async function anyUnderWay({ pool }: Pick<Database, "pool">, projectId: string): Promise<boolean> {
  // What lies longer is of a holder that died: whoever goes on with its run counts it in full.
  const { rows } = await pool.query(
    `select exists (select 1 from reservations
       where project_id = $1 and reserved_at > now() - interval '10 minutes') as under_way`,
    [projectId],
  );
  return rows[0].under_way;
}

type Costs = Pick<NewReservation, "promptTokens" | "completionTokens" | "costMicroUsd">;

/** What a call counts for in its project's month. */
function amountsOf({ promptTokens, completionTokens, costMicroUsd }: Costs, sign: 1 | -1): Record<string, number> {
  return {
    teacher_calls: sign,
    teacher_tokens: sign * (promptTokens + completionTokens),
    cost_micro_usd: sign * costMicroUsd,
  };
}

/** Corrects a month by what a call used, where something else was set aside for it. */
export async function settleMonth(
  transaction: Transaction,
  projectId: string,
  reserved: Costs & { month: string | null },
  used: Costs,
): Promise<void> {
  if (reserved.month === null) return;
  const [before, after] = [amountsOf(reserved, 1), amountsOf(used, 1)];
  const difference = Object.fromEntries(
    Object.entries(after).map(([name, amount]) => [name, amount - (before[name] ?? 0)]),
  );
  // A provider may say that it used more than can be: that is used all the same.
  await chargeMonth(transaction, projectId, reserved.month, difference, { beyondCaps: true, tells: false });
}

/**
 * Counts the tries that earlier holders had under way and never stored: each
 * becomes a failed call at the most that it can have cost. Where a holder only
 * hung, what it then stores takes that call's place.
 */
export async function settleEarlierHolders({ drizzle }: Database, lease: GenerationLease): Promise<void> {
  const { projectId, id } = lease.run;
  const [left] = await drizzle
    .select({ callId: reservations.callId })
    .from(reservations)
    .where(and(eq(reservations.projectId, projectId), eq(reservations.runId, id)))
    .limit(1);
  if (left === undefined) return;
  await drizzle.transaction((transaction) => settleLeftOver(transaction, projectId, id, lease.fence));
}

/** The same in the transaction that ends a run, of whichever holder; there the run's row is locked. */
export async function settleLeftOver(
  transaction: Transaction,
  projectId: string,
  runId: string,
  belowFence = Number.MAX_SAFE_INTEGER,
): Promise<void> {
  // Before any reservation is locked, as in Store.keep: in the other order the two would wait for one another.
  await lockLedger(transaction, projectId);
  const left = await transaction
    .delete(reservations)
    .where(
      and(eq(reservations.projectId, projectId), eq(reservations.runId, runId), lt(reservations.fence, belowFence)),
    )
    .returning();
  if (left.length === 0) return;
  await transaction
    .insert(calls)
    .values(
      left.map(({ callId, fence: _, reservedAt: __, ...reserved }) => ({
        ...reserved,
        id: callId,
        status: "failed" as const,
        errorCode: inFlightAtCrash,
        rawReply: "",
        reply: null,
        durationMs: 0,
        finishedAt: new Date(),
      })),
    )
    .onConflictDoNothing();
}

/** What a run's calls came to. */
export async function spentBy({ pool }: Pick<Database, "pool">, projectId: string, runId: string): Promise<Spending> {
  const { rows } = await pool.query(
    `select count(*)::float8 as calls, coalesce(sum(prompt_tokens + completion_tokens), 0)::float8 as tokens,
       coalesce(sum(cost_micro_usd), 0)::float8 as "costMicroUsd"
     from calls where project_id = $1 and run_id = $2`,
    [projectId, runId],
  );
  return rows[0];
}
