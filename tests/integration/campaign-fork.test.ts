/** A fork goes on from an iteration of another campaign: what is shared is the same, and is not paid again. */
import { type CampaignView, call } from "@tutelage/standalone/trial";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelOf } from "../support/tinytask.js";
import { type CampaignFixture, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  fixture.teacher.options = { labelOf };
}, slow);
afterAll(() => fixture?.stop(), slow);

interface Iteration {
  number: number;
  dataset_version_id: string;
  dataset_digest: string;
  training_run_id: string;
  accepted: number;
}

const get = <Reply>(path: string) => call<Reply>(fixture.stack, "GET", path);
const iterationsOf = async (id: string) =>
  (await get<{ iterations: Iteration[] }>(`/v1/campaigns/${id}/iterations`)).iterations;
const fork = (id: string, body: object) => call<CampaignView>(fixture.stack, "POST", `/v1/campaigns/${id}/fork`, body);

test(
  "a fork with the same settings comes to the same, without a call or a training for what is shared",
  async () => {
    const { teacher } = fixture;
    const parent = await fixture.begin("parent", { seed: 31, iterations: 2 });
    await expect(fork(parent, { iteration: 1 })).rejects.toThrow(
      "none of the campaign's iterations has added rows yet",
    );
    expect((await fixture.untilStatus(parent, "succeeded", "failed")).run.status).toBe("succeeded");
    const before = teacher.calls.length;
    const { run } = await fork(parent, { iteration: 1 });
    const ended = await fixture.untilStatus(run.id, "succeeded", "failed");
    expect(ended.run.status).toBe("succeeded");
    // The later replies are stored, too: the questions are the same.
    expect(teacher.calls.length).toBe(before);
    expect(ended.usage?.calls).toBe(0);
    expect(ended.forked_from).toMatchObject({ campaign_id: parent, iteration: 1 });
    expect(ended.forked_from?.shared_usage?.calls).toBeGreaterThan(0);
    expect(ended.forked_from?.shared_training_seconds).toBeGreaterThan(0);
    const [ofParent, ofFork] = [await iterationsOf(parent), await iterationsOf(run.id)];
    expect(ofFork.map((one) => one.dataset_digest)).toEqual(ofParent.map((one) => one.dataset_digest));
    // The shared student is the very same, later ones are the fork's own.
    expect(ofFork[0]).toEqual(ofParent[0]);
    expect(ofFork[1]?.training_run_id).not.toBe(ofParent[1]?.training_run_id);

    const page = await (await fetch(`${fixture.stack.url}/v1/campaigns/${run.id}/report.html`)).text();
    expect(page).toContain(`A fork of campaign ${parent} at iteration 1.`);

    // What others rest on is not deleted before them.
    const refused = await fetch(`${fixture.stack.url}/v1/campaigns/${parent}`, { method: "DELETE" });
    expect(await refused.json()).toMatchObject({ status: 409, reason: "campaign_has_forks" });
    for (const id of [run.id, parent]) {
      expect((await fetch(`${fixture.stack.url}/v1/campaigns/${id}`, { method: "DELETE" })).status).toBe(200);
    }
  },
  slow,
);

test(
  "a fork with other settings pays for its own iterations only, by its own caps",
  async () => {
    const { teacher } = fixture;
    const parent = await fixture.begin("narrow", { seed: 32, iterations: 1 });
    const first = await fixture.untilStatus(parent, "succeeded", "failed");
    const before = teacher.calls.length;
    const paid = first.usage?.calls ?? 0;
    // Less than the parent has paid: it does not count here.
    const key = { "idempotency-key": "fork-once" };
    const body = {
      iteration: 1,
      name: "wide",
      settings: { iterations: 2, rows_per_seed_row: 2, max_teacher_calls: paid },
    };
    const post = async () =>
      (await (
        await fetch(`${fixture.stack.url}/v1/campaigns/${parent}/fork`, {
          method: "POST",
          headers: { "content-type": "application/json", ...key },
          body: JSON.stringify(body),
        })
      ).json()) as CampaignView;
    const { run } = await post();
    expect((await post()).run.id).toBe(run.id);
    const ended = await fixture.untilStatus(run.id, "succeeded", "failed", "budget_exhausted");
    expect(teacher.calls.length - before).toBe(ended.usage?.calls);
    expect(ended.usage?.calls).toBeGreaterThan(0);
    expect(ended.usage?.calls).toBeLessThanOrEqual(paid);
    const [ofParent, ofFork] = [await iterationsOf(parent), await iterationsOf(run.id)];
    expect(ofFork[0]).toEqual(ofParent[0]);
    if (ended.run.status === "budget_exhausted") {
      await call(fixture.stack, "PATCH", `/v1/campaigns/${run.id}`, { max_teacher_calls: 0 });
      expect((await fixture.untilStatus(run.id, "succeeded", "failed")).run.status).toBe("succeeded");
    }
    expect((await iterationsOf(run.id)).map((one) => one.number)).toEqual([0, 1, 2]);
    const candidates = await get<{ candidates: { number: number; iteration: number }[] }>(
      `/v1/campaigns/${run.id}/candidates?limit=1000`,
    );
    const numbers = candidates.candidates.map(({ number }) => number);
    expect(numbers).toEqual(numbers.map((_, index) => index));
    expect(new Set(candidates.candidates.map(({ iteration }) => iteration))).toEqual(new Set([0, 1]));
  },
  slow,
);
