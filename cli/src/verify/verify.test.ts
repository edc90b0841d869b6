import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BundlePart, bundleOf, partName } from "@tutelage/platform/bundle";
import { afterAll, beforeAll, expect, test } from "vitest";
import { evidenceLists, type Lists } from "./evidence.fixture.js";
import { verify } from "./verify.js";

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-verify-"));
  path = join(folder, "bundle.tar");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Writes a bundle of these, with digests that fit. */
async function writeBundle(lists: Lists, path: string): Promise<void> {
  const parts = async function* (): AsyncGenerator<BundlePart> {
    for (const [list, documents] of Object.entries(lists)) {
      const bytes = Buffer.from(documents.map((one) => `${JSON.stringify(one)}\n`).join(""));
      yield { name: list.endsWith(".json") ? list : partName(list, 0), bytes };
    }
  };
  const chunks: Buffer[] = [];
  for await (const chunk of bundleOf(parts())) chunks.push(chunk);
  await writeFile(path, Buffer.concat(chunks));
}

const findingsOf = async (lists: Lists) => {
  await writeBundle(lists, path);
  return (await verify(path)).findings;
};

test("a campaign whose numbers follow from its parts passes, and what was taken as stored is said", async () => {
  await writeBundle(evidenceLists(), path);
  const { findings, checks, taken_as_stored } = await verify(path);
  expect(findings).toEqual([]);
  expect(Object.fromEntries(checks.map(({ check, looked_at }) => [check, looked_at]))).toMatchObject({
    versions: "2 versions, 10 rows",
    trainings: "4 trainings, 12 steps",
    answers: "6 evaluations, 14 answers graded anew",
    iterations: "2 iterations",
    "seed rows": "4 seed rows, 4 grades",
    candidates: "2 candidates, 2 replies read anew, 1 rows with their whole chain",
    ledger: "2 calls, 240 micro-USD",
    outcome: "2 arms, the gain over 3 test rows",
  });
  expect(taken_as_stored.at(-1)).toBe("of the report: advice");
});

type Json = Record<string, unknown>;
const inner = (document: unknown, ...names: string[]) =>
  names.reduce((one, name) => (one as Json)[name], document) as Json;

/** What each forgery changes, and the check that finds it. The digests of the bundle fit. */
const forgeries: [string, string, (lists: Record<string, Json[]>) => void][] = [
  ["a seed row's label", "versions", ({ rows }) => Object.assign(rows?.[0] ?? {}, { output: "LOC" })],
  ["a dropped row", "versions", ({ rows }) => rows?.splice(8, 1)],
  ["a version's digest", "versions", ({ versions }) => Object.assign(versions?.[1] ?? {}, { digest: "0" })],
  [
    "a synthetic row's root",
    "versions",
    ({ rows }) => Object.assign(rows?.at(-1) ?? {}, { root_row_id: "f".repeat(32) }),
  ],
  ["a dropped training", "trainings", (lists) => lists["training-runs"]?.splice(0, 1)],
  [
    "a training's seconds",
    "trainings",
    (lists) => Object.assign(lists["training-runs"]?.[0] ?? {}, { chargedSeconds: 1 }),
  ],
  ["a dropped loss", "trainings", (lists) => lists["training-steps"]?.splice(0, 1)],
  ["a loss", "report", (lists) => Object.assign(lists["training-steps"]?.at(-1) ?? {}, { loss: 0 })],
  ["a student's answer", "answers", ({ predictions }) => Object.assign(predictions?.[0] ?? {}, { text: "LOC" })],
  [
    "a student's answer with its grade",
    "answers",
    ({ predictions }) => Object.assign(predictions?.at(-1) ?? {}, { text: "NUM", answer: "NUM", correct: false }),
  ],
  ["an expected output", "answers", ({ predictions }) => Object.assign(predictions?.[0] ?? {}, { expected: "LOC" })],
  ["a dropped answer", "answers", ({ predictions }) => predictions?.splice(3, 1)],
  [
    "a run's metrics",
    "answers",
    (lists) => Object.assign(inner(lists["evaluation-runs"]?.[0], "metrics"), { tooLongRows: 1 }),
  ],
  [
    "an iteration's dev accuracy",
    "iterations",
    ({ iterations }) => Object.assign(inner(iterations?.[0], "devAccuracy"), { value: 0.9 }),
  ],
  [
    "an interval",
    "iterations",
    ({ iterations }) => Object.assign(inner(iterations?.[1], "testAccuracy"), { ci95Low: 0.9 }),
  ],
  [
    "an iteration's cross-fitted accuracy",
    "iterations",
    ({ iterations }) => Object.assign(inner(iterations?.[0], "crossFitAccuracy"), { successes: 4 }),
  ],
  ["an iteration's errors", "iterations", ({ iterations }) => Object.assign(iterations?.[0] ?? {}, { errors: 2 })],
  [
    "an iteration's rejections",
    "iterations",
    ({ iterations }) => Object.assign(iterations?.[0] ?? {}, { rejected: {} }),
  ],
  [
    "a seed row's grade",
    "seed rows",
    (lists) =>
      Object.assign((inner(lists["seed-rows"]?.[2], "grades") as unknown as Json[])[0] ?? {}, { correct: true }),
  ],
  ["a dropped seed row", "seed rows", (lists) => lists["seed-rows"]?.splice(0, 1)],
  [
    "a candidate's text",
    "candidates",
    ({ candidates }) => Object.assign(candidates?.[0] ?? {}, { input: "how many hills" }),
  ],
  [
    "a candidate's wrong answer",
    "candidates",
    ({ candidates }) => Object.assign(candidates?.[0] ?? {}, { wrongAnswer: "NUM" }),
  ],
  ["a dropped candidate", "candidates", ({ candidates }) => candidates?.splice(1, 1)],
  [
    "a candidate below the threshold",
    "candidates",
    ({ candidates }) => Object.assign(candidates?.[0] ?? {}, { probability: 0.4 }),
  ],
  [
    "a rejection's reason",
    "candidates",
    ({ candidates }) => Object.assign(candidates?.[1] ?? {}, { rejection: "empty_reply" }),
  ],
  [
    "swapped replies",
    "candidates",
    ({ calls }) => {
      const [one, other] = calls ?? [];
      if (one && other) [one.rawReply, other.rawReply] = [other.rawReply, one.rawReply];
    },
  ],
  ["a prompt", "candidates", ({ calls }) => Object.assign(calls?.[0] ?? {}, { prompt: "[]" })],
  ["a dropped call", "ledger", ({ calls }) => calls?.splice(0, 1)],
  ["a call's cost", "ledger", ({ calls }) => Object.assign(calls?.[1] ?? {}, { costMicroUsd: 1 })],
  [
    "a purpose's total",
    "ledger",
    (lists) => Object.assign(inner(lists["ledger-totals"]?.[0], "usage"), { promptTokens: 1 }),
  ],
  [
    "the campaign's cost",
    "ledger",
    (lists) => Object.assign(inner(lists["campaign.json"]?.[0], "usage"), { costMicroUsd: 1 }),
  ],
  [
    "the gain",
    "outcome",
    (lists) => Object.assign(inner(lists["campaign.json"]?.[0], "outcome", "gain"), { gain: 0.9 }),
  ],
  [
    "the gain's interval",
    "outcome",
    (lists) => Object.assign(inner(lists["campaign.json"]?.[0], "outcome", "gain"), { ci95Low: 0.1 }),
  ],
  [
    "the sentence",
    "outcome",
    (lists) => Object.assign(inner(lists["campaign.json"]?.[0], "outcome"), { summary: "99.0 % right." }),
  ],
  [
    "the choice",
    "outcome",
    (lists) => Object.assign(inner(lists["campaign.json"]?.[0], "outcome"), { chosenIteration: 0 }),
  ],
  [
    "an arm's accuracy",
    "outcome",
    (lists) =>
      Object.assign(inner(lists["campaign.json"]?.[0], "outcome", "baseline", "testAccuracy"), { successes: 0 }),
  ],
  [
    "another student's test answers",
    "outcome",
    (lists) => {
      const outcome = inner(lists["campaign.json"]?.[0], "outcome");
      Object.assign(inner(outcome, "final"), { checkpoint: inner(outcome, "baseline").checkpoint });
    },
  ],
  [
    "the report's metrics",
    "report",
    (lists) => Object.assign(inner(lists["report.json"]?.[0], "finalMetrics"), { unreadableRows: 1 }),
  ],
  [
    "a p-value",
    "report",
    (lists) => Object.assign(inner(lists["report.json"]?.[0], "comparisons", "0"), { mcnemarP: 0.001 }),
  ],
  [
    "a claim",
    "report",
    (lists) => Object.assign(inner(lists["report.json"]?.[0], "claims"), ["The student is better."]),
  ],
  ["the report's count", "report", (lists) => Object.assign(lists["report.json"]?.[0] ?? {}, { candidateCount: 9 })],
];

test.each(forgeries)("forged: %s", async (_name, check, change) => {
  const lists = evidenceLists();
  change(lists);
  const findings = await findingsOf(lists);
  expect(findings.map((one) => one.check)).toContain(check);
  for (const { member, message } of findings) expect(`${member} ${message}`).not.toContain("undefined");
});

test("a missing list, a line that is no JSON, and a file that is no bundle are refused by name", async () => {
  const { calls: _, ...without } = evidenceLists();
  await writeBundle(without, path);
  await expect(verify(path)).rejects.toMatchObject({
    code: 65,
    message: expect.stringContaining("calls-00000.jsonl: is missing"),
  });
  await writeFile(path, "no tar");
  await expect(verify(path)).rejects.toMatchObject({ code: 65, problem: { reason: "bundle_not_as_it_says" } });
  await expect(verify(join(folder, "none.tar"))).rejects.toMatchObject({ code: 66 });
});

test("any one of many random bytes changed is found", async () => {
  await writeBundle(evidenceLists(), path);
  const bytes = await readFile(path);
  // Every 61st byte: all kinds of places, the same ones each time.
  for (let at = 0; at < bytes.length; at += 61) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 0x20;
    await writeFile(path, changed);
    await expect(verify(path), `byte ${at}`).rejects.toMatchObject({ code: 65 });
  }
});
