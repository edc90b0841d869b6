/** What a user takes from a campaign: forecast, report, student, ledger, and all of it from the command line. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { mcnemar } from "@tutelage/platform/mcnemar";
import type { Stack } from "@tutelage/standalone/stack";
import { type CampaignView, call, type Trial } from "@tutelage/standalone/trial";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TeacherServer } from "../support/teacher-server.js";
import { labels, task } from "../support/tinytask.js";
import { type CampaignFixture, quick, rows, slow, startCampaignFixture, teacherKey } from "./campaign-fixture.js";

let first: Trial;
let fixture: CampaignFixture;
let stack: Stack;
let teacher: TeacherServer;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  ({ stack, teacher } = fixture);
  first = await fixture.trial("first", { seed: 1, arms: ["none_matched", "none_all"] });
}, slow);
afterAll(() => fixture?.stop(), slow);

test("an estimate resolves every default and forecasts from the campaign that ran, and starts nothing", async () => {
  const count = async () =>
    (await call<{ campaigns: object[] }>(stack, "GET", "/v1/campaigns?limit=1000")).campaigns.length;
  const before = [await count(), teacher.calls.length];
  const { request: resolved, forecasts } = await call<{
    request: { settings: { folds: number; seed: number }; dataset_version_id: string };
    forecasts: { name: string; low: number; likely: number; high: number; basis: string }[];
  }>(stack, "POST", "/v1/campaigns/estimate", {
    dataset: "first",
    task,
    settings: quick,
    student_profile: "tiny",
    teacher_profile: "scripted",
  });
  expect(resolved.settings).toMatchObject({ folds: 2, seed: 1 });
  expect(resolved.dataset_version_id).toMatch(/^[0-9a-f-]{36}$/);
  for (const { low, likely, high } of forecasts) expect(low <= likely && likely <= high).toBe(true);
  const found = (name: string) => forecasts.find((one) => one.name === name);
  const used = first.campaign.usage?.calls ?? 0;
  expect(found("teacher_calls")?.low).toBeLessThanOrEqual(used);
  expect(found("teacher_calls")?.high).toBeGreaterThanOrEqual(used);
  expect(found("wall_seconds")?.basis).toContain(first.campaign.run.id);
  expect([await count(), teacher.calls.length]).toEqual(before);
});

test("the report tells each seed row's way, the confusion before and after, and is one page", async () => {
  const path = `/v1/campaigns/${first.campaign.run.id}`;
  const report = await call<{
    seed_rows: {
      row: { id: string; output: string };
      grades: { iteration: number; correct: boolean }[];
      accepted: number;
    }[];
    candidate_count: number;
    baseline_metrics: { accuracy: { n: number } };
    final_metrics: { accuracy: { value: number }; confusion: { count: number }[] };
    loss_curves: { name: string; losses: number[] }[];
  }>(stack, "GET", `${path}/report`);
  const seeds = rows.filter((row) => row.split === "train").length;
  const mined = first.iterations.length - 1;
  expect(report.seed_rows).toHaveLength(seeds);
  for (const { grades } of report.seed_rows)
    expect(grades.map((one) => one.iteration)).toEqual([...Array(mined).keys()]);
  // What the iterations counted as errors are the wrong grades.
  for (const { number, errors } of first.iterations.slice(0, mined)) {
    const wrong = report.seed_rows.filter(({ grades }) => grades[number]?.correct === false);
    expect(wrong).toHaveLength(errors);
  }
  const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
  expect(sum(report.seed_rows.map((one) => one.accepted))).toBe(sum(first.iterations.map((one) => one.accepted)));
  expect(report.candidate_count).toBe(sum(first.iterations.map((one) => one.candidates)));
  expect(report.final_metrics.accuracy.value).toBe(first.outcome.final.test_accuracy?.value);
  expect(sum(report.final_metrics.confusion.map((cell) => cell.count))).toBe(report.baseline_metrics.accuracy.n);
  expect(report.loss_curves.map(({ name }) => name)).toContain("plain");

  const pages = await call<{ rows: object[]; next_cursor: string }>(stack, "GET", `${path}/seed-rows?limit=5`);
  expect(pages.rows).toHaveLength(5);
  const rest = `${path}/seed-rows?limit=1000&cursor=${encodeURIComponent(pages.next_cursor)}`;
  expect((await call<{ rows: object[] }>(stack, "GET", rest)).rows).toHaveLength(seeds - 5);

  const page = await request(stack.url).get(`${path}/report.html`).expect(200);
  expect(page.headers["content-type"]).toBe("text/html; charset=utf-8");
  expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
  expect(page.text).toContain(first.outcome.summary);
});

test("the report compares the student with every arm, and says what the test rows support", async () => {
  const path = `/v1/campaigns/${first.campaign.run.id}/report`;
  const report = await call<{
    comparisons: {
      arm: string;
      gain: { gain: number; n: number; only_final_right: number; only_baseline_right: number };
      mcnemar_p: number;
      holm_p: number;
      detectable_gain: number;
    }[];
    claims: string[];
  }>(stack, "GET", path);
  const { correct, outcome } = first;
  expect(report.comparisons.map(({ arm }) => arm)).toEqual(["plain", ...outcome.other_arms.map(({ name }) => name)]);
  expect(report.comparisons[0]?.gain).toEqual(outcome.gain);
  for (const { arm, gain, mcnemar_p, holm_p, detectable_gain } of report.comparisons) {
    const differs = (ours: boolean) =>
      correct.campaign?.filter((one, row) => one === ours && correct[arm]?.[row] === !ours).length;
    expect(gain).toMatchObject({ only_final_right: differs(true), only_baseline_right: differs(false) });
    expect(mcnemar_p).toBe(mcnemar(gain.only_final_right, gain.only_baseline_right));
    expect(holm_p).toBeGreaterThanOrEqual(mcnemar_p);
    expect(detectable_gain).toBeGreaterThan(0);
  }
  // One a comparison, and what one campaign cannot say.
  expect(report.claims).toHaveLength(report.comparisons.length + 1);
  const page = await request(stack.url).get(`${path}.html`).expect(200);
  expect(page.text).toContain("What the test rows support");
  expect(page.text).toContain("Not tested: other seed rows");
});

test("the student can be asked", async () => {
  const reply = await request(stack.url)
    .post(`/v1/campaigns/${first.campaign.run.id}/predict`)
    .send({ inputs: ["how many legs ?", "which city ?"] });
  expect(reply.status).toBe(200);
  expect(reply.body.predictions).toHaveLength(2);
  for (const one of reply.body.predictions) expect(labels).toContain(one.text);
});

test("the ledger holds every call with its prompt and raw reply, and the key is nowhere but in the request", async () => {
  expect(new Set(teacher.calls.map((one) => one.authorization))).toEqual(new Set([`Bearer ${teacherKey}`]));
  const client = new pg.Client({ connectionString: stack.databaseUrl });
  await client.connect();
  try {
    const { rows: calls } = await client.query(
      "select status, prompt, raw_reply, prompt_tokens::int as tokens, cost_micro_usd::int as cost from teacher.calls",
    );
    expect(calls.length).toBeGreaterThanOrEqual(first.campaign.usage?.calls ?? 0);
    for (const call of calls) expect(JSON.parse(call.prompt)).not.toHaveLength(0);
    const answered = calls.filter((call) => call.status === "answered");
    expect(answered.length).toBeGreaterThan(20);
    for (const call of answered) {
      expect(call.raw_reply.length).toBeGreaterThan(0);
      expect(call.tokens).toBeGreaterThan(0);
      expect(call.cost).toBeGreaterThan(0);
    }
    const tables = ["teacher.calls", "teacher.results", "teacher.runs", "campaigns.runs", "campaigns.events"];
    const stored = await Promise.all(tables.map((table) => client.query(`select to_jsonb(t) from ${table} t`)));
    expect(JSON.stringify(stored.map((one) => one.rows))).not.toContain(teacherKey);
  } finally {
    await client.end();
  }
  for (const name of await readdir(stack.logDirectory)) {
    const log = await readFile(join(stack.logDirectory, name), "utf8");
    expect(log, name).not.toContain(teacherKey);
    // Nor any row's text.
    expect(log, name).not.toContain("train 0");
  }
});

test(
  "the command line goes from a data file to a report, and the same files find the same campaign",
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "tutelage-cli-"));
    const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
    const tutelage = async (...args: string[]) => {
      const child = promisify(execFile)(process.execPath, [main, "--url", stack.url, ...args], { cwd: folder });
      return await child.then(
        ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
        ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
      );
    };
    try {
      const seeds = rows.filter((row) => row.split === "train");
      const csv = seeds.map(({ input, output }) => `"${input}",${output}\n`);
      await writeFile(join(folder, "data.csv"), `question,class\n${csv.join("")}broken\n`);
      const made = await tutelage("init", "data.csv");
      expect(made.stdout).toContain("question → class");
      expect((await tutelage("init", "data.csv")).code).toBe(64);
      const file = join(folder, "campaign.yaml");
      const text = (await readFile(file, "utf8"))
        .replace("student: smollm2-135m", "student: tiny")
        .replace("teacher: gemma3-270m", "teacher: scripted")
        .replace(/prompt_template: .*/, `prompt_template: ${JSON.stringify(task.prompt_template)}`)
        .replace(/settings:[\s\S]*/, `settings: ${JSON.stringify({ ...quick, iterations: 1, preflight: "off" })}\n`);
      await writeFile(file, text);

      const estimate = await tutelage("estimate", "campaign.yaml");
      expect(estimate.stderr).toMatch(/data\.csv:\d+: /);
      expect(estimate.stdout).toContain("teacher_calls");
      const ran = await tutelage("run", "campaign.yaml", "--json");
      expect(ran.code, ran.stderr).toBe(0);
      const { run, iterations } = JSON.parse(ran.stdout) as CampaignView & { iterations: object[] };
      expect(run.status).toBe("succeeded");
      expect(iterations).toHaveLength(2);
      expect(ran.stderr).toContain("iteration 0: ");
      const again = await tutelage("run", "campaign.yaml", "--detach");
      expect(again.stdout.trim()).toBe(run.id);

      expect((await tutelage("report", run.id)).stdout).toContain("What to try next");
      expect((await tutelage("report", run.id, "--out", "report.html")).code).toBe(0);
      expect(await readFile(join(folder, "report.html"), "utf8")).toContain("<!doctype html>");
      const page = await tutelage("report", run.id, "--out", "again.html", "--json");
      const pageBytes = (await readFile(join(folder, "again.html"))).byteLength;
      expect(JSON.parse(page.stdout)).toEqual({ out: "again.html", size_bytes: pageBytes });
      expect((await tutelage("export", run.id, "--dataset")).code).toBe(0);
      const taken = await tutelage("export", run.id, "--dataset", "--out", "again.jsonl", "--json");
      const rowBytes = (await readFile(join(folder, "again.jsonl"))).byteLength;
      expect(JSON.parse(taken.stdout)).toMatchObject({ out: "again.jsonl", size_bytes: rowBytes });
      expect((await readFile(join(folder, "rows.jsonl"), "utf8")).trim().split("\n").length).toBeGreaterThanOrEqual(
        seeds.length,
      );
      expect((await tutelage("predict", run.id, "how many legs ?")).stdout).toContain("how many legs ?");
      expect((await tutelage("campaigns", "list")).stdout).toContain(run.id);
      expect((await tutelage("datasets", "list", "--json")).stdout).toContain('"name":"data-');
      expect(JSON.parse((await tutelage("schema")).stdout).required).toContain("task");

      expect((await tutelage("campaigns", "get", "none")).code).toBe(65);
      expect((await tutelage("run", "nothing.yaml")).code).toBe(66);
      expect((await tutelage("fly")).code).toBe(64);
      const away = await tutelage("--url", "http://127.0.0.1:9", "profiles");
      expect([away.code, away.stderr]).toEqual([69, expect.stringContaining("tutelage up")]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
  slow,
);
