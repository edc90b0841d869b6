import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { type Database, openDatabase } from "./database.js";
import { createLog } from "./log.js";
import { type BudgetNotice, chargeMonth, endOfMonth, MonthBudget, MonthBudgetMet, monthOf } from "./monthbudget.js";

let database: Database;
let budget: MonthBudget;
const month = "2026-11";

beforeAll(async () => {
  const log = createLog("test", "fatal");
  const url = await testDatabaseUrl();
  database = await openDatabase({ url, schema: "training", log, hasRuns: true });
  budget = new MonthBudget(database, ["calls", "money"]);
});
afterAll(() => database.close());

const charge = (
  projectId: string,
  amounts: Record<string, number>,
  { month: of = month, ...more }: { month?: string; beyondCaps?: boolean; tells?: boolean } = {},
) => database.drizzle.transaction((transaction) => chargeMonth(transaction, projectId, of, amounts, more));

test("64 at once use exactly the cap, and who is refused has no effect at all", async () => {
  await budget.setCaps("many", [{ name: "calls", cap: 100 }]);
  const charges = Array.from({ length: 64 }, async () => {
    let made = 0;
    for (let each = 0; each < 5; each += 1) {
      made += await charge("many", { money: 3, calls: 1 }).then(
        () => 1,
        (error) => {
          expect(error).toBeInstanceOf(MonthBudgetMet);
          return 0;
        },
      );
    }
    return made;
  });
  expect((await Promise.all(charges)).reduce((sum, made) => sum + made, 0)).toBe(100);
  expect(await budget.lines("many", month)).toEqual([
    { name: "calls", used: 100, cap: 100 },
    { name: "money", used: 300, cap: 0 },
  ]);
});

test("each mark is told of once, by whoever passed it, also where what was set aside comes back", async () => {
  await budget.setCaps("marks", [{ name: "money", cap: 1_000 }]);
  const told: BudgetNotice[] = [];
  const add = async (money: number) => void told.push(...(await charge("marks", { money })));
  for (const money of [499, 1, -100, 100, 310, 100]) await add(money);
  expect(told.map(({ percent, used }) => [percent, used])).toEqual([
    [50, 500],
    [80, 810],
  ]);
  await add(90);
  expect(told.at(-1)).toEqual({ name: "money", month, percent: 95, used: 1_000, cap: 1_000 });
  await expect(charge("marks", { money: 0.1 })).rejects.toMatchObject({ line: { used: 1_000, cap: 1_000 } });
  // Another cap has marks of its own.
  await budget.setCaps("marks", [{ name: "money", cap: 2_100 }]);
  expect((await charge("marks", { money: 100 })).map(({ percent, cap }) => [percent, cap])).toEqual([[50, 2_100]]);
});

test("a mark that was passed where nobody could be told is told of with the next charge", async () => {
  await budget.setCaps("silent", [{ name: "calls", cap: 10 }]);
  expect(await charge("silent", { calls: 6 }, { tells: false })).toEqual([]);
  expect((await charge("silent", { calls: 1 })).map(({ percent, used }) => [percent, used])).toEqual([[50, 7]]);
  expect(await charge("silent", { calls: 0.5 })).toEqual([]);
});

test("months and projects are apart; what is used already counts beyond the cap, and a cap can be taken away", async () => {
  await budget.setCaps("apart", [{ name: "calls", cap: 2 }]);
  await charge("apart", { calls: 2 });
  await charge("apart", { calls: 2 }, { month: "2026-12" });
  await charge("others", { calls: 2 });
  await expect(charge("apart", { calls: 1 })).rejects.toThrow("cap of 2 calls in 2026-11 is met");
  await charge("apart", { calls: 1 }, { beyondCaps: true });
  await budget.setCaps("apart", [{ name: "calls", cap: 0 }]);
  await charge("apart", { calls: 1 });
  expect((await budget.lines("apart", month)).find(({ name }) => name === "calls")).toMatchObject({ used: 4, cap: 0 });
});

test.each([
  [{ name: "hours", cap: 1 }, "caps"],
  [{ name: "calls", cap: -1 }, "caps.calls"],
  [{ name: "calls", cap: Number.NaN }, "caps.calls"],
])("a cap of %j is refused", async (cap, field) => {
  await expect(budget.setCaps("bad", [cap])).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field }] });
});

test("a month ends where the next one begins, in UTC", () => {
  expect(monthOf(new Date("2026-12-31T23:59:59.999Z"))).toBe("2026-12");
  expect(endOfMonth("2026-12").toISOString()).toBe("2027-01-01T00:00:00.000Z");
});
