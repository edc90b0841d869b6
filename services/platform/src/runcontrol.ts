/** What somebody may ask of a run that is there: to rest, to go on, to be tried again. Asking twice is asking once. */
import { type SQL, sql } from "drizzle-orm";
import type { Transaction } from "./database.js";
import { notFound } from "./errors.js";
import { pausedCode, pausedMessage } from "./rest.js";
import { isUuid, type RunChange, type RunRow, type Runs, returned, toRow } from "./runs.js";

/** What is done in the transaction of a change; it may refuse. */
type Alongside = (transaction: Transaction) => Promise<void>;

const pausedRest = JSON.stringify({ code: pausedCode, message: pausedMessage });

/**
 * Asks a run to rest. One without a holder does so at once, unless it may own runs elsewhere; any other when its holder,
 * the present one or the next, has ended what is under way.
 */
export async function pauseRun<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
): Promise<RunRow<Request, State>> {
  const update = sql`
    update runs set pause_requested = true, revision = revision + 1, wake_at = null,
      status = case when status = 'RUNNING' then status when ${runs.ownsRuns} and fence > 0 then 'QUEUED'
        else 'PAUSED' end,
      rest = case when status = 'RUNNING' or (${runs.ownsRuns} and fence > 0) then null else ${pausedRest}::jsonb end,
      not_before = now()
    where project_id = ${projectId} and id = ${id} and deleting_at is null and not pause_requested
      and not cancel_requested and status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED')
    returning ${returned}`;
  return await change(runs, projectId, id, update, ({ status }) => (status === "PAUSED" ? "paused" : "pausing"));
}

/** Lets a run go on that rests or was asked to. `first` is done in the same transaction. */
export async function resumeRun<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
  first?: Alongside,
): Promise<RunRow<Request, State>> {
  return await goOn(runs, projectId, id, {
    from: sql`status in ('QUEUED', 'RUNNING', 'PAUSED', 'BUDGET_EXHAUSTED')`,
    wasToRest: sql`pause_requested or status in ('PAUSED', 'BUDGET_EXHAUSTED')`,
    staysToRest: sql`false`,
    first,
  });
}

/**
 * Lets a failed run go on with what it kept; the deaths that its fence counts
 * are forgiven. `first` is done in the same transaction, and may refuse.
 */
export async function retryRun<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
  first?: Alongside,
): Promise<RunRow<Request, State>> {
  const update = sql`
    update runs set status = 'QUEUED', failure = null, finished_at = null, deferrals = fence, not_before = now(),
      pause_requested = false, resumes = resumes + 1, revision = revision + 1
    where project_id = ${projectId} and id = ${id} and deleting_at is null and status = 'FAILED'
    returning ${returned}`;
  return await change(runs, projectId, id, update, () => "retried", first);
}

/**
 * Says that a budget was raised: a run that rests for want of one goes on, and
 * one that is about to rest looks again. One that somebody paused stays so.
 */
export async function wakeExhaustedRun<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
): Promise<RunRow<Request, State>> {
  return await goOn(runs, projectId, id, {
    from: sql`status in ('RUNNING', 'BUDGET_EXHAUSTED')`,
    wasToRest: sql`status = 'BUDGET_EXHAUSTED'`,
    staysToRest: sql`pause_requested`,
  });
}

/**
 * Says, in a transaction, that what a run rests for has come: one that rests with this code goes on, and one that is
 * about to rest looks again. One that somebody paused stays so.
 */
export async function wakeRestingRun<Request, State extends object>(
  runs: Runs<Request, State>,
  transaction: Transaction,
  { projectId, id, code }: { projectId: string; id: string; code: string },
): Promise<void> {
  const update = goOnSql(projectId, id, {
    from: sql`(status = 'RUNNING' or (status = 'PAUSED' and rest->>'code' = ${code}))`,
    wasToRest: sql`status = 'PAUSED'`,
    staysToRest: sql`pause_requested`,
  });
  await changeIn(runs, transaction, update, goOnKind);
}

/** What a child run is told when its campaign goes on: it rests no more, and is tried again where it failed. */
export async function resumeOrRetryRun<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
  first?: Alongside,
): Promise<RunRow<Request, State>> {
  const run = await resumeRun(runs, projectId, id, first);
  return run.status === "FAILED" ? await retryRun(runs, projectId, id, first) : run;
}

/** Ends the rest of a run in one of the statuses `from`; tells of it where it was to rest. */
async function goOn<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
  { first, ...which }: Resting & { first?: Alongside | undefined },
): Promise<RunRow<Request, State>> {
  return await change(runs, projectId, id, goOnSql(projectId, id, which), goOnKind, first);
}

/** Which runs go on, which of them were to rest, and which are still to. */
interface Resting {
  from: SQL;
  wasToRest: SQL;
  staysToRest: SQL;
}

function goOnSql(projectId: string, id: string, { from, wasToRest, staysToRest }: Resting): SQL {
  return sql`
    with before as (
      select id as before_id, ${wasToRest} as was_to_rest from runs
      where project_id = ${projectId} and id = ${id} and deleting_at is null and not cancel_requested
        and ${from} for update)
    update runs set pause_requested = ${staysToRest}, resumes = resumes + 1, revision = revision + 1, rest = null,
      wake_at = null, status = case when status in ('PAUSED', 'BUDGET_EXHAUSTED') then 'QUEUED' else status end,
      not_before = case when was_to_rest then now() else not_before end
    from before where id = before_id returning ${returned}, was_to_rest as "wasToRest"`;
}

function goOnKind(_: unknown, { wasToRest }: Record<string, unknown>): "resumed" | undefined {
  return wasToRest === true ? "resumed" : undefined;
}

/** What a change is called; undefined where nobody is told of it. */
type KindOf<Request, State> = (
  run: RunRow<Request, State>,
  extra: Record<string, unknown>,
) => Exclude<RunChange["kind"], "handed_back"> | undefined;

async function change<Request, State extends object>(
  runs: Runs<Request, State>,
  projectId: string,
  id: string,
  update: SQL,
  kindOf: KindOf<Request, State>,
  alsoDo?: Alongside,
): Promise<RunRow<Request, State>> {
  if (!isUuid(id)) throw notFound("run", id);
  await runs.database.drizzle.transaction((transaction) => changeIn(runs, transaction, update, kindOf, alsoDo));
  return await runs.get(projectId, id);
}

async function changeIn<Request, State extends object>(
  runs: Runs<Request, State>,
  transaction: Transaction,
  update: SQL,
  kindOf: KindOf<Request, State>,
  alsoDo?: Alongside,
): Promise<void> {
  const { rows } = await transaction.execute(update);
  if (rows[0] === undefined) return;
  await alsoDo?.(transaction);
  const run = toRow<Request, State>(rows[0]);
  const kind = kindOf(run, rows[0]);
  if (kind !== undefined) await runs.changed(transaction, { kind }, run);
}
