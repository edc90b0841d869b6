/** Each rule of the verdict sees what it is there for: a check that cannot fail proves nothing. */
import { expect, test } from "vitest";
import type { CampaignEnd, FencedWrite } from "./evidence.js";
import { kinds } from "./plan.js";
import { broken, type Found, judge, type Report, takeovers } from "./verdict.js";

const end: CampaignEnd = {
  tag: "c001",
  id: "1",
  status: "SUCCEEDED",
  failure: "",
  stopReason: "iterations",
  digests: ["a", "b"],
  rowIds: ["seed", "new"],
  acceptedRowIds: ["new"],
  events: [
    { sequence: 1, type: "campaign.queued" },
    { sequence: 2, type: "campaign.finished" },
  ],
};
const held = { service: "campaigns", runId: "1", fence: 1 };
const writes: FencedWrite[] = [
  { ...held, fence: 2, kind: "claim", at: 8_000 },
  { ...held, fence: 2, kind: "change", at: 8_100 },
];
const found: Found = {
  happened: {
    kills: kinds.map((kind) => ({ kind, name: kind, at: 1_000, held: kind === "campaigns" ? [held] : [] })),
    stops: [{ name: "teacher-1", at: 0, forMs: 8_000 }],
    cuts: [{ link: "postgres", connections: 3 }],
    stuck: [],
    followed: new Map([["c001", [1, 2]]]),
  },
  ends: [end],
  calmEnds: [end],
  capsMicroUsd: new Map([["c001", 10]]),
  billedMicroUsd: new Map([["c001", 10]]),
  tight: new Set(),
  repaidCalls: 2,
  inFlightAtKills: 2,
  unevenEvaluations: 0,
  openRuns: [],
  writes,
  postgresDown: [],
};
const least = { kills: 8, killsHoldingLease: 1, stopped: 1, cuts: 1 };
const judged = (change: Partial<Found>): Report => judge({ ...found, ...change });
const withEnd = (change: Partial<CampaignEnd>) => judged({ ends: [{ ...end, ...change }] });

test("a run in which all held breaks nothing", () => {
  const report = judge(found);
  expect(broken(report, least)).toEqual([]);
  expect(report).toMatchObject({ kills_holding_lease: 1, rows: 2, takeovers: 1, max_takeover_seconds: 7 });
});

test("rows that are lost, doubled or other ones are counted", () => {
  expect(withEnd({ rowIds: ["seed"] }).lost_rows).toBe(1);
  expect(withEnd({ rowIds: ["new"] }).lost_rows).toBe(1);
  expect(judged({ unevenEvaluations: 1 }).lost_rows).toBe(1);
  expect(withEnd({ rowIds: ["seed", "new", "new"] }).duplicate_rows).toBe(1);
  expect(withEnd({ acceptedRowIds: ["new", "new"] }).duplicate_rows).toBe(1);
  expect(withEnd({ rowIds: ["seed", "new", "other"] }).duplicate_rows).toBe(1);
  expect(withEnd({ digests: ["a", "c"] }).digest_mismatches).toBe(1);
});

test("a campaign that met its cap is not compared, but is not to exceed it", () => {
  const tight = new Set(["c001"]);
  const short = judged({
    tight,
    ends: [{ ...end, digests: ["a"], rowIds: ["seed"], acceptedRowIds: [], stopReason: "budget" }],
  });
  expect(short).toMatchObject({ digest_mismatches: 0, lost_rows: 0, capped: 1 });
  expect(judged({ billedMicroUsd: new Map([["c001", 13]]) }).overspent_micro_usd).toBe(3);
});

test("an event that is missing, repeated or told twice is a gap", () => {
  const [first, second] = end.events as [(typeof end.events)[0], (typeof end.events)[0]];
  for (const events of [[second], [first, first], [first], [first, second, { ...second, sequence: 3 }]])
    expect(withEnd({ events }).event_gaps).toBeGreaterThan(0);
  for (const told of [[1], [2], [1, 1, 2], [2, 1], [1, 2, 2]]) {
    const happened = { ...found.happened, followed: new Map([["c001", told]]) };
    expect(judged({ happened }).event_gaps, String(told)).toBeGreaterThan(0);
  }
});

test("a takeover is measured to the next fence, without the time in which Postgres was down", () => {
  const { kills } = found.happened;
  const taken = (...found: Parameters<typeof takeovers>) => takeovers(...found).map(({ ms }) => ms);
  expect(taken(kills, writes, [], "change")).toEqual([7_100]);
  expect(taken(kills, writes, [{ from: 2_000, to: 5_000 }], "claim")).toEqual([4_000]);
  expect(taken(kills, writes, [{ from: 0, to: 1_500 }], "claim")).toEqual([6_500]);
  expect(taken(kills, [], [], "claim")).toEqual([]);
});

test("a lease that nobody took over is counted unless its run came to an end", () => {
  expect(judged({ writes: [], openRuns: [held] }).not_taken_over).toBe(1);
  expect(judged({ writes: [], openRuns: [] }).not_taken_over).toBe(0);
  expect(judged({ writes: [], openRuns: [{ ...held, service: "training" }] }).not_taken_over).toBe(0);
  // Its successor holds the run now.
  expect(judged({ openRuns: [{ ...held, fence: 2 }] }).not_taken_over).toBe(0);
});

test("every promise that is broken is named, and so is a run that shows too little", () => {
  const bad: [Partial<Report>, RegExp][] = [
    [{ lost_rows: 1 }, /lost/],
    [{ duplicate_rows: 1 }, /twice/],
    [{ digest_mismatches: 1 }, /other datasets/],
    [{ overspent_micro_usd: 1 }, /above the caps/],
    [{ repaid_calls: 3 }, /paid twice/],
    [{ event_gaps: 1 }, /gaps/],
    [{ max_takeover_seconds: 10.1 }, /takeover/],
    [{ not_taken_over: 1 }, /nobody took over/],
    [{ failed: 1 }, /failed/],
    [{ stuck: 1 }, /stuck/],
    [{ kills: 7 }, /kills/],
    [{ kills_holding_lease: 0 }, /held a lease/],
    [{ kills_by_process: { ...judge(found).kills_by_process, postgres: 0 } }, /no postgres/],
    [{ stopped: 0 }, /stopped/],
    [{ cuts: 0 }, /cuts/],
    [{ rows: 0 }, /no rows/],
    [{ takeovers: 0 }, /no lease/],
  ];
  for (const [change, what] of bad)
    expect(broken({ ...judge(found), ...change }, least)).toEqual([expect.stringMatching(what)]);
});
