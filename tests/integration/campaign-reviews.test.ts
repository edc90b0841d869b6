/** Planted label flips in a whole campaign: students and teacher contradict them, somebody decides, the campaign goes on. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type CampaignView, type LabelledRow, startTrial } from "@tutelage/standalone/trial";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelOf, labels, task, words } from "../support/tinytask.js";
import { type CampaignFixture, profiles, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
let fixture: CampaignFixture;
const api = () => request(fixture.stack.url);

beforeAll(async () => {
  fixture = await startCampaignFixture();
  fixture.teacher.options = { labelOf };
}, slow);
afterAll(() => fixture?.stop(), slow);

interface Review {
  seed_row_id: string;
  kind: string;
  status: string;
  row: { input: string; output: string };
  evidence: { iteration: number; students: { answer: string }; teacher: { answer: string } }[];
  proposed_output: string;
  acted_iteration?: number;
  new_row_id: string;
}

/** A tenth of 40 training rows has the other label. */
const flipped = new Set([3, 12, 24, 35]);
const train: LabelledRow[] = Array.from({ length: 40 }, (_, index) => {
  const label = labels[index % 2] as (typeof labels)[number];
  const pick = (step: number) => words[label][(index * step + step) % words[label].length];
  const output = flipped.has(index) ? (labels[(index + 1) % 2] as string) : label;
  return { input: `train ${index} ${pick(1)} ${pick(3)} ${pick(5)} ?`, output, split: "train" };
});
const planted = [...train, ...rows.filter(({ split }) => split !== "train")];
const isFlip = ({ row }: Review) => labelOf(row.input) !== row.output;

const begin = (name: string, settings: object) =>
  startTrial(fixture.stack, {
    name,
    rows: planted,
    task,
    settings: { ...quick, folds: 4, seed: 41, ...settings },
    ...profiles,
  });
const reviewsOf = async (id: string, query = ""): Promise<Review[]> =>
  (await api().get(`/v1/campaigns/${id}/reviews${query}`).expect(200)).body.reviews;
const decide = (id: string, row: string, body: object) => api().post(`/v1/campaigns/${id}/reviews/${row}`).send(body);
const untilRestingFor = async (id: string, code: string): Promise<CampaignView> => {
  for (;;) {
    const now = await fixture.untilStatus(id, "paused", "failed", "succeeded");
    if (now.run.status !== "paused" || now.run.rest?.code === code) return now;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};
const tutelage = (...args: string[]) =>
  new Promise<string>((resolve, reject) => {
    const call = [join(root, "cli/bin/tutelage.mjs"), "--url", fixture.stack.url, ...args];
    execFile(process.execPath, call, (error, out, told) => (error ? reject(new Error(told)) : resolve(out)));
  });

test(
  "planted flips are listed, the campaign waits for every decision, and learns from what was decided",
  async () => {
    const id = await begin("waits", { seed_audit: "wait" });
    const resting = await untilRestingFor(id, "reviews_open");
    expect(resting.run.rest).toMatchObject({
      code: "reviews_open",
      message: expect.stringContaining("wait for a decision"),
    });
    expect(resting.phase).toBe("review");

    const reviews = await reviewsOf(id);
    const hits = reviews.filter(isFlip);
    const [precision, recall] = [hits.length / reviews.length, hits.length / flipped.size];
    console.log(
      `${flipped.size} of ${train.length} labels flipped: ${reviews.length} listed, precision ${precision.toFixed(2)}, recall ${recall.toFixed(2)}`,
    );
    expect(precision).toBeGreaterThanOrEqual(0.75);
    expect(recall).toBeGreaterThanOrEqual(0.75);
    for (const { kind, status, row, evidence, proposed_output } of hits) {
      expect({ kind, status, proposed_output }).toEqual({
        kind: "label",
        status: "open",
        proposed_output: labelOf(row.input),
      });
      expect(evidence).toMatchObject([
        { iteration: 0, students: { answer: proposed_output }, teacher: { answer: proposed_output } },
      ]);
    }
    // Nothing was ordered yet; the teacher's labels of seed rows serve the audit and the checks alike.
    const { totals } = (await api().get(`/v1/campaigns/${id}/ledger`).expect(200)).body;
    const purposes = new Map(totals.map((one: { purpose: string }) => [one.purpose, one]));
    expect([...purposes.keys()].sort()).toEqual(["audit", "check_record", "preflight_label", "preflight_write"]);
    expect(purposes.get("audit")).toMatchObject({ calls: 0, cost_micro_usd: 0 });
    expect((purposes.get("audit") as { reused_calls: number }).reused_calls).toBeGreaterThanOrEqual(reviews.length);

    // What cannot be is refused by its field.
    const [first, second, ...others] = hits as [Review, Review, ...Review[]];
    const refusals: [object, string, string][] = [
      [{}, "decision", "invalid_request"],
      [{ decision: "relabel", output: "NUMB" }, "output", "invalid_argument"],
      [{ decision: "relabel" }, "output", "invalid_argument"],
      [{ decision: "accept", reading: "strict" }, "reading", "invalid_argument"],
    ];
    for (const [body, field] of refusals) {
      const refused = (await decide(id, first.seed_row_id, body).expect(400)).body;
      expect(refused.errors, JSON.stringify(body)).toEqual([expect.objectContaining({ field })]);
    }
    await decide(id, "no-such-row", { decision: "accept" }).expect(404);

    // Paused by somebody it stays so; resumed it looks again, and waits on.
    await api().post(`/v1/campaigns/${id}/pause`).expect(200);
    await untilRestingFor(id, "paused");
    await decide(id, first.seed_row_id, {
      decision: "relabel",
      output: first.proposed_output,
      decided_by: "Ada",
    }).expect(200);
    await api().post(`/v1/campaigns/${id}/resume`).expect(200);
    await untilRestingFor(id, "reviews_open");

    expect(await tutelage("campaigns", "reviews", id, "--status", "open")).toContain(second.seed_row_id);
    const said = await tutelage("campaigns", "review", id, second.seed_row_id, "--decision", "exclude", "--by", "Ada");
    expect(said).toContain("excluded (not taken up yet)");
    for (const { seed_row_id, proposed_output } of others)
      await decide(id, seed_row_id, { decision: "relabel", output: proposed_output }).expect(200);
    for (const { seed_row_id } of reviews.filter((one) => !isFlip(one)))
      await decide(id, seed_row_id, { decision: "accept" }).expect(200);
    // Rows that a later iteration finds are accepted as they come.
    let ended = await fixture.untilStatus(id, "succeeded", "failed", "paused");
    while (ended.run.status === "paused") {
      for (const { seed_row_id } of await reviewsOf(id, "?status=open"))
        await decide(id, seed_row_id, { decision: "accept" }).expect(200);
      ended = await fixture.untilStatus(id, "succeeded", "failed", "paused");
    }
    expect(ended.run.status, JSON.stringify(ended.run.failure)).toBe("succeeded");

    const report = (await api().get(`/v1/campaigns/${id}/report`).expect(200)).body;
    const decided: Review[] = report.reviews;
    expect(decided.every(({ status, acted_iteration }) => status !== "open" && acted_iteration !== undefined)).toBe(
      true,
    );
    const [before, after] = report.iterations;
    const versionRows = (await api().get(`/v1/versions/${after.dataset_version_id}/rows?limit=1000`).expect(200)).body
      .rows;
    const relabelled = decided.filter(({ status }) => status === "relabelled");
    for (const { row, new_row_id, proposed_output } of relabelled) {
      const mended = versionRows.find((one: { id: string }) => one.id === new_row_id);
      expect(mended).toMatchObject({ input: row.input, output: proposed_output, origin: "seed", split: "train" });
      expect(mended.metadata.relabelled_from).toBe(decided.find((one) => one.new_row_id === new_row_id)?.seed_row_id);
    }
    // One row less, the relabelled ones in place of their old selves, and what was accepted.
    expect(after.train_rows).toBe(train.length - 1 + before.accepted);
    // Nothing was written from a row in doubt.
    const inDoubt = new Set(reviews.filter(isFlip).map((one) => one.seed_row_id));
    expect(report.candidates.some((one: { seed_row_id: string }) => inDoubt.has(one.seed_row_id))).toBe(false);
    const page = (await api().get(`/v1/campaigns/${id}/report.html`).expect(200)).text;
    expect(page).toContain("Seed rows in doubt");
    expect(page).toContain(`the gain holds what ${hits.length} corrected or excluded rows brought`);
    expect(await tutelage("report", id)).toContain("Seed rows in doubt");
    await decide(id, first.seed_row_id, { decision: "accept" }).expect(409);

    // A fork shares decisions that were taken up, and comes to the same rows without asking anybody again.
    const fork = (
      await api()
        .post(`/v1/campaigns/${id}/fork`)
        .send({ iteration: 1, settings: { seed_audit: "off" } })
        .expect(201)
    ).body;
    expect((await fixture.untilStatus(fork.run.id, "succeeded", "failed")).run.status).toBe("succeeded");
    const { iterations } = (await api().get(`/v1/campaigns/${fork.run.id}/iterations`).expect(200)).body;
    expect(iterations.map((one: { dataset_digest: string }) => one.dataset_digest)[1]).toBe(after.dataset_digest);
    expect(iterations[1].train_rows).toBe(after.train_rows);
    for (const gone of [fork.run.id, id]) {
      const removed = (await api().delete(`/v1/campaigns/${gone}`).expect(200)).body;
      expect(removed.removed?.reviews ?? removed.reviews).toBeGreaterThan(0);
    }
  },
  slow,
);

test(
  "without waiting, rows in doubt are neither varied nor shown to the teacher, and the campaign goes on",
  async () => {
    const before = fixture.teacher.calls.length;
    const id = await begin("aside", { seed_audit: "aside", iterations: 1 });
    expect((await fixture.untilStatus(id, "succeeded", "failed")).run.status).toBe("succeeded");
    const reviews = await reviewsOf(id, "?status=open");
    expect(reviews.length).toBeGreaterThanOrEqual(3);
    const ids = new Set(reviews.map(({ seed_row_id }) => seed_row_id));
    const { candidates } = (await api().get(`/v1/campaigns/${id}/candidates?limit=1000`).expect(200)).body;
    expect(candidates.length).toBeGreaterThan(0);
    expect(candidates.some((one: { seed_row_id: string }) => ids.has(one.seed_row_id))).toBe(false);
    const texts = reviews.map(({ row }) => row.input);
    const writes = fixture.teacher.calls.slice(before).filter((call) => call.wants === "write");
    // The pre-flight's come first, when nothing is in doubt yet.
    const later = writes.slice(16);
    expect(later.length).toBeGreaterThan(0);
    expect(later.some(({ prompt }) => texts.some((text) => prompt.includes(text)))).toBe(false);
    await decide(id, reviews[0]?.seed_row_id ?? "", { decision: "accept" }).expect(409);
  },
  slow,
);
