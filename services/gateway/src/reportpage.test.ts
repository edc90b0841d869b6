import {
  type Candidate,
  Iteration,
  Report,
  Review,
  ReviewKind,
  ReviewStatus,
  SeedRow,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { Row, Split } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { html } from "./html.js";
import { reportPage } from "./reportpage.js";

const proportion = (successes: number, n: number) => ({
  successes,
  n,
  value: successes / n,
  ci95Low: successes / n - 0.05,
  ci95High: successes / n + 0.05,
});
const metrics = (right: number) => ({
  accuracy: proportion(right, 100),
  labels: ["refund", "theft"].map((label) => ({ label, support: 50, precision: 0.7, recall: 0.8, f1: 0.75 })),
  confusion: [
    { expected: "refund", answered: "refund", count: 30 },
    { expected: "refund", answered: "theft", count: 20 },
    { expected: "theft", answered: "theft", count: 50 },
  ],
  unreadableRows: 0,
  tooLongRows: 0,
  disputedRows: 0,
});
const evil = `</td><script>alert("x")</script>`;
const candidate: Partial<Candidate> = { seedRowId: "s1", iteration: 0, input: evil, output: "refund" };

const report = Report.fromPartial({
  campaign: {
    run: { id: "c1", finishedAt: new Date("2026-01-02T03:04:05Z") },
    request: {
      name: `Intents ${evil}`,
      task: { name: "intents", promptTemplate: "{input} & so on", labels: [{ name: "refund" }, { name: "theft" }] },
      settings: { iterations: 2 },
    },
    usage: { calls: 77, costMicroUsd: 123_456 },
    outcome: {
      summary: "The student of iteration 1 is returned.",
      chosenIteration: 1,
      wallSeconds: 125,
      baseline: { name: "plain", tries: 2, testAccuracy: proportion(60, 100) },
      final: { name: "campaign", tries: 2, testAccuracy: proportion(70, 100) },
      gain: { gain: 0.1, ci95Low: 0.02, ci95High: 0.18, n: 100 },
    },
  },
  iterations: [0, 1].map((number) =>
    Iteration.fromPartial({
      number,
      trainRows: 20 + 10 * number,
      errors: 5,
      candidates: 20,
      accepted: 10,
      rejected: { label_doubted: 9, some_new_reason: 1 },
      testAccuracy: proportion(60 + 10 * number, 100),
      phaseSeconds: { cross_fit: 10, generate: 20 },
      seconds: 30,
    }),
  ),
  seedRows: [
    SeedRow.fromPartial({
      row: Row.fromPartial({ id: "easy", input: "easy one", output: "theft" }),
      grades: [{ iteration: 0, correct: true, answer: "theft" }],
    }),
    SeedRow.fromPartial({
      row: Row.fromPartial({ id: "s1", input: "hard one", output: "refund" }),
      grades: [{ iteration: 0, correct: false, answer: evil }],
      candidates: 3,
      accepted: 1,
    }),
  ],
  candidates: [
    {
      ...candidate,
      accepted: true,
      verdicts: [{ checker: "students", answer: "refund", labelProbability: 0.9, reliability: 0.8 }],
      probability: 0.9,
    },
    { ...candidate, accepted: false, rejection: "label_doubted" },
  ],
  candidateCount: 40,
  baselineMetrics: metrics(60),
  finalMetrics: metrics(70),
  lossCurves: [{ name: "plain", steps: [1, 2, 3], losses: [1, 0.1, 0] }],
  advice: ["Look here."],
  departures: [],
  comparisons: [
    {
      arm: "plain",
      gain: { gain: 0.1, ci95Low: 0.02, ci95High: 0.18, n: 100, onlyFinalRight: 14, onlyBaselineRight: 4 },
      mcnemarP: 0.0309,
      holmP: 0.0618,
      detectableGain: 0.121,
    },
  ],
  claims: [`Not supported ${evil}`],
});
const page = reportPage(report, "http://127.0.0.1:8080");

test("its commands show the token where one is wanted", () => {
  const wanted = reportPage(report, "http://127.0.0.1:8080", { wantsToken: true });
  expect(wanted.match(/Bearer \$TUTELAGE_TOKEN/g)).toHaveLength(2);
  expect(page).not.toContain("TUTELAGE_TOKEN");
});

test("templates escape what is put into them, HTML and arrays of it excepted", () => {
  expect(html`<p title="${'"'}">${["<", html`<b>${"&"}</b>`]}${undefined}${false}${0}</p>`.text).toBe(
    '<p title="&quot;">&lt;<b>&amp;</b>0</p>',
  );
});

test("generated text is data on the page, wherever it stands", () => {
  expect(page).not.toContain("<script");
  expect(page.match(/&lt;script&gt;/g)?.length).toBeGreaterThanOrEqual(4);
});

test("seed rows in doubt are listed with what was said and decided, where there are any", () => {
  expect(page).not.toContain("Seed rows in doubt");
  const doubted = Review.fromPartial({
    seedRowId: "s1",
    kind: ReviewKind.LABEL,
    status: ReviewStatus.RELABELLED,
    row: Row.fromPartial({ id: "s1", input: evil, output: "refund" }),
    evidence: [
      {
        iteration: 1,
        students: { answer: "theft", probability: 0.9, hitRate: 0.8 },
        teacher: { answer: "theft" },
      },
    ],
    output: "theft",
    actedIteration: 1,
  });
  const text = reportPage({ ...report, reviews: [doubted] }, "http://127.0.0.1:8080");
  for (const part of ["Seed rows in doubt", "theft (90.0 %)", "right on 80.0 % of such rows", "relabelled theft"]) {
    expect(text).toContain(part);
  }
  expect(text).toContain("what 1 corrected or excluded rows brought");
  expect(text).not.toContain("<script");
  const open = { ...doubted, status: ReviewStatus.OPEN, actedIteration: undefined };
  expect(reportPage({ ...report, reviews: [open] }, "http://127.0.0.1:8080")).not.toContain("brought");
});

test("the page needs nothing from elsewhere", () => {
  expect(page).not.toMatch(/(src|href)=|@import|url\(/);
});

test("it says what came of the campaign, with intervals, reasons, costs and what to try next", () => {
  for (const part of [
    "The student of iteration 1 is returned.",
    "+10.0 points",
    "+2.0 to +18.0 (95 %)",
    "n = 100",
    "label doubted",
    "some new reason",
    "77",
    "$0.1235",
    "Look here.",
    "expected \\ answered",
    "2 min 5 s",
    "Not supported",
    "0.0309",
    "0.0618",
    "12.1",
    "http://127.0.0.1:8080/v1/campaigns/c1/predict",
  ])
    expect(page).toContain(part);
});

test("overlaps are shown as counts and ids, and no text of what says a held-out row again", () => {
  expect(page).toContain("The splits were not compared when the campaign began. No candidate did.");
  const overlap = { kind: OverlapKind.NGRAM, rowId: "t9", split: Split.TEST, strength: 0.625 };
  const contaminated = Report.fromPartial({
    ...report,
    iterations: [{ ...report.iterations[0], overlapsByKind: { exact: 3, near_duplicate: 4 } }],
    candidates: [{ ...candidate, input: "the secret text", rejection: "held_out_overlap", overlap }],
    splitOverlaps: {
      counts: [{ split: Split.TRAIN, against: Split.TEST, kind: OverlapKind.NGRAM, rows: 7 }],
      overlaps: [{ rowId: "s1", split: Split.TRAIN, overlap }],
      droppedRows: 7,
    },
  });
  const shown = reportPage(contaminated, "http://127.0.0.1:8080");
  for (const part of [
    "7 train rows were left out for it.",
    '<td class="text">train rows, against test rows</td><td>0</td><td>7</td><td>0</td>',
    '<td class="text">candidates of iteration 0, refused</td><td>3</td><td>0</td><td>4</td>',
    "<td>train s1</td><td>test row t9</td>",
    "not shown: says test row t9 again (ngram)",
    "says a dev or test row again",
  ])
    expect(shown).toContain(part);
  expect(shown).not.toContain("the secret text");
  const clean = reportPage(Report.fromPartial({ ...report, splitOverlaps: {} }), "http://127.0.0.1:8080");
  expect(clean).toContain("No train row says what a dev or test row says");
});

test("a fork says what it shares, and that it was not paid again", () => {
  expect(page).not.toContain("not paid");
  const forkedFrom = {
    campaignId: "c0",
    iteration: 2,
    sharedUsage: { calls: 640, costMicroUsd: 2_500_000 },
    sharedTrainingSeconds: 125,
  };
  const fork = Report.fromPartial({ ...report, campaign: { ...report.campaign, forkedFrom } });
  const shown = reportPage(fork, "http://127.0.0.1:8080").replaceAll("\n", " ");
  expect(shown).toContain(
    "A fork of campaign c0 at iteration 2. What came before is shared and was not paid again: 640",
  );
  expect(shown).toContain("$2.50, and 2 min 5 s of training.");
});

test("the hardest seed rows come first", () => {
  expect(page.indexOf("hard one")).toBeLessThan(page.indexOf("easy one"));
});

test("a campaign without test rows has a report, too", () => {
  const { outcome } = report.campaign ?? {};
  if (report.campaign === undefined || outcome === undefined) throw new Error("no outcome");
  const bare = { ...outcome, gain: undefined, baseline: undefined, final: undefined };
  const without = { ...report, campaign: { ...report.campaign, outcome: bare }, finalMetrics: undefined };
  const iterations = report.iterations.map((one) => ({ ...one, testAccuracy: undefined }));
  expect(reportPage({ ...without, iterations }, "http://x")).toContain("no test rows");
});

test("an extraction says how single fields are answered, a text how near answers come", () => {
  const withMetrics = (more: object) =>
    reportPage(
      Report.fromPartial({
        ...report,
        baselineMetrics: { ...metrics(60), ...more },
        finalMetrics: { ...metrics(70), ...more },
      }),
      "http://x",
    );
  const extraction = {
    ...{ expectedFields: 10, answeredFields: 8, rightFields: 6, precision: 0.75, recall: 0.6, f1: 2 / 3 },
    fields: [{ field: `city${evil}`, accuracy: proportion(60, 100) }],
  };
  const fields = withMetrics({ extraction });
  for (const part of ["F1 of fields", "66.7 %", "75.0 %", "accuracy of &quot;city"]) expect(fields).toContain(part);
  expect(fields).not.toContain("<script");
  expect(withMetrics({ meanRougeL: 0.4321 })).toMatch(/mean ROUGE-L F[\s\S]*0\.432/);
  expect(page).not.toContain("Answers in parts");
});

test("conversations are shown turn by turn, and how to ask in them", () => {
  const messages = [
    { role: "user", content: `hello ${evil}` },
    { role: "assistant", content: "hi" },
    { role: "user", content: "my chain fell off" },
  ];
  const talks = reportPage(
    Report.fromPartial({
      ...report,
      seedRows: [{ row: { id: "s1", messages, output: "which bike?" }, grades: report.seedRows[0]?.grades ?? [] }],
      candidates: [{ ...candidate, input: "", messages, accepted: false, rejection: "wrong_turns" }],
    }),
    "http://x",
  );
  expect(talks.match(/assistant: hi\nuser: my chain fell off/g)?.length).toBeGreaterThanOrEqual(2);
  expect(talks).toContain("&quot;conversations&quot;");
  expect(talks).toContain("chat template");
  expect(talks).toContain("no conversation that ends with the user");
  expect(talks).not.toContain("<script");
});
