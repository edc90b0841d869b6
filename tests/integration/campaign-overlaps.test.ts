/** Train rows and teacher replies that say dev and test rows again, in whole campaigns. */
import { type CampaignView, call, type LabelledRow } from "@tutelage/standalone/trial";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelOf, task } from "../support/tinytask.js";
import { type CampaignFixture, profiles, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;

beforeAll(async () => {
  fixture = await startCampaignFixture();
}, slow);
afterAll(() => fixture?.stop(), slow);

const tested: LabelledRow = {
  input: "how many legs has the brown spider of Zanbar",
  output: "NUM",
  split: "test",
};
/** A text that is there twice but for its signs, and one that stands in a longer one. */
const contaminated: LabelledRow[] = [
  ...rows,
  tested,
  { input: "How many legs has the brown spider of Zanbar?", output: "NUM", split: "train" },
  { input: "tell me how many legs has the brown spider of Zanbar now", output: "NUM", split: "train" },
];

interface Report {
  split_overlaps: {
    counts: object[];
    overlaps: { row_id: string; overlap: { row_id: string } }[];
    dropped_rows: number;
  };
  iterations: { train_rows: number; overlaps_by_kind: Record<string, number>; rejected: Record<string, number> }[];
  candidates: { input: string; rejection: string; overlap?: { kind: string; row_id: string; split: string } }[];
}

const report = (id: string) => call<Report>(fixture.stack, "GET", `/v1/campaigns/${id}/report`);

async function eventsOf(id: string): Promise<{ type: string; payload: Record<string, unknown> }[]> {
  const { text } = await request(fixture.stack.url).get(`/v1/campaigns/${id}/events`).expect(200);
  return text
    .split("\n")
    .filter((line) => line.startsWith('data: {"sequence"'))
    .map((line) => JSON.parse(line.slice("data: ".length)));
}

test(
  "rows that say a test row are dropped, a teacher that says it again is refused, and neither is shown",
  async () => {
    fixture.teacher.options = {
      labelOf,
      behave: ({ wants, number, output }) =>
        wants === "write" && output === "NUM" && number % 2 === 0
          ? { kind: "reply", text: JSON.stringify({ input: tested.input.toUpperCase(), output: "NUM" }) }
          : undefined,
    };
    const before = fixture.teacher.calls.length;
    const settings = { seed: 11, iterations: 1, held_out_overlaps: "drop", accept_probability: 0.01 };
    const { campaign, iterations, outcome } = await fixture.trial("dropped", settings, contaminated);
    const { id } = campaign.run;
    // 12 seed rows and the two that are left out.
    expect(iterations[0]?.train_rows).toBe(12);
    expect(outcome.baseline.train_rows).toBe(12);
    const told = await report(id);
    expect(told.split_overlaps).toMatchObject({
      counts: [
        { split: "train", against: "test", kind: "exact", rows: 1 },
        { split: "train", against: "test", kind: "ngram", rows: 1 },
      ],
      dropped_rows: 2,
    });
    const [again] = told.split_overlaps.overlaps;
    const refused = told.candidates.filter(({ rejection }) => rejection === "held_out_overlap");
    expect(refused.length).toBeGreaterThan(0);
    expect(told.iterations[0]?.overlaps_by_kind).toEqual({ exact: refused.length });
    expect(told.iterations[0]?.rejected.held_out_overlap).toBe(refused.length);
    for (const { overlap } of refused) {
      expect(overlap).toMatchObject({ kind: "exact", split: "test", row_id: again?.overlap.row_id });
    }
    const { text: page } = await request(fixture.stack.url).get(`/v1/campaigns/${id}/report.html`).expect(200);
    expect(page).toContain("2 train rows were left out for it.");
    expect(page.toLowerCase()).not.toContain("spider of zanbar</td>".toLowerCase());
    expect(JSON.stringify(told.candidates).toLowerCase()).not.toContain("spider");
    const events = await eventsOf(id);
    expect(events.find(({ type }) => type === "rows.contaminated")?.payload).toMatchObject({ dropped_rows: 2 });
    // What fell was not asked about either, and the rows that are left out are no examples.
    for (const { prompt } of fixture.teacher.calls.slice(before)) expect(prompt.toLowerCase()).not.toContain("spider");
  },
  slow,
);

test(
  "with refuse a campaign fails before the teacher is asked, and says which rows",
  async () => {
    fixture.teacher.options = { labelOf };
    const before = fixture.teacher.calls.length;
    const mild = contaminated.filter(({ input }) => !input.startsWith("How many"));
    await expect(fixture.trial("refused", { seed: 12, held_out_overlaps: "refuse" }, mild)).rejects.toThrow(
      /1 train against test \(ngram\); the first is row [0-9a-f]+, as row [0-9a-f]+.*"drop"/,
    );
    expect(fixture.teacher.calls.length).toBe(before);
  },
  slow,
);

test(
  "a train row with the very text of a test row is refused at once, unless it is to be dropped",
  async () => {
    const name = "very-text";
    const { id } = await call<{ id: string }>(fixture.stack, "POST", "/v1/datasets", { name });
    await request(fixture.stack.url)
      .post(`/v1/datasets/${id}/import?split_column=split`)
      .set("content-type", "application/x-ndjson")
      .send(contaminated.map((row) => `${JSON.stringify(row)}\n`).join(""))
      .expect(201);
    const body = {
      dataset: id,
      task,
      student_profile: profiles.studentProfile,
      teacher_profile: profiles.teacherProfile,
      settings: quick,
    };
    const estimate = (settings: object) =>
      request(fixture.stack.url)
        .post("/v1/campaigns/estimate")
        .send({ ...body, settings: { ...quick, ...settings } });
    const refused = await estimate({}).expect(400);
    expect(refused.body).toMatchObject({ reason: "split_overlap" });
    expect(refused.body.detail).toContain('held_out_overlaps to "drop"');
    await estimate({ held_out_overlaps: "drop" }).expect(200);
    const unknown = await estimate({ held_out_overlaps: "keep" }).expect(400);
    expect(JSON.stringify(unknown.body.errors)).toContain("settings.held_out_overlaps");
  },
  slow,
);

test(
  "a fork keeps what became of such rows",
  async () => {
    const { campaigns } = await call<{ campaigns: CampaignView[] }>(
      fixture.stack,
      "GET",
      "/v1/campaigns?name=dropped&limit=1",
    );
    const id = campaigns[0]?.run.id;
    const { body } = await request(fixture.stack.url)
      .post(`/v1/campaigns/${id}/fork`)
      .send({ iteration: 1, settings: { held_out_overlaps: "warn" } })
      .expect(400);
    expect(JSON.stringify(body.errors)).toContain("settings.held_out_overlaps");
  },
  slow,
);
