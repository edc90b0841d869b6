/** All SQL of the training service beyond the run rows. */
import type { Database, Transaction } from "@tutelage/platform/database";
import type { BudgetNotice } from "@tutelage/platform/monthbudget";
import type { TrainStep } from "@tutelage/proto/student/v1/student";
import { and, asc, eq, gt, sql } from "drizzle-orm";
import { trainingSteps } from "./tables.js";

const pageSteps = 500;

/** Which run's steps. */
interface OfRun {
  projectId: string;
  runId: string;
}

/** Forgets a run's steps after one, e.g. those that an earlier attempt made in vain. Gives how many. */
export async function deleteSteps(transaction: Transaction, run: OfRun, afterStep = 0): Promise<number> {
  const { rowCount } = await transaction
    .delete(trainingSteps)
    .where(
      and(
        eq(trainingSteps.projectId, run.projectId),
        eq(trainingSteps.runId, run.runId),
        gt(trainingSteps.step, afterStep),
      ),
    );
  return rowCount ?? 0;
}

/** Ids of the final runs whose key begins so and whose checkpoint's files may still lie there. */
export async function runsWithFiles(database: Database, projectId: string, keyPrefix: string): Promise<string[]> {
  const { rows } = await database.pool.query(
    `select id from runs where project_id = $1 and starts_with(idempotency_key, $2) and deleting_at is null
       and status in ('SUCCEEDED', 'FAILED', 'CANCELLED') and not state ? 'filesRemoved'`,
    [projectId, keyPrefix],
  );
  return rows.map(({ id }) => id);
}

/** Milliseconds until the last of these runs that was stopped at work has been so for `quietMs`; 0 when it has. */
export async function msUntilQuiet(
  database: Database,
  projectId: string,
  runIds: readonly string[],
  quietMs: number,
): Promise<number> {
  const { rows } = await database.pool.query(
    `select $3 - extract(epoch from now() - max(finished_at)) * 1000 as ms from runs
     where project_id = $1 and id = any($2::uuid[]) and status = 'CANCELLED' and fence > 0`,
    [projectId, runIds, quietMs],
  );
  return Math.max(0, Number(rows[0].ms ?? 0));
}

/** Says of a run that its checkpoint's files are going, or that they are gone. */
export async function mark(
  database: Database,
  { projectId, runId }: OfRun,
  what: "checkpointRemoved" | "filesRemoved",
): Promise<void> {
  await database.pool.query(
    "update runs set state = state || jsonb_build_object($3::text, true) where project_id = $1 and id = $2",
    [projectId, runId, what],
  );
}

/** What a run, of training or of an export, says of its files. */
export interface RunFiles {
  isFinal: boolean;
  checkpointRemoved: boolean;
  /** Its state as JSON: the URIs in it are in use. */
  state: string;
}

/** Undefined where there is no such run. One that is being deleted is not over: its deletion removes its files. */
export async function runFiles(database: Database, projectId: string, id: string): Promise<RunFiles | undefined> {
  const { rows } = await database.pool.query(
    `select status in ('SUCCEEDED', 'FAILED', 'CANCELLED') and deleting_at is null as "isFinal",
       coalesce((state->>'checkpointRemoved')::boolean, false) as "checkpointRemoved", state::text as state
     from runs where project_id = $1 and id = $2`,
    [projectId, id],
  );
  return rows[0];
}

/** Forgets the exports of the checkpoints in a folder. Gives how many. */
export async function deleteExports(exports: Database, projectId: string, folderUri: string): Promise<number> {
  const { rowCount } = await exports.pool.query(
    "delete from runs where project_id = $1 and starts_with(request->'checkpoint'->>'uri', $2)",
    [projectId, `${folderUri}/`],
  );
  return rowCount ?? 0;
}

/** Stores a batch of steps, at most a few thousand. */
export async function insertSteps(transaction: Transaction, run: OfRun, steps: TrainStep[]): Promise<void> {
  if (steps.length === 0) return;
  await transaction.insert(trainingSteps).values(steps.map((step) => ({ ...run, ...step })));
}

/** Notes what a run has taken of budgets, and the marks that it passed with that. */
export async function noteCharge(
  transaction: Transaction,
  { projectId, runId }: OfRun,
  chargedSeconds: number,
  notices: readonly BudgetNotice[],
): Promise<void> {
  await transaction.execute(sql`
    update runs set revision = revision + ${Math.sign(notices.length)}, state = state || jsonb_build_object(
      'chargedSeconds', ${chargedSeconds}::float8,
      'budgetNotices', coalesce(state->'budgetNotices', '[]') || ${JSON.stringify(notices)}::jsonb)
    where project_id = ${projectId} and id = ${runId}`);
}

/** Gives a run another bound of its seconds. */
export async function putMaxSeconds(
  transaction: Transaction,
  { projectId, runId }: OfRun,
  maxSeconds: number,
): Promise<void> {
  await transaction.execute(sql`
    update runs set request = jsonb_set(request, '{maxSeconds}', to_jsonb(${maxSeconds}::float8))
    where project_id = ${projectId} and id = ${runId}`);
}

/** A run's steps in order, in batches. */
export async function* listSteps(database: Database, run: OfRun): AsyncGenerator<TrainStep[]> {
  const columns = {
    step: trainingSteps.step,
    totalSteps: trainingSteps.totalSteps,
    loss: trainingSteps.loss,
    learningRate: trainingSteps.learningRate,
    tokensPerSecond: trainingSteps.tokensPerSecond,
    etaSeconds: trainingSteps.etaSeconds,
    gradNorm: trainingSteps.gradNorm,
  };
  for (let after = 0; ; ) {
    const steps = await database.drizzle
      .select(columns)
      .from(trainingSteps)
      .where(
        and(
          eq(trainingSteps.projectId, run.projectId),
          eq(trainingSteps.runId, run.runId),
          gt(trainingSteps.step, after),
        ),
      )
      .orderBy(asc(trainingSteps.step))
      .limit(pageSteps);
    if (steps.length > 0) yield steps;
    if (steps.length < pageSteps) return;
    after = (steps.at(-1) as TrainStep).step;
  }
}
