import { connect } from "@tutelage/platform/grpc";
import { CampaignsServiceDefinition } from "@tutelage/proto/campaigns/v1/campaigns";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import type { ServiceName, Stack } from "@tutelage/standalone/stack";
import { type CampaignView, call, runTrial, type Trial } from "@tutelage/standalone/trial";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TeacherServer } from "../support/teacher-server.js";
import { labelOf, labels, task } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { type CampaignFixture, profiles, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;
let stack: Stack;
let teacher: TeacherServer;

beforeAll(async () => {
  // Two students train side by side, as they do by default.
  fixture = await startCampaignFixture({ environment: { TUTELAGE_STUDENTS: "2" } });
  ({ stack, teacher } = fixture);
}, slow);
afterAll(() => fixture?.stop(), slow);

let first: Trial;

test(
  "a campaign goes round, grows its data, and returns a student that is no worse than plain on dev",
  async () => {
    teacher.options = { labelOf };
    first = await fixture.trial("first", { seed: 1, arms: ["none_matched", "none_all"] });
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
    expect((one.verdicts as { checker: string }[])[0]?.checker).toBe("students");
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
      ["arms", "student-2"],
    ]);
    // Slow enough that a kill meets calls in flight; what is replied is the same.
    teacher.options = { labelOf, delayMs: 100 };
    const again = await runTrial(
      stack,
      {
        name: "again",
        rows,
        task,
        settings: { ...quick, seed: 1, arms: ["none_matched", "none_all"] },
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
    const { iterations, outcome } = await fixture.trial(
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
    const { iterations, outcome } = await fixture.trial("paper", settings);
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
    await expect(fixture.trial("rubbish", { seed: 5 })).rejects.toThrow(/replies of teacher "scripted" could be read/);
    expect(teacher.calls.length - before).toBeLessThanOrEqual(2 * 16 + 16);
  },
  slow,
);

test(
  "a refused key fails the campaign with that reason and no retry",
  async () => {
    const before = teacher.calls.length;
    teacher.options = { behave: () => ({ kind: "status", status: 401, body: '{"error":{"message":"bad key"}}' }) };
    await expect(fixture.trial("unauthorized", { seed: 6 })).rejects.toThrow(/key/i);
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
    const { iterations } = await fixture.trial("weather", { seed: 7, iterations: 1 });
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
    expect((await fixture.trial("after", { seed: 9, iterations: 1 })).campaign.run.status).toBe("succeeded");
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
