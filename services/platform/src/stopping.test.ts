/** Stopping runs that started others elsewhere: none is said to have stopped before those are told. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "./database.js";
import { pauseRun, resumeRun } from "./runcontrol.js";
import { type Asked, log, openRunsDatabase, type State, timing } from "./runs.fixture.js";
import { Runs } from "./runs.js";
import { shownStatus } from "./shownstatus.js";
import { type Handler, type WorkOptions, work } from "./worker.js";

let database: Database;
let kinds: string[];
let runs: Runs<Asked, State>;
beforeAll(async () => {
  database = await openRunsDatabase();
});
afterAll(() => database.close());

function newRuns() {
  kinds = [];
  runs = new Runs<Asked, State>(database, log, timing, async (_, { kind }) => void kinds.push(kind), true);
}
const shown = async (id: string) => shownStatus(await runs.get("p", id));
async function untilShown(id: string, status: string) {
  const until = Date.now() + 10_000;
  while ((await shown(id)) !== status) {
    if (Date.now() > until) throw new Error(`run ${id} never became ${status}, but is ${await shown(id)}`);
    await sleep(20);
  }
}
const untilAborted: Handler<Asked, State> = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
function worker(options: Partial<WorkOptions<Asked, State>>, handler = untilAborted) {
  const stop = new AbortController();
  const working = work(runs, handler, { concurrency: 1, signal: stop.signal, ...options });
  return async () => {
    stop.abort();
    await working;
  };
}
const away = async () => {
  throw new Error("The other service is away.");
};
/** A run that was held once and has no holder now. */
async function betweenHolders(): Promise<string> {
  const { id } = await runs.start("p", "", { what: "a" });
  await database.pool.query(
    "update runs set fence = 1, started_at = now(), not_before = now() + interval '1 hour' where id = $1",
    [id],
  );
  return id;
}

test.each([
  ["CANCELLING", "CANCELLED", () => (id: string) => runs.cancel("p", id), "abandon"],
  ["PAUSING", "PAUSED", () => (id: string) => pauseRun(runs, "p", id), "suspend"],
] as const)(
  "a run stays %s until others are told, under its holder's successor too",
  async (going, gone, ask, tell) => {
    newRuns();
    const { id } = await runs.start("p", "", { what: "a" });
    const stopFirst = worker({ [tell]: away });
    await untilShown(id, "RUNNING");
    await ask()(id);
    await sleep(6 * timing.heartbeatMs);
    expect(await shown(id)).toBe(going);
    // It shuts down before it can tell.
    await stopFirst();
    expect(await shown(id)).toBe(going);
    const told: unknown[] = [];
    let tries = 0;
    const stopSecond = worker({
      [tell]: async (run: { fence: number }) => {
        tries += 1;
        if (tries < 3) await away();
        told.push([run.fence, await shown(id)]);
      },
    });
    await untilShown(id, gone);
    await stopSecond();
    expect(told).toEqual([[2, going]]);
    const last = gone.toLowerCase();
    expect(kinds).toEqual(["queued", "started", going.toLowerCase(), "handed_back", last]);
  },
);

test.each(["cancel", "pause"])("a %s of a run between two holders is told, though all loops are busy", async (what) => {
  newRuns();
  const id = await betweenHolders();
  const busy = await runs.start("p", "", { what: "a" });
  const told: string[] = [];
  const tell = async (run: { id: string }) => void told.push(run.id);
  const stop = worker({ abandon: tell, suspend: tell });
  await untilShown(busy.id, "RUNNING");
  if (what === "cancel") {
    expect(shownStatus(await runs.cancel("p", id))).toBe("CANCELLING");
    await untilShown(id, "CANCELLED");
  } else {
    expect(shownStatus(await pauseRun(runs, "p", id))).toBe("PAUSING");
    await untilShown(id, "PAUSED");
    // From its rest it is cancelled the same way.
    told.length = 0;
    expect(shownStatus(await runs.cancel("p", id))).toBe("CANCELLING");
    await untilShown(id, "CANCELLED");
  }
  expect(told).toEqual([id]);
  expect(kinds).not.toContain("continued");
  await runs.cancel("p", busy.id);
  await untilShown(busy.id, "CANCELLED");
  await stop();
});

test("a pause that is taken back before anybody could pass it on is none", async () => {
  newRuns();
  const id = await betweenHolders();
  await pauseRun(runs, "p", id);
  await resumeRun(runs, "p", id);
  const stop = worker({ suspend: away }, async () => ({ state: { result: "done" } }));
  await untilShown(id, "SUCCEEDED");
  await stop();
});

test("a run that nobody ever held has nothing elsewhere, and stops at once", async () => {
  newRuns();
  const { id } = await runs.start("p", "", { what: "a" });
  expect((await pauseRun(runs, "p", id)).status).toBe("PAUSED");
  expect((await runs.cancel("p", id)).status).toBe("CANCELLED");
});
