import { setTimeout as sleep } from "node:timers/promises";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { createLog } from "@tutelage/platform/log";
import { MonthBudget } from "@tutelage/platform/monthbudget";
import { Runs } from "@tutelage/platform/runs";
import { work } from "@tutelage/platform/worker";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { TimeBudget } from "./timebudget.js";
import type { CheckedRequest, TrainingState } from "./trainingrun.js";

let database: Database;
beforeAll(async () => {
  database = await openDatabase({
    url: await testDatabaseUrl(),
    schema: "training",
    log: createLog("test", "fatal"),
    hasRuns: true,
  });
});
afterAll(() => database.close());

test("a training that crosses a month's end charges each month with its own seconds", async () => {
  const runs = new Runs<CheckedRequest, TrainingState>(database, createLog("test", "fatal"));
  const { id } = await runs.start("p", "", {} as CheckedRequest);
  const stop = new AbortController();
  let now = new Date("2026-11-30T23:59:58Z");
  const working = work(
    runs,
    async (lease) => {
      const time = new TimeBudget(
        lease,
        async () => {},
        () => now,
      );
      await time.begin();
      now = new Date("2026-12-01T00:00:03Z");
      // Beyond what was set aside in the old month.
      await sleep(5_600);
      await time.settle();
      return {};
    },
    { concurrency: 1, signal: stop.signal },
  );
  for await (const _ of runs.watch("p", id, AbortSignal.timeout(30_000)));
  stop.abort();
  await working;
  const budget = new MonthBudget(database, ["training_seconds"]);
  const used = async (month: string) => (await budget.lines("p", month))[0]?.used ?? 0;
  expect(await used("2026-11")).toBeCloseTo(5, 5);
  const own = await used("2026-12");
  expect(own).toBeGreaterThan(0.5);
  expect(own).toBeLessThan(3);
  expect((await runs.get("p", id)).state.chargedSeconds).toBeCloseTo(5 + own, 5);
});
