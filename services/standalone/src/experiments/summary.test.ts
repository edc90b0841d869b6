import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Result, readResults, resultPath, writeResult } from "./resultfile.js";
import { resultsPage } from "./resultspage.js";
import { summarize } from "./summary.js";
import { writeSummary } from "./writesummary.js";

const rows = 200;

/** Answers of which this many are right, at rows that depend on the seed. */
function answers(right: number, seed: number): string {
  return Array.from({ length: rows }, (_, row) => ((row * 37 + seed * 11) % rows < right ? "1" : "0")).join("");
}

const arm = (...students: string[]) => ({ train_rows: 60, steps: 40, students, teacher_calls: 0 });

function made(replicate: number, more: Partial<Result> = {}): Result {
  return {
    format: 1,
    experiment: "made-up",
    variant: "default",
    replicate,
    asked_digest: "a",
    settings_digest: "b",
    settings: { iterations: 3 },
    student: "tiny",
    teacher: "scripted",
    tuned: false,
    seed_rows: 60,
    test_rows: rows,
    rows_digest: `r${replicate}`,
    commit: "c",
    started_at: "2026-01-01T00:00:00.000Z",
    finished_at: "2026-01-01T00:05:00.000Z",
    wall_seconds: 120,
    training_seconds: 60,
    teacher_usage: {
      calls: 80,
      reused_calls: 20,
      prompt_tokens: 1,
      completion_tokens: 1,
      cost_micro_usd: 5_000,
      seconds: 9,
    },
    stop_reason: "iterations",
    chosen_iteration: 3,
    plain_returned: false,
    plain_student: 0,
    iterations: [
      { number: 0, train_rows: 60, errors: 20, candidates: 60, accepted: 30, cross_fit_accuracy: 0.5, seconds: 1 },
      { number: 1, train_rows: 90, errors: 15, candidates: 0, accepted: 0, cross_fit_accuracy: 0.6, seconds: 1 },
    ],
    arms: {
      returned: arm(answers(150, replicate)),
      none: arm(answers(120, replicate), answers(124, replicate)),
      none_matched: arm(answers(128, replicate)),
      oracle: arm(answers(170, replicate)),
    },
    left_out: {},
    ...more,
  };
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-summary-"));
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

/** What the files say, after a round through the folder. */
async function summaryOf(results: readonly Result[]) {
  for (const one of results) await writeResult(resultPath(folder, one.experiment, one.variant, one.replicate), one);
  return summarize(await readResults(folder));
}

test("means, paired gains, Holm's correction and the share of the oracle's gain, by hand", async () => {
  const { "made-up": task } = await summaryOf([2, 1, 3, 4].map((replicate) => made(replicate)));
  expect(task?.arms.default).toMatchObject({ mean: 0.75, replicates: 4, n: rows });
  expect(task?.arms.none?.mean).toBeCloseTo(0.61, 12);
  expect(task?.arms.none?.gain_over_none).toBeNull();
  expect(task?.gain_over_none?.mean).toBeCloseTo(0.14, 12);
  expect(task?.gain_over_none?.ci95[0]).toBeGreaterThan(0);
  expect(task?.gain_over_none_matched?.mean).toBeCloseTo(0.11, 12);
  expect(task?.gain_over_random).toBeNull();
  // (150 − 122) / (170 − 122)
  expect(task?.share_of_oracle_gain?.mean).toBeCloseTo(28 / 48, 12);
  const [low = 0, high = 0] = task?.share_of_oracle_gain?.ci95 ?? [];
  expect(low).toBeLessThan(28 / 48);
  expect(high).toBeGreaterThan(28 / 48);
  const none = task?.gains.find(({ against }) => against === "none");
  expect(none?.p).toBeLessThan(0.001);
  expect(none?.holm_p).toBeGreaterThanOrEqual(none?.p ?? 1);
  // The answers of the replicate's plain student: 30 rows more, none lost.
  expect(none?.mcnemar_p).toHaveLength(4);
  expect(none?.mcnemar_p[0]).toBeLessThan(1e-6);
  expect(task?.campaigns.default).toMatchObject({ teacher_calls: 100, rows_added: 30, plain_returned: 0 });
});

test("a plain student that is given back gains just nothing, whatever the other tries did", async () => {
  const plain = answers(120, 1);
  const returned = { ...made(1).arms, returned: arm(plain) };
  const { "made-up": task } = await summaryOf([made(1, { plain_returned: true, arms: returned })]);
  expect(task?.gain_over_none).toMatchObject({ mean: 0, ci95: [0, 0], p: 1, mcnemar_p: [1] });
  expect(task?.share_of_oracle_gain?.mean).toBe(0);
});

test("one replicate, an arm that some replicates lack, and an oracle that gains nothing", async () => {
  const poor = { ...made(1).arms, oracle: arm(answers(123, 1)) };
  const one = await summaryOf([made(1, { arms: poor })]);
  expect(one["made-up"]?.share_of_oracle_gain).toBeNull();
  expect(one["made-up"]?.arms.default?.replicates).toBe(1);
  const { oracle: _, ...lacking } = made(2).arms;
  const two = await summaryOf([made(1), made(2, { arms: lacking, left_out: { oracle: "The budget is spent." } })]);
  expect(two["made-up"]?.arms.oracle?.replicates).toBe(1);
  expect(two["made-up"]?.gains.find(({ against }) => against === "oracle")?.replicates).toBe(1);
  expect(two["made-up"]?.left_out).toEqual({ oracle: ["The budget is spent."] });
});

test("a variant is an arm of its own, compared on the same replicates", async () => {
  const variant = (replicate: number) =>
    made(replicate, { variant: "continued", asked_digest: "v", arms: { returned: arm(answers(140, replicate)) } });
  const { "made-up": task } = await summaryOf([made(1), made(2), variant(1)]);
  expect(task?.arms.continued?.gain_over_none?.mean).toBeCloseTo(0.09, 12);
  expect(task?.gains.find(({ against }) => against === "continued")).toMatchObject({ replicates: 1 });
  expect(Object.keys(task?.campaigns ?? {})).toEqual(["continued", "default"]);
});

test("replicates that were asked for differently are not mixed", async () => {
  await expect(summaryOf([made(1), made(2, { settings_digest: "other" })])).rejects.toThrow(
    "Replicates 1 and 2 of made-up/default ran with other settings",
  );
});

test("the page has the tables, the curves, what falls short, and a person's notes", async () => {
  const tasks = await summaryOf([1, 2, 3].map((replicate) => made(replicate)));
  const page = resultsPage(tasks, { "made-up": "Tried longer prompts first.\n" });
  for (const part of [
    "## made-up",
    "60 seed rows, 200 test rows, 3 replicates.",
    "| default | 75.0 (",
    "Shown: default is better than none (+14.0 (",
    "**Falls short**, shown: default is worse than oracle (−10.0 (",
    "Of the gain that real rows of the same number bring (oracle), it reaches 0.58",
    "fewer than 6 replicates",
    "| default | 30 | 100 | 7 | 2.0 | 0.1 | $0.0050 | 0 of 3 |",
    "default              0  ████████████████████                       50.0    60 rows, 20 errors",
    "Tried longer prompts first.",
  ]) {
    expect(page).toContain(part);
  }
});

test("where nothing is told apart the page says so, and what could have been seen", async () => {
  const even = (replicate: number) => ({ ...made(replicate).arms, returned: arm(answers(122, replicate + 50)) });
  const page = resultsPage(await summaryOf([1, 2].map((replicate) => made(replicate, { arms: even(replicate) }))));
  expect(page).toMatch(
    /\*\*Falls short\*\*: no gain over none is shown\. A true one of \d+\.\d points would have been found/,
  );
  expect(page).toContain("| – |");
});

test("without results the page says so; a broken file is named with its field", async () => {
  const out = join(folder, "page.md");
  const options = { results: join(folder, "none"), notes: join(folder, "notes"), out, say: () => {} };
  expect(await writeSummary(options)).toEqual({});
  expect(await readFile(out, "utf8")).toContain("There are no results yet.");
  await writeResult(resultPath(folder, "made-up", "default", 1), made(1, { test_rows: 199 }));
  await expect(readResults(folder)).rejects.toThrow(
    /default-01\.json: arms\.\w+: has 200 rows, where test_rows is 199/,
  );
  await writeFile(resultPath(folder, "made-up", "default", 1), "{");
  await expect(readResults(folder)).rejects.toThrow(/default-01\.json: is not JSON/);
});

test("docs/results.md is what the committed results give", async () => {
  const root = fileURLToPath(new URL("../../../../", import.meta.url));
  const out = join(folder, "page.md");
  const experiments = join(root, "experiments");
  await writeSummary({ results: join(experiments, "results"), notes: join(experiments, "notes"), out, say: () => {} });
  expect(await readFile(out, "utf8")).toBe(await readFile(join(root, "docs/results.md"), "utf8"));
}, 120_000);
