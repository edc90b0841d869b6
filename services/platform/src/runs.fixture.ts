/** What tests of runs share: a schema with a table of them, short leases, and a worker for one run. */
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { type Database, openDatabase } from "./database.js";
import { createLog } from "./log.js";
import type { RunRow, Runs } from "./runs.js";
import { type Handler, work } from "./worker.js";

export const log = createLog("test", "fatal");
export const timing = { leaseMs: 600, heartbeatMs: 150, pollMs: 50 };

export type Asked = { what: string };
export type State = { result?: string };

export async function openRunsDatabase(): Promise<Database> {
  return await openDatabase({ url: await testDatabaseUrl(), schema: "training", log, hasRuns: true });
}

/** Works until the run is final, then stops the worker. */
export async function workUntilFinal(runs: Runs<Asked, State>, id: string, handler: Handler<Asked, State>) {
  const stop = new AbortController();
  const working = work(runs, handler, { concurrency: 1, signal: stop.signal });
  let last: RunRow<Asked, State> | undefined;
  for await (const run of runs.watch("p", id, AbortSignal.timeout(10_000))) last = run;
  stop.abort();
  await working;
  return last;
}
