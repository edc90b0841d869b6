/** All SQL of what is set aside for tries under way. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { and, eq, lt, sql } from "drizzle-orm";
import type { Spending } from "./budget.js";
import type { GenerationLease } from "./store.js";
import { calls, reservations } from "./tables.js";

export type NewReservation = Omit<typeof reservations.$inferInsert, "fence" | "reservedAt">;

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
 */
export async function putReservation(lease: GenerationLease, reservation: NewReservation): Promise<boolean> {
  const { projectId, requestDigest } = reservation;
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
    await transaction.insert(reservations).values({ ...reservation, fence: lease.fence });
    return true;
  });
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
  await drizzle.transaction(async (transaction) => {
    await lockLedger(transaction, projectId);
    await settleLeftOver(transaction, projectId, id, lease.fence);
  });
}

/** The same in the transaction that ends a run, of whichever holder; there the run's row is locked. */
export async function settleLeftOver(
  transaction: Transaction,
  projectId: string,
  runId: string,
  belowFence = Number.MAX_SAFE_INTEGER,
): Promise<void> {
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
    `select count(*)::float8 as calls, coalesce(sum(cost_micro_usd), 0)::float8 as "costMicroUsd"
     from calls where project_id = $1 and run_id = $2`,
    [projectId, runId],
  );
  return rows[0];
}
