/** The ledger as it is read: the calls of all runs that somebody started, across runs. All SQL of it. */
import type { Database } from "@tutelage/platform/database";
import type { Call, LedgerCall, RunTotal } from "@tutelage/proto/teacher/v1/teacher";
import { afterCrash } from "./reservations.js";
import { inMessages, type Store } from "./store.js";

/** A part of what `export` gives. */
interface LedgerBatch {
  runId: string;
  runKey: string;
  calls: Call[];
}

/** Calls of one query. */
const exportedCalls = 256;

interface LedgerRow extends Call {
  runKey: string;
  sequence: number;
}

const callColumns = `c.id, c.request_digest as "requestDigest", c.teacher_profile as "teacherProfile", c.model, c.status,
  c.error_code as "errorCode", c.prompt_tokens::float8 as "promptTokens", c.completion_tokens::float8 as "completionTokens",
  c.cost_micro_usd::float8 as "costMicroUsd", c.duration_ms::float8 as "durationMs", c.finished_at as "finishedAt",
  ${afterCrash("c")} as "afterCrash"`;

export class Ledger {
  constructor(
    private readonly database: Database,
    private readonly store: Pick<Store, "calls" | "usage">,
  ) {}

  /** Calls after a sequence number, in the order in which they ended, without prompts and replies. */
  async calls(
    projectId: string,
    runKeyPrefix: string,
    limit: number,
    after: number,
  ): Promise<(LedgerCall & { sequence: number })[]> {
    // Each run's calls are read by their index and no further than the page needs.
    const { rows } = await this.database.pool.query<LedgerRow>(
      `select page.*, '' as prompt, '' as "rawReply" from runs r
       cross join lateral (
         select ${callColumns}, r.idempotency_key as "runKey", c.sequence::float8 as sequence from calls c
         where c.project_id = $1 and c.run_id = r.id and c.sequence > $3
         order by c.sequence limit $4
       ) page
       where r.project_id = $1 and starts_with(r.idempotency_key, $2)
       order by page.sequence limit $4`,
      [projectId, runKeyPrefix, after, limit],
    );
    return rows.map(({ runKey, sequence, ...call }) => ({ call, runKey, sequence }));
  }

  /** What each run took, in the order in which they were started. */
  async totals(projectId: string, runKeyPrefix: string): Promise<RunTotal[]> {
    const { rows } = await this.database.pool.query<{ id: string; runKey: string; failedCalls: number }>(
      `select r.id, r.idempotency_key as "runKey",
         (select count(*)::int from calls c where c.project_id = $1 and c.run_id = r.id and c.status = 'failed')
           as "failedCalls"
       from runs r where r.project_id = $1 and starts_with(r.idempotency_key, $2) order by r.created_at, r.id`,
      [projectId, runKeyPrefix],
    );
    const totals: RunTotal[] = [];
    for (const { id, runKey, failedCalls } of rows) {
      totals.push({ runKey, failedCalls, usage: (await this.store.usage(projectId, id)).usage });
    }
    return totals;
  }

  /**
   * Every call of the runs whose keys begin so and of those that are named, whole, in batches; each run comes at least
   * once. At last the calls of other runs whose replies they reused, in a batch without a run.
   */
  async *export(projectId: string, runKeyPrefix: string, runIds: readonly string[]): AsyncGenerator<LedgerBatch> {
    const { rows: runs } = await this.database.pool.query<{ runId: string; runKey: string }>(
      `select id as "runId", idempotency_key as "runKey" from runs
       where project_id = $1 and (starts_with(idempotency_key, $2) or id = any($3::uuid[])) order by created_at, id`,
      [projectId, runKeyPrefix, runIds],
    );
    for (const run of runs) {
      yield { ...run, calls: [] };
      for await (const calls of this.store.calls(projectId, run.runId)) yield { ...run, calls };
    }
    let after = 0;
    for (;;) {
      const { rows } = await this.database.pool.query<Call & { sequence: number }>(
        `select ${callColumns}, c.prompt, c.raw_reply as "rawReply", c.sequence::float8 as sequence from calls c
         where c.project_id = $1 and c.sequence > $3 and c.run_id <> all($2::uuid[]) and c.id in (
           select s.call_id from results s where s.project_id = $1 and s.run_id = any($2::uuid[]))
         order by c.sequence limit ${exportedCalls}`,
        [projectId, runs.map(({ runId }) => runId), after],
      );
      const last = rows.at(-1);
      if (last === undefined) return;
      after = last.sequence;
      yield* inMessages(rows.map(({ sequence: _, ...call }) => call)).map((calls) => ({
        runId: "",
        runKey: "",
        calls,
      }));
    }
  }

  /** A call with prompt and raw reply, if one of the runs made it or reused its reply. */
  async call(projectId: string, runKeyPrefix: string, id: string): Promise<LedgerCall | undefined> {
    const { rows } = await this.database.pool.query<Call & { runKey: string }>(
      `select ${callColumns}, c.prompt, c.raw_reply as "rawReply", r.idempotency_key as "runKey"
       from calls c join runs r on r.project_id = $1 and starts_with(r.idempotency_key, $2)
         and (r.id = c.run_id or exists (
           select 1 from results s where s.project_id = $1 and s.run_id = r.id and s.call_id = c.id))
       where c.project_id = $1 and c.id = $3
       order by (r.id = c.run_id) desc, r.created_at limit 1`,
      [projectId, runKeyPrefix, id],
    );
    if (rows[0] === undefined) return undefined;
    const { runKey, ...call } = rows[0];
    return { call, runKey };
  }
}
