/** The SQL of deleting runs, and of the account that stays. */
import type { Database, Transaction } from "@tutelage/platform/database";
import { passNoticesOn } from "@tutelage/platform/monthbudget";
import { deleteRunRow } from "@tutelage/platform/rundeletion";
import type { Usage } from "@tutelage/proto/teacher/v1/teacher";
import { sql } from "drizzle-orm";

/**
 * A call goes with the last run that needs it: the one that made it, or one
 * that reused its reply. So what goes are the calls of this run, and those that
 * it reused of runs that are gone, unless results of another run rest on them.
 */
export async function deleteRun(transaction: Transaction, projectId: string, runId: string) {
  // One deletion after the other: of two at once, each would leave a shared call to the run that the other removes.
  await transaction.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`teacher deletion/${projectId}`}, 0))`);
  // Against a late call of a holder that hung: it waits here, and then finds the run gone.
  await transaction.execute(sql`select 1 from runs where project_id = ${projectId} and id = ${runId} for update`);
  const moved = await transaction.execute<{ call_id: string }>(sql`
    insert into ledger (call_id, project_id, run_id, teacher_profile, model, status, prompt_tokens, completion_tokens,
      cost_micro_usd, duration_ms, finished_at)
    select id, project_id, run_id, teacher_profile, model, status, prompt_tokens, completion_tokens, cost_micro_usd,
      duration_ms, finished_at
    from calls c
    where c.project_id = ${projectId}
      and (c.run_id = ${runId}
        or (c.id in (select call_id from results where project_id = ${projectId} and run_id = ${runId})
          and not exists (select 1 from runs r where r.project_id = ${projectId} and r.id = c.run_id)))
      and not exists (select 1 from results o where o.project_id = ${projectId} and o.call_id = c.id
        and o.run_id <> ${runId})
    returning call_id`);
  // Of a run that was handed back before its holder could count what a dead one had sent.
  await transaction.execute(sql`
    insert into ledger (call_id, project_id, run_id, teacher_profile, model, status, prompt_tokens, completion_tokens,
      cost_micro_usd, duration_ms, finished_at)
    select call_id, project_id, run_id, teacher_profile, model, 'failed', prompt_tokens, completion_tokens,
      cost_micro_usd, 0, now()
    from reservations where project_id = ${projectId} and run_id = ${runId}
    on conflict do nothing`);
  await transaction.execute(sql`delete from reservations where project_id = ${projectId} and run_id = ${runId}`);
  const results = await transaction.execute(
    sql`delete from results where project_id = ${projectId} and run_id = ${runId}`,
  );
  await passNoticesOn(transaction, projectId, runId);
  const ids = moved.rows.map((row) => row.call_id);
  // One JSON parameter: a list of ids would be a parameter each.
  await transaction.execute(sql`
    delete from calls where project_id = ${projectId}
      and id in (select value::uuid from jsonb_array_elements_text(${JSON.stringify(ids)}::jsonb) as id (value))`);
  return {
    generation_runs: await deleteRunRow(transaction, projectId, runId),
    teacher_results: results.rowCount ?? 0,
    teacher_calls: ids.length,
  };
}

/** What all calls of a project used, those of deleted runs too. Seconds are summed over calls, overlapping or not. */
export async function projectUsage({ pool }: Pick<Database, "pool">, projectId: string): Promise<Usage> {
  const { rows } = await pool.query(
    `select count(*) as calls, sum(prompt_tokens) as prompt, sum(completion_tokens) as completion,
       sum(cost_micro_usd) as cost, sum(duration_ms) as duration_ms,
       (select count(*) from results where project_id = $1 and reused) as reused,
       (select sum(c.cost_micro_usd) from results s join calls c on c.id = s.call_id
        where s.project_id = $1 and s.reused) as saved
     from (
       select prompt_tokens, completion_tokens, cost_micro_usd, duration_ms from calls where project_id = $1
       union all
       select prompt_tokens, completion_tokens, cost_micro_usd, duration_ms from ledger where project_id = $1) as paid`,
    [projectId],
  );
  const [row] = rows;
  return {
    calls: Number(row.calls),
    reusedCalls: Number(row.reused),
    promptTokens: Number(row.prompt ?? 0),
    completionTokens: Number(row.completion ?? 0),
    costMicroUsd: Number(row.cost ?? 0),
    teacherSeconds: Number(row.duration_ms ?? 0) / 1_000,
    savedMicroUsd: Number(row.saved ?? 0),
  };
}
