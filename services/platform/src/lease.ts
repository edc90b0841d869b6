/** What a worker may do with the run that it holds, and nobody else any more. */
import { sql } from "drizzle-orm";
import type { Database } from "./database.js";
import { type Lease, LeaseLost, type RunRow } from "./runs.js";
import { onceThere } from "./whileaway.js";

/** The holder's hands on its run. A run that was claimed again has a higher fence, and refuses them. */
export function openLease<Request, State extends object>(
  database: Database,
  run: RunRow<Request, State>,
  signal: AbortSignal,
  cancelled: AbortSignal = new AbortController().signal,
): Lease<Request, State> {
  const write: Lease<Request, State>["write"] = (effect) => {
    let begun = false;
    const attempt = () =>
      database.drizzle.transaction(async (transaction) => {
        // Not "for update": whoever stores what refers to the run must not wait for its holder, who may wait for them.
        const held = await transaction.execute(sql`
          select 1 from runs where id = ${run.id} and fence = ${run.fence} and status = 'RUNNING' for no key update`);
        if (held.rowCount === 0) throw new LeaseLost(run.id);
        begun = true;
        return await effect(transaction);
      });
    // An effect that has begun may be stored, or have left something in memory: only its maker knows.
    return onceThere(signal, attempt, () => !begun);
  };
  let lastReport: Promise<void> = Promise.resolve();
  const reportNow: Lease<Request, State>["report"] = async (progress, state = {}) => {
    const values = [run.id, run.fence, JSON.stringify(progress), JSON.stringify(state)];
    const update = `update runs set progress = progress || $3::jsonb, state = state || $4::jsonb, revision = revision + 1
         where id = $1 and fence = $2 and status = 'RUNNING'`;
    const { rowCount } = await onceThere(signal, () => database.pool.query(update, values));
    if (rowCount === 0) throw new LeaseLost(run.id);
  };
  return {
    run,
    fence: run.fence,
    signal,
    cancelled,
    write,
    advance: (effect) =>
      write(async (transaction) => {
        // Once a claim is enough: a row that is written with each of thousands of results grows.
        await transaction.execute(sql`update runs set deferrals = fence where id = ${run.id} and deferrals < fence`);
        return await effect(transaction);
      }),
    report: (progress, state) => {
      // One after the other: what is said last, by whoever works on the run, stands.
      const said = lastReport.then(() => reportNow(progress, state));
      lastReport = said.catch(() => {});
      return said;
    },
  };
}
