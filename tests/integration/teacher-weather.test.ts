/** A campaign and a teacher that goes away: it waits in its queue, says why, and goes on by itself. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelOf, task } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { type CampaignFixture, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
let fixture: CampaignFixture;
let datasetId: string;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  const { url } = fixture.stack;
  datasetId = (await request(url).post("/v1/datasets").send({ name: "weather" }).expect(201)).body.id;
  await request(url)
    .post(`/v1/datasets/${datasetId}/import?split_column=split`)
    .set("content-type", "application/x-ndjson")
    .send(rows.map((row) => JSON.stringify(row)).join("\n"))
    .expect((response) => expect(response.status).toBeLessThan(300));
}, slow);
afterAll(() => fixture?.stop(), slow);

const campaignOf = async (id: string) => (await request(fixture.stack.url).get(`/v1/campaigns/${id}`).expect(200)).body;
const startCampaign = async (settings: object): Promise<string> => {
  const body = {
    dataset: datasetId,
    task,
    settings: { ...quick, iterations: 1, ...settings },
    student_profile: "tiny",
    teacher_profile: "scripted",
  };
  return (await request(fixture.stack.url).post("/v1/campaigns").send(body).expect(201)).body.run.id;
};
const ended = async (id: string) => {
  await until(async () => ["succeeded", "failed"].includes((await campaignOf(id)).run.status), slow);
  return await campaignOf(id);
};

test(
  "a campaign waits for a teacher that is away, in its queue and with the reason, and goes on by itself",
  async () => {
    const { teacher, stack } = fixture;
    // The pre-flight passes; what comes after it is refused.
    const preflight = teacher.calls.length + 30;
    teacher.options = {
      labelOf,
      behave: ({ number }) => (number > preflight ? { kind: "status", status: 503 } : undefined),
    };
    const id = await startCampaign({ seed: 21 });
    await until(
      async () => (await campaignOf(id)).run.status === "queued" && (await campaignOf(id)).teacher_wait,
      slow,
    );
    const { teacher_wait: wait, run } = await campaignOf(id);
    expect(wait).toMatchObject({ profile: "scripted", code: "teacher_unavailable", since: expect.any(String) });
    expect(run.progress.message).toContain('waiting for teacher "scripted"');
    const weather = (await request(stack.url).get("/v1/profiles/teachers/scripted").expect(200)).body;
    expect(weather).toMatchObject({
      profile: { name: "scripted", fallback: "" },
      breaker: { code: "teacher_unavailable", reason: expect.stringContaining("503") },
      max_concurrency: 8,
    });
    expect(["open", "half_open"]).toContain(weather.breaker.state);
    expect(weather.senders[0].concurrency).toBeGreaterThan(0);
    teacher.options = { labelOf };
    const campaign = await ended(id);
    expect(campaign.run.status).toBe("succeeded");
    expect(campaign.teacher_wait).toBeUndefined();
    const { candidates } = (await request(stack.url).get(`/v1/campaigns/${id}/candidates`).expect(200)).body;
    expect(candidates.length).toBeGreaterThan(0);
    for (const one of candidates) {
      expect(one).toMatchObject({ teacher_profile: "scripted" });
      expect(one.rejection).not.toBe("provider_error");
    }
    const after = (await request(stack.url).get("/v1/profiles/teachers/scripted").expect(200)).body;
    expect(after.breaker).toMatchObject({ state: "closed", code: "", reason: "" });
    expect((await request(stack.url).get("/v1/profiles/teachers/nobody").expect(404)).body.status).toBe(404);
    const { text } = await request(stack.url).get(`/v1/campaigns/${id}/events`).buffer(true).timeout(slow);
    const types = [...text.matchAll(/^event: (.+)$/gm)].map(([, type]) => type);
    const [began, answered] = [types.indexOf("teacher.waiting"), types.indexOf("teacher.answered")];
    expect(began).toBeGreaterThan(0);
    expect(answered).toBe(began + 1);
  },
  slow,
);

test(
  "the same campaign again pays for nothing, unless it is told not to use what others paid for",
  async () => {
    const { teacher, stack } = fixture;
    teacher.options = { labelOf };
    const first = await ended(await startCampaign({ seed: 22 }));
    const sent = teacher.calls.length;
    const again = await ended(await startCampaign({ seed: 22 }));
    expect(teacher.calls.length).toBe(sent);
    // What the first asked twice, the pre-flight's labels say, it had for nothing itself.
    const saved = first.usage.cost_micro_usd + first.usage.saved_micro_usd;
    const reused = first.usage.calls + first.usage.reused_calls;
    expect(again.usage).toMatchObject({ calls: 0, cost_micro_usd: 0, saved_micro_usd: saved, reused_calls: reused });
    const ledger = (await request(stack.url).get(`/v1/campaigns/${again.run.id}/ledger`).expect(200)).body;
    const sum = ledger.totals.reduce((all: number, one: { saved_micro_usd: number }) => all + one.saved_micro_usd, 0);
    expect(sum).toBe(saved);
    const { text } = await request(stack.url).get(`/v1/campaigns/${again.run.id}/report.html`).expect(200);
    expect(text).toContain(`${reused} replies used again, which had cost $`);
    const fresh = await ended(await startCampaign({ seed: 22, reuse_replies: false }));
    expect(fresh.usage).toMatchObject({ calls: first.usage.calls, reused_calls: first.usage.reused_calls });
    expect(teacher.calls.length).toBe(sent + first.usage.calls);
  },
  slow,
);

test(
  "a campaign's patience is bounded by its setting: then it fails with the teacher's failure",
  async () => {
    const { teacher } = fixture;
    teacher.options = { labelOf, behave: () => ({ kind: "reset" }) };
    const campaign = await ended(await startCampaign({ seed: 23, teacher_patience_seconds: 2 }));
    expect(campaign.run).toMatchObject({ status: "failed", failure: { code: "teacher_unavailable" } });
    expect(campaign.run.failure.message).toMatch(/waited \d+ of at most 2 seconds/);
    expect(campaign.teacher_wait).toBeUndefined();
    const show = [main, "--url", fixture.stack.url, "profiles", "show", "scripted"];
    const shown = await promisify(execFile)(process.execPath, show);
    expect(shown.stdout).toMatch(/away since .*\n(being tried now|tried again at)/);
  },
  slow,
);
