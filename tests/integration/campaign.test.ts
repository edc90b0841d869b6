/**
 * Whole campaigns through the public doors: every service as a process of its
 * own, a real Postgres, a real two-layer student, a teacher server that speaks
 * OpenAI's protocol.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { connect } from "@tutelage/platform/grpc";
import { CampaignsServiceDefinition } from "@tutelage/proto/campaigns/v1/campaigns";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import { type ServiceName, type Stack, startStack } from "@tutelage/standalone/stack";
import { type CampaignView, call, type LabelledRow, runTrial, type Trial } from "@tutelage/standalone/trial";
import pg from "pg";
import request from "supertest";
import { extract } from "tar-stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../support/database.js";
import { writeTinyModel } from "../support/realstudent.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { until } from "../support/waiting.js";

const slow = 240_000;
const teacherKey = "canary-of-the-teachers-key";
let home: string;
let stack: Stack;
let teacher: TeacherServer;

/** Colours and numbers: a closed vocabulary, so that a two-layer student can learn it in seconds. */
const words = {
  NUM: ["four", "seven", "count", "many", "legs", "number", "times", "sum"],
  LOC: ["city", "river", "tower", "north", "street", "land", "hill", "coast"],
};
const labels = Object.keys(words) as (keyof typeof words)[];
const labelOf = (text: string) =>
  labels.reduce((best, label) => (hits(text, label) > hits(text, best) ? label : best), "NUM" as keyof typeof words);
const hits = (text: string, label: keyof typeof words) => words[label].filter((word) => text.includes(word)).length;

function rowsOf(perLabel: number, split: LabelledRow["split"], offset: number): LabelledRow[] {
  return labels.flatMap((label) =>
    Array.from({ length: perLabel }, (_, index) => {
      const pick = (step: number) => words[label][(index * step + offset + step) % words[label].length];
      return { input: `${split} ${offset + index} ${pick(1)} ${pick(3)} ${pick(5)} ?`, output: label, split };
    }),
  );
}
const rows = [...rowsOf(6, "train", 0), ...rowsOf(6, "dev", 100), ...rowsOf(10, "test", 200)];

const task = {
  name: "tiny",
  kind: "classification",
  prompt_template: "Question: {input}\nClass:",
  labels: [
    { name: "NUM", description: "questions that ask for a number" },
    { name: "LOC", description: "questions that ask for a place" },
  ],
  grader: "label",
  row_noun: "questions",
};
const quick = { iterations: 2, folds: 2, rows_per_seed_row: 1, attempts_per_row: 1 };
const profiles = { studentProfile: "tiny", teacherProfile: "scripted" };

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-campaign-"));
  teacher = await startTeacherServer({ labelOf });
  const model = await writeTinyModel(join(home, "tiny"));
  await mkdir(join(home, "profiles"));
  await writeFile(
    join(home, "profiles/students.yaml"),
    `profiles:
  tiny:
    description: Two random layers.
    model: ${model}
    recipe: { method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 4, min_steps: 20,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }
`,
  );
  await writeFile(
    join(home, "profiles/teachers.yaml"),
    `profiles:
  - name: scripted
    provider: openai-compatible
    description: The test's own server.
    model: test-model
    base_url: ${teacher.url}
    api_key: env:SCRIPTED_TEACHER_KEY
    api: chat
    prompt_form: chat
    max_retries: 1
    prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }
`,
  );
  stack = await startStack({
    home,
    httpPort: 0,
    databaseUrl: await testDatabaseUrl(),
    environment: {
      STUDENT_PROFILES: join(home, "profiles/students.yaml"),
      TEACHER_PROFILES: join(home, "profiles/teachers.yaml"),
      STUDENT_THREADS: "1",
      SCRIPTED_TEACHER_KEY: teacherKey,
      LOG_LEVEL: "warn",
    },
  });
}, slow);

afterAll(async () => {
  await stack?.stop();
  await teacher?.stop();
  await rm(home, { recursive: true, force: true });
}, slow);

async function trial(name: string, settings: object, use: LabelledRow[] = rows): Promise<Trial> {
  return await runTrial(stack, { name, rows: use, task, settings: { ...quick, ...settings }, ...profiles }, () => {});
}

let first: Trial;

test(
  "a campaign goes round, grows its data, and returns a student that is no worse than plain on dev",
  async () => {
    teacher.options = { labelOf };
    first = await trial("first", { seed: 1, none_all_arm: "on", matched_arm: "on" });
    const { outcome, iterations, campaign } = first;
    expect(campaign.run.status).toBe("succeeded");
    expect(iterations.map((one) => one.number)).toEqual([0, 1, 2]);
    expect(iterations[0]?.train_rows).toBe(12);
    expect(iterations[1]?.train_rows).toBe(12 + (iterations[0]?.accepted ?? 0));
    expect(iterations[0]?.accepted).toBeGreaterThan(0);
    expect(iterations[0]?.candidates).toBe(
      (iterations[0]?.accepted ?? 0) + Object.values(iterations[0]?.rejected ?? {}).reduce((a, b) => a + b, 0),
    );
    expect(outcome.final.test_accuracy?.n).toBe(20);
    expect(outcome.gain?.n).toBe(20);
    expect(outcome.other_arms.map((arm) => [arm.name, arm.train_rows])).toEqual([
      ["none_matched", 12],
      ["none_all", 24],
    ]);
    expect(outcome.baseline.tries_test_accuracy).toHaveLength(3);
    expect(campaign.usage?.calls).toBe(teacher.calls.length);
    expect(campaign.usage?.cost_micro_usd).toBeGreaterThan(0);
  },
  slow,
);

test("no teacher prompt ever holds a dev or test row", () => {
  expect(teacher.calls.length).toBeGreaterThan(20);
  for (const { prompt } of teacher.calls) expect(prompt).not.toMatch(/\b(dev|test) \d+ /);
});

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

test("every accepted candidate can be traced from its seed row to the reply that it came from", async () => {
  const { id } = first.campaign.run;
  const { candidates } = await call<{ candidates: Record<string, unknown>[] }>(
    stack,
    "GET",
    `/v1/campaigns/${id}/candidates?limit=1000`,
  );
  const accepted = candidates.filter((one) => one.accepted);
  expect(accepted.length).toBe(first.iterations.reduce((sum, one) => sum + one.accepted, 0));
  for (const one of accepted) {
    expect(one.call_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(one.verdicts).toHaveLength(2);
  }
  const datasets = connect(DatasetsServiceDefinition, stack.addresses.datasets);
  const campaigns = connect(CampaignsServiceDefinition, stack.addresses.campaigns);
  try {
    const { iterations } = await campaigns.listIterations({ projectId: "default", id });
    const versionId = iterations.at(-1)?.datasetVersionId ?? "";
    const page = await datasets.listRows({ projectId: "default", versionId, pageSize: 1000 });
    const synthetic = page.rows.filter((row) => row.origin.endsWith("SYNTHETIC"));
    const ids = new Set(page.rows.map((row) => row.id));
    expect(synthetic.length).toBe(accepted.length);
    for (const row of synthetic) expect(ids.has(row.rootRowId)).toBe(true);
    expect(new Map(synthetic.map((row) => [row.id, row.input]))).toEqual(
      new Map(accepted.map((one) => [one.row_id, one.input])),
    );
  } finally {
    datasets.close();
    campaigns.close();
  }
});

test(
  "the same inputs and teacher replies give the same dataset digests, also when the services are killed midway",
  async () => {
    const digests = async (id: string) => {
      const { iterations } = await call<{ iterations: { dataset_digest: string }[] }>(
        stack,
        "GET",
        `/v1/campaigns/${id}/iterations`,
      );
      return iterations.map((one) => one.dataset_digest);
    };
    const alive = new Map<string, ServiceName>([
      ["cross_fit", "campaigns"],
      ["train", "training"],
      ["generate", "teacher"],
      ["judge", "evaluation"],
      ["plain", "student"],
    ]);
    // Slow enough that a kill meets calls in flight; what is replied is the same.
    teacher.options = { labelOf, delayMs: 100 };
    const again = await runTrial(
      stack,
      {
        name: "again",
        rows,
        task,
        settings: { ...quick, seed: 1, none_all_arm: "on", matched_arm: "on" },
        ...profiles,
      },
      ({ phase }) => {
        const victim = alive.get(phase);
        const pid = victim === undefined ? undefined : stack.pidOf(victim);
        if (pid === undefined) return;
        process.kill(pid, "SIGKILL");
        alive.delete(phase);
      },
      50,
    );
    expect([...alive.keys()]).toEqual([]);
    expect(again.campaign.run.status).toBe("succeeded");
    expect(await digests(again.campaign.run.id)).toEqual(await digests(first.campaign.run.id));
    expect(again.outcome.final.test_accuracy?.value).toBe(first.outcome.final.test_accuracy?.value);
  },
  slow,
);

test(
  "a campaign without dev rows chooses by cross-fitting",
  async () => {
    const { iterations, outcome } = await trial(
      "no-dev",
      { seed: 3, iterations: 1 },
      rows.filter((row) => row.split !== "dev"),
    );
    for (const one of iterations) {
      expect(one.dev_accuracy).toBeUndefined();
      expect(one.cross_fit_accuracy?.n).toBe(12);
    }
    expect(outcome.final.test_accuracy?.n).toBe(20);
  },
  slow,
);

test(
  "the paper's schedule runs: in-sample errors, one new row for each, no label check",
  async () => {
    const settings = {
      seed: 4,
      mining: "in_sample",
      selection: "errors_only",
      check_students: "off",
      check_teacher: "off",
      iterations: 1,
    };
    const { iterations, outcome } = await trial("paper", settings);
    const [zero] = iterations;
    expect(zero?.cross_fit_accuracy).toBeUndefined();
    if (zero !== undefined && zero.errors > 0) expect(zero.candidates).toBeLessThanOrEqual(zero.errors);
    else expect(outcome.stop_reason).toBe("no_errors");
  },
  slow,
);

test(
  "a teacher that answers rubbish is stopped by the pre-flight, with the reason, before it costs more",
  async () => {
    const before = teacher.calls.length;
    teacher.options = { behave: () => ({ kind: "reply", text: "As a large language model I like turtles." }) };
    await expect(trial("rubbish", { seed: 5 })).rejects.toThrow(/replies of teacher "scripted" could be read/);
    expect(teacher.calls.length - before).toBeLessThanOrEqual(2 * 16 + 16);
  },
  slow,
);

test(
  "a refused key fails the campaign with that reason and no retry",
  async () => {
    const before = teacher.calls.length;
    teacher.options = { behave: () => ({ kind: "status", status: 401, body: '{"error":{"message":"bad key"}}' }) };
    await expect(trial("unauthorized", { seed: 6 })).rejects.toThrow(/key/i);
    expect(teacher.calls.length - before).toBeLessThanOrEqual(16);
  },
  slow,
);

test(
  "a teacher that fails now and then loses nothing",
  async () => {
    const hurt = ["html", "half-json", "empty-body", "reset"] as const;
    teacher.options = {
      labelOf,
      behave: ({ number, time }) => {
        if (time > 1 || number % 3 > 0) return undefined;
        const kind = hurt[Math.floor(number / 3) % hurt.length];
        return kind === undefined ? undefined : { kind };
      },
    };
    const { iterations } = await trial("weather", { seed: 7, iterations: 1 });
    expect(iterations[0]?.accepted).toBeGreaterThan(0);
  },
  slow,
);

test(
  "cancelling stops the campaign and frees the student",
  async () => {
    teacher.options = { labelOf };
    const dataset = await call<{ id: string }>(stack, "POST", "/v1/datasets", { name: "cancelled" });
    await request(stack.url)
      .post(`/v1/datasets/${dataset.id}/import?split_column=split`)
      .set("content-type", "application/x-ndjson")
      .send(rows.map((row) => JSON.stringify(row)).join("\n"))
      .expect((response) => expect(response.status).toBeLessThan(300));
    const start = () =>
      request(stack.url)
        .post("/v1/campaigns")
        .set("idempotency-key", "cancel-me")
        .send({
          dataset: dataset.id,
          task,
          settings: { ...quick, seed: 8, iterations: 5 },
          student_profile: "tiny",
          teacher_profile: "scripted",
        });
    const { id } = (await start()).body.run;
    const view = () => call<CampaignView>(stack, "GET", `/v1/campaigns/${id}`);
    await until(async () => (await view()).phase === "cross_fit", 60_000);
    await request(stack.url).post(`/v1/campaigns/${id}/cancel`).set("content-type", "application/json").send({});
    await until(async () => (await view()).run.status === "cancelled", 20_000);
    const events = await request(stack.url).get(`/v1/campaigns/${id}/events`).buffer(true);
    expect(events.text).toContain("event: campaign.cancelled");
    // The same request is the same campaign, although "dataset" has a newer version by now.
    await request(stack.url)
      .post(`/v1/datasets/${dataset.id}/import`)
      .set("content-type", "application/x-ndjson")
      .send(JSON.stringify({ input: "how many wings ?", output: labels[0] }))
      .expect((response) => expect(response.status).toBeLessThan(300));
    expect((await start()).body.run.id).toBe(id);
    // The slot is free again: a new campaign gets on with its work.
    expect((await trial("after", { seed: 9, iterations: 1 })).campaign.run.status).toBe("succeeded");
  },
  slow,
);

test("the student can be downloaded and asked", async () => {
  const { id } = first.campaign.run;
  const reply = await request(stack.url)
    .post(`/v1/campaigns/${id}/predict`)
    .send({ inputs: ["how many legs ?", "which city ?"] });
  expect(reply.status).toBe(200);
  expect(reply.body.predictions).toHaveLength(2);
  for (const one of reply.body.predictions) expect(labels).toContain(one.text);
  const archive = await request(stack.url)
    .get(`/v1/campaigns/${id}/model`)
    .buffer(true)
    .parse((response, done) => {
      const names: string[] = [];
      const tar = extract();
      tar.on("entry", (header, stream, next) => {
        names.push(header.name);
        stream.on("end", next).resume();
      });
      tar.on("finish", () => done(null, names));
      response.pipe(tar as unknown as NodeJS.WritableStream);
    });
  expect(archive.body.some((name: string) => name.endsWith("adapter_model.safetensors"))).toBe(true);
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
      expect((await tutelage("export", run.id, "--dataset")).code).toBe(0);
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

test("an unknown label, profile or setting is refused with the field and the fix", async () => {
  const dataset = await call<{ id: string }>(stack, "GET", "/v1/datasets/first");
  const start = (body: object) =>
    request(stack.url)
      .post("/v1/campaigns")
      .send({ dataset: dataset.id, task, student_profile: "tiny", teacher_profile: "scripted", ...body });
  const empty = await call<{ id: string }>(stack, "POST", "/v1/datasets", { name: "nothing-in-it" });
  const cases: [object, RegExp][] = [
    [{ dataset: empty.id }, /"nothing-in-it" has no rows yet; import some first/],
    [{ task: { ...task, labels: [task.labels[0], { name: "HUM", description: "" }] } }, /does not name "LOC"/],
    [{ student_profile: "giant" }, /no profile "giant".*tiny/],
    [{ teacher_profile: "oracle" }, /no profile "oracle".*scripted/],
    [{ settings: { iterations: 99 } }, /iterations/],
    [{ task: { ...task, prompt_template: "Question:" } }, /\{input\}/],
  ];
  for (const [body, message] of cases) {
    const reply = await start(body);
    expect(reply.status, JSON.stringify(body)).toBe(400);
    expect(reply.headers["content-type"]).toContain("application/problem+json");
    expect(`${reply.body.detail} ${JSON.stringify(reply.body.errors)}`).toMatch(message);
  }
});
