/** Caps of a campaign are walls: no call crosses them, retries included, and what was made until then is kept. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type CampaignFixture, labelOf, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;

beforeAll(async () => {
  fixture = await startCampaignFixture();
}, slow);
beforeEach(() => {
  fixture.teacher.options = { labelOf };
});
afterAll(() => fixture?.stop(), slow);

test(
  "a cap on calls holds though every third call fails and is made again, and the campaign keeps what it has",
  async () => {
    const { teacher } = fixture;
    teacher.options.behave = ({ number }) => (number % 3 === 0 ? { kind: "status", status: 500 } : undefined);
    // The pre-flight takes at least 24 of them (12 rows written, 12 labelled).
    const cap = 55;
    const before = teacher.calls.length;
    const { campaign, outcome, iterations } = await fixture.trial("calls", { seed: 11, max_teacher_calls: cap });
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
    const { campaign, outcome } = await fixture.trial("money", { seed: 12, max_cost_micro_usd: most });
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
