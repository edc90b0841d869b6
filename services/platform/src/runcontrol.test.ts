import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "./database.js";
import { TutelageError } from "./errors.js";
import { Rest, RunPaused } from "./rest.js";
import { pauseRun, resumeOrRetryRun, resumeRun, retryRun } from "./runcontrol.js";
import { type Asked, log, openRunsDatabase, type State, timing } from "./runs.fixture.js";
import { type Lease, RunCancelled, type RunStatus, Runs } from "./runs.js";
import { shownStatus } from "./shownstatus.js";
import { type WorkOptions, work } from "./worker.js";

let database: Database;
beforeAll(async () => {
  database = await openRunsDatabase();
});
afterAll(() => database.close());

function newRuns() {
  const kinds: string[] = [];
  const runs = new Runs<Asked, State>(database, log, timing, async (_, { kind }) => {
    kinds.push(kind);
  });
  return { runs, kinds };
}

/** Works with a handler while `during` does what it wants; then the worker stops. */
async function whileWorking(
  runs: Runs<Asked, State>,
  handler: (lease: Lease<Asked, State>) => Promise<{ state?: State }>,
  during: () => Promise<void>,
  options: Partial<WorkOptions<Asked, State>> = {},
): Promise<void> {
  const stop = new AbortController();
  const listening = runs.signals.listen();
  const working = work(runs, handler, { concurrency: 1, signal: stop.signal, ...options });
  try {
    await during();
  } finally {
    stop.abort();
    await working;
    await runs.signals.close();
    await listening;
  }
}

async function untilStatus(
  runs: Runs<Asked, State>,
  id: string,
  ...statuses: (RunStatus | "PAUSING" | "CANCELLING")[]
) {
  for await (const run of runs.watch("p", id, AbortSignal.timeout(10_000))) {
    if (statuses.includes(shownStatus(run))) return run;
  }
  throw new Error(`run ${id} never became ${statuses}`);
}

/** Resolves when the signal aborts. */
const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

test("a running run is pausing until its holder has ended what was under way, and goes on when it is resumed", async () => {
  const { runs, kinds } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let underWay = () => {};
  const ended = new Promise<void>((resolve) => {
    underWay = resolve;
  });
  let tries = 0;
  const handler = async ({ signal }: Lease<Asked, State>) => {
    tries += 1;
    if (tries > 1) return { state: { result: "done" } };
    await aborted(signal);
    expect(signal.reason).toBeInstanceOf(RunPaused);
    await ended;
    throw signal.reason;
  };
  await whileWorking(runs, handler, async () => {
    await untilStatus(runs, id, "RUNNING");
    expect(shownStatus(await pauseRun(runs, "p", id))).toBe("PAUSING");
    await pauseRun(runs, "p", id);
    // Longer than the lease: its heartbeat goes on, and nobody takes it over.
    await sleep(800);
    expect(shownStatus(await runs.get("p", id))).toBe("PAUSING");
    underWay();
    expect(await untilStatus(runs, id, "PAUSED")).toMatchObject({ fence: 1, rest: { code: "paused" } });
    await sleep(200);
    expect((await runs.get("p", id)).status).toBe("PAUSED");
    await resumeRun(runs, "p", id);
    expect(await untilStatus(runs, id, "SUCCEEDED")).toMatchObject({ state: { result: "done" }, rest: undefined });
  });
  expect(kinds).toEqual(["queued", "started", "pausing", "paused", "resumed", "continued", "succeeded"]);
});

test("a queued run pauses at once, is not claimed, and can be cancelled", async () => {
  const { runs, kinds } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  expect((await pauseRun(runs, "p", id)).status).toBe("PAUSED");
  await whileWorking(
    runs,
    async () => ({}),
    async () => await sleep(150),
  );
  expect(await runs.get("p", id)).toMatchObject({ status: "PAUSED", fence: 0 });
  expect(await runs.cancel("p", id)).toMatchObject({ status: "CANCELLED", rest: undefined });
  expect((await resumeRun(runs, "p", id)).status).toBe("CANCELLED");
  expect((await pauseRun(runs, "p", id)).status).toBe("CANCELLED");
  expect(kinds).toEqual(["queued", "paused", "cancelled"]);
});

test("a resume that comes while the run is pausing lets it go on; a cancel then ends it", async () => {
  const { runs } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let claims = 0;
  const handler = async ({ signal, cancelled }: Lease<Asked, State>) => {
    claims += 1;
    await aborted(signal);
    if (claims === 1) await resumeRun(runs, "p", id);
    else {
      expect(signal.reason).toBeInstanceOf(RunPaused);
      // What is under way is not waited for.
      await runs.cancel("p", id);
      await aborted(cancelled);
      expect(cancelled.reason).toBeInstanceOf(RunCancelled);
    }
    throw signal.reason;
  };
  await whileWorking(runs, handler, async () => {
    await untilStatus(runs, id, "RUNNING");
    await pauseRun(runs, "p", id);
    while (claims < 2) await sleep(20);
    await pauseRun(runs, "p", id);
    await untilStatus(runs, id, "CANCELLED");
  });
});

test("who takes over from a holder that died while pausing pauses the run, and what it left going elsewhere first", async () => {
  const { runs } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  await database.pool.query(
    "update runs set status = 'RUNNING', fence = 1, started_at = now(), lease_until = now() + interval '200 ms' where id = $1",
    [id],
  );
  await pauseRun(runs, "p", id);
  const told: RunStatus[] = [];
  const suspend = async () => {
    told.push((await runs.get("p", id)).status);
  };
  const handler = async () => {
    throw new Error("no work is wanted");
  };
  await whileWorking(runs, handler, async () => void (await untilStatus(runs, id, "PAUSED")), { suspend });
  expect(told).toEqual(["RUNNING"]);
  await runs.cancel("p", id);
});

test("a run whose budget is exhausted rests, and is queued again when the reason went away while it decided to", async () => {
  const { runs, kinds } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let tries = 0;
  const handler = async () => {
    tries += 1;
    if (tries === 1) await resumeRun(runs, "p", id);
    if (tries <= 2) throw new Rest("BUDGET_EXHAUSTED", "campaign_budget", "3 calls are missing.");
    return { state: { result: "done" } };
  };
  await whileWorking(runs, handler, async () => {
    const rested = await untilStatus(runs, id, "BUDGET_EXHAUSTED");
    expect(rested).toMatchObject({ rest: { code: "campaign_budget", message: "3 calls are missing." } });
    expect(tries).toBe(2);
    await resumeRun(runs, "p", id);
    await untilStatus(runs, id, "SUCCEEDED");
  });
  const expected = ["queued", "started", "handed_back", "continued", "budget_exhausted", "resumed", "continued"];
  expect(kinds).toEqual([...expected, "succeeded"]);
});

test("a rest with an end is over by itself then, and a pause meanwhile has no end", async () => {
  const { runs, kinds } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const held = await runs.start("p", "", { what: "b" });
  const tries = new Map<string, number>();
  const handler = async ({ run }: Lease<Asked, State>) => {
    tries.set(run.id, (tries.get(run.id) ?? 0) + 1);
    if (tries.get(run.id) === 1) throw new Rest("PAUSED", "teacher_down", "Back soon.", new Date(Date.now() + 300));
    return { state: { result: "done" } };
  };
  await whileWorking(runs, handler, async () => {
    const rested = await untilStatus(runs, id, "PAUSED");
    expect(rested.rest?.code).toBe("teacher_down");
    expect(rested.wakeAt?.getTime()).toBeGreaterThan(Date.now() - 300);
    await untilStatus(runs, held.id, "PAUSED");
    const paused = await pauseRun(runs, "p", held.id);
    expect([paused.wakeAt, paused.rest?.code]).toEqual([undefined, "paused"]);
    await untilStatus(runs, id, "SUCCEEDED");
    await sleep(400);
    expect((await runs.get("p", held.id)).status).toBe("PAUSED");
  });
  expect(kinds.filter((kind) => kind === "resumed")).toHaveLength(1);
  await runs.cancel("p", held.id);
});

test("a failed run is tried again with its state; one that ended otherwise is not", async () => {
  const { runs, kinds } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  let fails = true;
  const handler = async (lease: Lease<Asked, State>) => {
    if (fails) {
      await lease.report({}, { result: "half" });
      throw new TutelageError("failed_precondition", "no", { reason: "refused" });
    }
    return { state: { result: `${lease.run.state.result} done` } };
  };
  await whileWorking(runs, handler, async () => {
    await untilStatus(runs, id, "FAILED");
    const refusing = retryRun(runs, "p", id, async () => {
      throw new Error("too late");
    });
    await expect(refusing).rejects.toThrow("too late");
    expect((await runs.get("p", id)).status).toBe("FAILED");
    fails = false;
    expect(await resumeOrRetryRun(runs, "p", id)).toMatchObject({ failure: undefined, finishedAt: undefined });
    await untilStatus(runs, id, "SUCCEEDED");
  });
  expect(await retryRun(runs, "p", id)).toMatchObject({ status: "SUCCEEDED", state: { result: "half done" } });
  expect(kinds).toEqual(["queued", "started", "failed", "retried", "continued", "succeeded"]);
});

test("a run that fails because what it waited for was cancelled with it counts as cancelled", async () => {
  const { runs } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  const handler = async () => {
    // Before any heartbeat has told this holder.
    await database.pool.query("update runs set cancel_requested = true where id = $1", [id]);
    throw new TutelageError("aborted", "A run of this campaign was cancelled by somebody else.");
  };
  await whileWorking(runs, handler, async () => void (await untilStatus(runs, id, "CANCELLED")));
});

test("nobody controls another project's run", async () => {
  const { runs } = newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  for (const control of [pauseRun, resumeRun, retryRun]) {
    await expect(control(runs, "q", id)).rejects.toMatchObject({ code: "not_found" });
  }
  await runs.cancel("p", id);
});
