import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { until } from "../../../tests/support/waiting.js";
import { type Database, isDatabaseAway } from "./database.js";
import { TutelageError } from "./errors.js";
import { openLease } from "./lease.js";
import { type Asked, log, openRunsDatabase, type State, timing, workUntilFinal } from "./runs.fixture.js";
import { LeaseLost, Runs, TryLater } from "./runs.js";
import { type Handler, work } from "./worker.js";

let database: Database;
beforeAll(async () => {
  database = await openRunsDatabase();
});
afterAll(() => database.close());

/** Runs that this test alone works on: claims take any run of the schema, so each test ends what it starts. */
function newRuns() {
  return new Runs<Asked, State>(database, log, timing);
}

test("a start with the same key returns the first run, and another request under it is refused", async () => {
  const runs = newRuns();
  const first = await runs.start("p", "key", { what: "a" });
  const again = await runs.start("p", "key", { what: "a" });
  expect(again.id).toBe(first.id);
  // The same request after an upgrade whose contract has more fields.
  const gained = { rows: [], name: "", limits: { most: 0, kind: "KIND_UNSPECIFIED" }, what: "a" };
  expect((await runs.start("p", "key", gained)).id).toBe(first.id);
  await expect(runs.start("p", "key", { ...gained, ...{ name: "x" } })).rejects.toMatchObject({
    code: "already_exists",
  });
  await expect(runs.start("p", "key", { what: "b" })).rejects.toMatchObject({ code: "already_exists" });
  const other = await runs.start("q", "key", { what: "b" });
  expect(other.id).not.toBe(first.id);
  await expect(runs.get("q", first.id)).rejects.toMatchObject({ code: "not_found" });
  await runs.cancel("p", first.id);
  await runs.cancel("q", other.id);
});

test("a worker's result and its effects are stored with the final status", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const last = await workUntilFinal(runs, id, async (lease) => {
    await lease.report({ done: 1, total: 2, unit: "steps" });
    return { state: { result: `${lease.run.request.what}!` } };
  });
  expect(last).toMatchObject({
    status: "SUCCEEDED",
    state: { result: "a!" },
    progress: { done: 1, total: 2 },
    fence: 1,
  });
});

test("what a worker tidies up is still there until its result is stored, and cannot fail the run any more", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const then: string[] = [];
  const last = await workUntilFinal(runs, id, async () => ({
    state: { result: "done" },
    commit: async () => void then.push((await runs.get("p", id)).status),
    tidy: async () => {
      then.push((await runs.get("p", id)).status);
      throw new Error("The disk is gone.");
    },
  }));
  expect(last).toMatchObject({ status: "SUCCEEDED", state: { result: "done" } });
  expect(then).toEqual(["RUNNING", "SUCCEEDED"]);
});

test("a run whose holder stops renewing is taken over, and the first holder's late write is refused", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  // A holder that claims and then hangs without a heartbeat, as a stopped process does.
  await database.pool.query(
    "update runs set status = 'RUNNING', fence = 1, lease_until = now() + interval '200 ms' where id = $1",
    [id],
  );
  const lateLease = openLease(database, { ...(await runs.get("p", id)), fence: 1 }, new AbortController().signal);
  let fence = 0;
  const last = await workUntilFinal(runs, id, async (lease) => {
    fence = lease.fence;
    await expect(lateLease.write(async () => {})).rejects.toBeInstanceOf(LeaseLost);
    return { state: { result: "second" } };
  });
  expect(fence).toBe(2);
  expect(last?.state.result).toBe("second");
});

test("a worker that shuts down hands over the run of a handler that does not stop, and refuses its late writes", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const stop = new AbortController();
  let lateWrite: Promise<unknown> | undefined;
  let goOn = () => {};
  const working = work(
    runs,
    async (lease) => {
      stop.abort();
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
      lateWrite = lease.write(async () => {}).catch((error: unknown) => error);
      return {};
    },
    { concurrency: 1, signal: stop.signal, drainMs: 100 },
  );
  await working;
  expect(await runs.get("p", id)).toMatchObject({ status: "QUEUED", fence: 1, deferrals: 1 });
  const last = await workUntilFinal(runs, id, async () => {
    goOn();
    await vi.waitFor(() => expect(lateWrite).toBeDefined());
    expect(await lateWrite).toBeInstanceOf(LeaseLost);
    return { state: { result: "second" } };
  });
  expect(last).toMatchObject({ status: "SUCCEEDED", fence: 2, state: { result: "second" } });
});

test("cancel reaches a running handler through its signal", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const last = await workUntilFinal(runs, id, async (lease) => {
    await runs.cancel("p", id);
    await new Promise<void>((_, reject) => {
      lease.signal.addEventListener("abort", () => reject(new Error("stopped")), { once: true });
    });
    return {};
  });
  expect(last?.status).toBe("CANCELLED");
});

test("what a cancelled run left going is ended before it counts as cancelled, under whichever holder", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  // Its holder stored a result and died; then somebody cancels it.
  await database.pool.query(
    `update runs set status = 'RUNNING', fence = 1, lease_until = now(), state = '{"result": "child"}' where id = $1`,
    [id],
  );
  await runs.cancel("p", id);
  const ended: unknown[] = [];
  const stop = new AbortController();
  const working = work(
    runs,
    async () => {
      throw new Error("A cancelled run is not worked on.");
    },
    {
      concurrency: 1,
      signal: stop.signal,
      abandon: async (run) => {
        ended.push([run.status, run.state.result]);
      },
    },
  );
  let last: Awaited<ReturnType<typeof runs.get>> | undefined;
  for await (const run of runs.watch("p", id, AbortSignal.timeout(10_000))) last = run;
  stop.abort();
  await working;
  expect(last?.status).toBe("CANCELLED");
  expect(ended).toEqual([["RUNNING", "child"]]);
});

test("a handler's error becomes the failure, and 'try later' queues the run again", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let tries = 0;
  const last = await workUntilFinal(runs, id, async () => {
    tries += 1;
    if (tries === 1) throw new TryLater(20, "busy");
    throw new Error("secret detail");
  });
  expect(tries).toBe(2);
  expect(last).toMatchObject({ status: "FAILED", failure: { code: "internal" } });
  expect(last?.failure?.message).not.toContain("secret");
});

test("a run that waits long for a busy student is not taken for one that kills its workers", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let tries = 0;
  const last = await workUntilFinal(runs, id, async () => {
    tries += 1;
    if (tries <= 30) throw new TryLater(0, "busy");
    return {};
  });
  expect(last).toMatchObject({ status: "SUCCEEDED", fence: 31, deferrals: 30 });
});

test("a named failure is final though its cause is a refused connection, of another service", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const last = await workUntilFinal(runs, id, async () => {
    const cause = new Error("connect ECONNREFUSED 127.0.0.1:1");
    throw new TutelageError("unavailable", "The student is away.", { reason: "student_unavailable", cause });
  });
  expect(last).toMatchObject({ status: "FAILED", failure: { code: "student_unavailable" } });
});

test("a run that was handed back is claimed when it is due, however long the poll interval", async () => {
  const runs = new Runs<{ what: string }, object>(database, log, { ...timing, pollMs: 10_000 });
  const listening = runs.signals.listen();
  const { id } = await runs.start("p", "", { what: "a" });
  let tries = 0;
  const startedAt = Date.now();
  const last = await workUntilFinal(runs, id, async () => {
    tries += 1;
    if (tries <= 2) throw new TryLater(100, "busy");
    return {};
  });
  expect(last?.status).toBe("SUCCEEDED");
  expect(Date.now() - startedAt).toBeLessThan(3_000);
  await runs.signals.close();
  await listening;
});

test("shutdown hands a running run back so that another worker claims it at once", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const stop = new AbortController();
  const working = work(
    runs,
    async (lease) => {
      stop.abort();
      lease.signal.throwIfAborted();
      return {};
    },
    { concurrency: 1, signal: stop.signal },
  );
  await working;
  expect((await runs.get("p", id)).status).toBe("QUEUED");
  const last = await workUntilFinal(runs, id, async () => ({ state: { result: "done" } }));
  expect(last).toMatchObject({ status: "SUCCEEDED", fence: 2 });
});

/** Makes a queued run look like one whose holder died under this fence. */
async function orphan(id: string, fence: number): Promise<void> {
  await database.pool.query("update runs set status = 'RUNNING', fence = $2, lease_until = now() where id = $1", [
    id,
    fence,
  ]);
}

test("a dead holder is replaced though every worker is busy with runs of its own", async () => {
  const runs = newRuns();
  const { id: busy } = await runs.start("p", "", { what: "busy" });
  const stop = new AbortController();
  const done: string[] = [];
  let isOpen = false;
  const working = work(
    runs,
    async (lease) => {
      while (lease.run.request.what === "busy" && !isOpen) await sleep(10);
      done.push(lease.run.request.what);
      return {};
    },
    { concurrency: 1, signal: stop.signal },
  );
  await until(async () => (await runs.get("p", busy)).status === "RUNNING");
  const { id: queued } = await runs.start("p", "", { what: "queued" });
  const { id: orphaned } = await runs.start("p", "", { what: "orphaned" });
  await orphan(orphaned, 1);
  await until(async () => (await runs.get("p", orphaned)).status === "SUCCEEDED");
  // Beside the worker's own run, not before its turn.
  expect(done).toEqual(["orphaned"]);
  isOpen = true;
  await until(async () => (await runs.get("p", queued)).status === "SUCCEEDED");
  stop.abort();
  await working;
});

test("a run that was handed over by a shutdown is taken over though every worker is busy, one that waits is not", async () => {
  const runs = newRuns();
  const stops = { leaving: new AbortController(), staying: new AbortController() };
  const done: string[] = [];
  let isOpen = false;
  const handler: Handler<Asked, State> = async ({ run, signal }) => {
    while (!isOpen && (run.request.what === "busy" || run.fence === 1)) {
      signal.throwIfAborted();
      await sleep(10);
    }
    done.push(run.request.what);
    return {};
  };
  const { id: handedOver } = await runs.start("p", "", { what: "handed over" });
  const leaving = work(runs, handler, { concurrency: 1, signal: stops.leaving.signal });
  await until(async () => (await runs.get("p", handedOver)).status === "RUNNING");
  const { id: busy } = await runs.start("p", "", { what: "busy" });
  const staying = work(runs, handler, { concurrency: 1, signal: stops.staying.signal });
  await until(async () => (await runs.get("p", busy)).status === "RUNNING");
  const { id: waiting } = await runs.start("p", "", { what: "waiting" });
  stops.leaving.abort();
  await leaving;
  await until(async () => (await runs.get("p", handedOver)).status === "SUCCEEDED");
  expect(done).toEqual(["handed over"]);
  expect(await runs.get("p", waiting)).toMatchObject({ status: "QUEUED", fence: 0 });
  isOpen = true;
  await until(async () => (await runs.get("p", waiting)).status === "SUCCEEDED");
  stops.staying.abort();
  await staying;
});

test("a run may wait for a busy student for days", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  await database.pool.query("update runs set fence = 1000000, deferrals = 1000000 where id = $1", [id]);
  const last = await workUntilFinal(runs, id, async ({ fence }) => {
    if (fence <= 1_000_001) throw new TryLater(0, "busy");
    return {};
  });
  expect(last).toMatchObject({ status: "SUCCEEDED", fence: 1_000_002 });
});

test("a run that takes its workers down is given up, one that got on meanwhile is not", async () => {
  const runs = newRuns();
  const { id: deadly } = await runs.start("p", "", { what: "deadly" });
  await orphan(deadly, 30);
  expect(await workUntilFinal(runs, deadly, async () => ({}))).toMatchObject({
    status: "FAILED",
    failure: { code: "worker_died_too_often" },
  });
  const { id: long } = await runs.start("p", "", { what: "long" });
  await orphan(long, 30);
  const lease = openLease(database, await runs.get("p", long), new AbortController().signal);
  await lease.advance(async () => {});
  await orphan(long, 31);
  expect(await workUntilFinal(runs, long, async () => ({}))).toMatchObject({ status: "SUCCEEDED", fence: 32 });
});

test("a holder that stops in the middle of a transaction does not keep its run from a successor", async () => {
  const runs = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  await orphan(id, 1);
  const lease = openLease(database, await runs.get("p", id), new AbortController().signal);
  // Its process stands still with the run's row locked, for longer than Postgres lets it.
  const late = expect(lease.write(() => sleep(7_000))).rejects.toSatisfy(isDatabaseAway);
  await sleep(100);
  expect(await workUntilFinal(runs, id, async () => ({}))).toMatchObject({ status: "SUCCEEDED", fence: 2 });
  await late;
});
