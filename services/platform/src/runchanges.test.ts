/** Every change of a run is told in its transaction. */
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "./database.js";
import { type Asked, log, openRunsDatabase, type State, timing, workUntilFinal } from "./runs.fixture.js";
import { type RunChange, Runs, TryLater } from "./runs.js";
import { work } from "./worker.js";

let database: Database;
/** Runs that write each change down, in a table of their own, as a service writes its events. */
const told = async (id: string) => {
  const { rows } = await database.pool.query("select told from changes where run_id = $1 order by number", [id]);
  return rows.map((row) => row.told);
};
const tellingRuns = (refuse: (change: RunChange) => boolean = () => false) =>
  new Runs<Asked, State>(database, log, timing, async (transaction, change, run) => {
    const text = change.kind === "handed_back" ? `${change.kind}: ${change.reason}` : change.kind;
    await transaction.execute(
      sql`insert into changes (run_id, told) values (${run.id}, ${`${text} ${run.status} ${run.fence}`})`,
    );
    if (refuse(change)) throw new Error("cannot write the event");
  });

beforeAll(async () => {
  database = await openRunsDatabase();
  await database.pool.query("create table changes (number bigserial, run_id uuid not null, told text not null)");
});

afterAll(() => database.close());

test("a run that is handed back, taken over and done", async () => {
  const runs = tellingRuns();
  const { id } = await runs.start("p", "once", { what: "a" });
  await runs.start("p", "once", { what: "a" });
  let tries = 0;
  await workUntilFinal(runs, id, async (lease) => {
    tries += 1;
    if (tries === 1) throw new TryLater(0, "busy");
    if (tries > 2) return {};
    // Stopped as by SIGSTOP: another worker takes the run, and this one is refused.
    await database.pool.query("update runs set lease_until = now() - interval '1 s' where id = $1", [id]);
    await workUntilFinal(runs, id, async () => ({}));
    await lease.write(async () => {});
    return {};
  });
  expect(await told(id)).toEqual([
    "queued QUEUED 0",
    "started RUNNING 1",
    "handed_back: busy QUEUED 1",
    "continued RUNNING 2",
    "taken_over RUNNING 3",
    "succeeded SUCCEEDED 3",
  ]);
});

test("a run that fails, one that is cancelled while it waits, and one while it works", async () => {
  const runs = tellingRuns();
  const failing = await runs.start("p", "", { what: "a" });
  await workUntilFinal(runs, failing.id, async () => {
    throw new Error("broken");
  });
  expect(await told(failing.id)).toEqual(["queued QUEUED 0", "started RUNNING 1", "failed FAILED 1"]);
  const waiting = await runs.start("p", "", { what: "a" });
  expect((await runs.cancel("p", waiting.id)).status).toBe("CANCELLED");
  await runs.cancel("p", waiting.id);
  expect(await told(waiting.id)).toEqual(["queued QUEUED 0", "cancelled CANCELLED 0"]);
  const working = await runs.start("p", "", { what: "a" });
  await workUntilFinal(runs, working.id, async (lease) => {
    await Promise.all([runs.cancel("p", working.id), runs.cancel("p", working.id)]);
    await new Promise((_, reject) => lease.signal.addEventListener("abort", reject, { once: true }));
    return {};
  });
  expect(await told(working.id)).toEqual([
    "queued QUEUED 0",
    "started RUNNING 1",
    "cancelling RUNNING 1",
    "cancelled CANCELLED 1",
  ]);
});

test("a change whose event cannot be written is not made", async () => {
  const { id } = await tellingRuns().start("p", "", { what: "a" });
  const deaf = tellingRuns(() => true);
  const key = crypto.randomUUID();
  await expect(deaf.start("p", key, { what: "a" })).rejects.toThrow("cannot write the event");
  expect(await deaf.startedBy("p", key, { what: "a" })).toBeUndefined();
  await expect(deaf.cancel("p", id)).rejects.toThrow("cannot write the event");
  expect(await deaf.get("p", id)).toMatchObject({ status: "QUEUED", cancelRequested: false });
  // A worker that cannot tell that it begins does not begin, nor end.
  let isAway = true;
  let ends = 0;
  const moody = tellingRuns(({ kind }) => (kind === "started" && isAway) || (kind === "succeeded" && ends++ === 0));
  const handled: number[] = [];
  const stop = new AbortController();
  const working = work(
    moody,
    async (lease) => {
      handled.push(lease.fence);
      return {};
    },
    { concurrency: 1, signal: stop.signal },
  );
  await sleep(4 * timing.pollMs);
  expect([handled, (await moody.get("p", id)).status]).toEqual([[], "QUEUED"]);
  isAway = false;
  for await (const _ of moody.watch("p", id, AbortSignal.timeout(10_000)));
  stop.abort();
  await working;
  expect(handled).toEqual([1]);
  expect(await told(id)).toEqual(["queued QUEUED 0", "started RUNNING 1", "failed FAILED 1"]);
});
