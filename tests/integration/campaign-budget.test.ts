/** Caps of a campaign and of its project's month are walls: nothing crosses them, and what was made until then is kept. */
import { type CampaignView, call } from "@tutelage/standalone/trial";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { labelOf } from "../support/tinytask.js";
import { type CampaignFixture, longRecipe, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;

beforeAll(async () => {
  fixture = await startCampaignFixture();
}, slow);
beforeEach(() => {
  fixture.teacher.options = { labelOf };
});
afterAll(() => fixture?.stop(), slow);

test(
  "a cap on calls holds though every third call fails and is made again, and the campaign ends with what it has",
  async () => {
    const { teacher } = fixture;
    teacher.options.behave = ({ number }) => (number % 3 === 0 ? { kind: "status", status: 500 } : undefined);
    // The pre-flight takes at least 24 of them (12 rows written, 12 labelled).
    const cap = 55;
    const before = teacher.calls.length;
    const { campaign, outcome, iterations } = await fixture.trial("calls", {
      seed: 11,
      max_teacher_calls: cap,
      finish_at_budget: true,
    });
    expect(teacher.calls.length - before).toBeLessThanOrEqual(cap);
    expect(campaign.usage?.calls).toBe(teacher.calls.length - before);
    expect(outcome.stop_reason).toBe("budget");
    expect(campaign.run.status).toBe("succeeded");
    expect(iterations[0]?.candidates).toBeGreaterThan(0);
    expect(outcome.final.test_accuracy?.n).toBe(20);
  },
  slow,
);

test(
  "a cap on money that ends within the pre-flight stops the campaign for that reason and no other",
  async () => {
    const { teacher } = fixture;
    const before = teacher.calls.length;
    const most = 9_000;
    const { campaign, outcome } = await fixture.trial("money", {
      seed: 12,
      max_cost_micro_usd: most,
      finish_at_budget: true,
    });
    const sent = teacher.calls.slice(before);
    expect(sent.length).toBeGreaterThan(0);
    // The scripted server's own usage: a token for four characters, and a reply of at most 60 tokens.
    const least = sent.reduce((sum, { prompt }) => sum + Math.ceil(prompt.length / 4), 0);
    expect(least).toBeLessThan(campaign.usage?.cost_micro_usd ?? 0);
    expect(campaign.usage?.cost_micro_usd).toBeLessThanOrEqual(most);
    expect(outcome.stop_reason).toBe("budget");
  },
  slow,
);

interface Event {
  type: string;
  payload: { scope?: string; name?: string; percent?: number };
}

/** The events of a campaign that has ended. */
async function events(id: string): Promise<Event[]> {
  const text = await (await fetch(`${fixture.stack.url}/v1/campaigns/${id}/events`)).text();
  return [...text.matchAll(/^event: (\S+)\ndata: (.*)$/gm)].map(([, type, data]) => ({
    type: type ?? "",
    payload: JSON.parse(data ?? "{}").payload ?? {},
  }));
}
const marksOf = (told: Event[], scope: string, name: string) =>
  told
    .filter(({ type, payload }) => type === "budget.threshold" && payload.scope === scope && payload.name === name)
    .map(({ payload }) => payload.percent);
const patch = (path: string, body: object) => call<CampaignView>(fixture.stack, "PATCH", path, body);
const digestsOf = async (id: string) =>
  (
    await call<{ iterations: { dataset_digest: string }[] }>(fixture.stack, "GET", `/v1/campaigns/${id}/iterations`)
  ).iterations.map((one) => one.dataset_digest);

test(
  "at its cap a campaign stops whole and says what is missing; raised, it goes on to where it would have come without",
  async () => {
    const { teacher } = fixture;
    const before = teacher.calls.length;
    // The pre-flight alone takes 24.
    const cap = 20;
    const id = await fixture.begin("stopped", { seed: 13, max_teacher_calls: cap });
    const stopped = await fixture.untilStatus(id, "budget_exhausted", "succeeded", "failed");
    expect(stopped.run).toMatchObject({ status: "budget_exhausted", rest: { code: "campaign_budget" } });
    expect(stopped.run.rest?.message).toContain("raise max_teacher_calls by about");
    expect(teacher.calls.length - before).toBe(cap);
    expect(stopped.shortfalls).toHaveLength(1);
    expect(stopped.shortfalls[0]).toMatchObject({ name: "teacher_calls", scope: "campaign", used: cap, cap });
    expect(stopped.shortfalls[0]?.missing?.likely).toBeGreaterThan(0);
    // Other changes do not let it go on, and neither does a look without more to spend.
    await patch(`/v1/campaigns/${id}`, { note: "waits" });
    expect((await fixture.untilStatus(id, "budget_exhausted")).run.status).toBe("budget_exhausted");
    expect(teacher.calls.length - before).toBe(cap);

    await patch(`/v1/campaigns/${id}`, { max_teacher_calls: 0 });
    const ended = await fixture.untilStatus(id, "succeeded", "failed");
    expect(ended.run.status).toBe("succeeded");
    expect(ended.usage?.calls).toBe(teacher.calls.length - before);
    expect(ended.shortfalls).toEqual([]);
    const told = await events(id);
    expect(marksOf(told, "campaign", "teacher_calls")).toEqual([50, 80, 95]);
    expect(told.filter(({ type }) => type === "campaign.budget_exhausted")).toHaveLength(1);

    // Asked the same with all the money in the world: the replies are stored, the dataset is the same.
    const rich = await fixture.begin("rich", { seed: 13 });
    expect((await fixture.untilStatus(rich, "succeeded", "failed")).run.status).toBe("succeeded");
    expect(await digestsOf(id)).toEqual(await digestsOf(rich));
  },
  slow,
);

test(
  "the project's month is a wall for its campaigns; a higher cap lets those go on that it stopped",
  async () => {
    const { stack, teacher } = fixture;
    const { lines } = await call<MonthBudget>(stack, "GET", "/v1/allowance");
    const used = lines.find(({ name }) => name === "teacher_calls")?.used ?? 0;
    expect(used).toBeGreaterThan(0);
    const before = teacher.calls.length;
    const cap = used + 30;
    expect((await patchBudget({ teacher_calls: cap })).lines).toContainEqual({ name: "teacher_calls", used, cap });
    const id = await fixture.begin("month", { seed: 14 });
    const stopped = await fixture.untilStatus(id, "budget_exhausted", "succeeded", "failed");
    expect(stopped.run.rest).toMatchObject({ code: "project_budget", until: expect.stringMatching(/-01T00:00:00/) });
    expect(teacher.calls.length - before).toBe(30);
    expect(stopped.shortfalls[0]).toMatchObject({ name: "teacher_calls", scope: "project", used: cap, cap });

    await patchBudget({ teacher_calls: 0 });
    expect((await fixture.untilStatus(id, "succeeded", "failed")).run.status).toBe("succeeded");
    const told = marksOf(await events(id), "project", "teacher_calls");
    expect(told.at(-1)).toBe(95);
    expect(new Set(told).size).toBe(told.length);
  },
  slow,
);

test(
  "training stops before it crosses its cap of seconds, frees the student, and goes on when that is raised",
  async () => {
    const settings = { seed: 15, preflight: false, recipe: longRecipe, max_training_seconds: 2 };
    const id = await fixture.begin("seconds", settings);
    const stopped = await fixture.untilStatus(id, "budget_exhausted", "failed");
    expect(stopped.run.rest?.code).toBe("campaign_budget");
    const seconds = stopped.shortfalls[0];
    expect(seconds).toMatchObject({ name: "training_seconds", cap: 2 });
    expect(seconds?.used).toBeGreaterThan(1.5);
    // A step of this student takes a hundredth of a second; the machine may be busy.
    expect(seconds?.used).toBeLessThan(3);
    await patch(`/v1/campaigns/${id}`, { max_training_seconds: 3 });
    await fixture.untilStatus(id, "running", "queued");
    const again = await fixture.untilStatus(id, "budget_exhausted", "failed");
    expect(again.shortfalls[0]?.used).toBeGreaterThan(2.5);
    await call(fixture.stack, "POST", `/v1/campaigns/${id}/cancel`);
    await fixture.untilStatus(id, "cancelled");
  },
  slow,
);

interface MonthBudget {
  month: string;
  lines: { name: string; used: number; cap: number }[];
}
const patchBudget = (body: object) => call<MonthBudget>(fixture.stack, "PATCH", "/v1/allowance", body);
