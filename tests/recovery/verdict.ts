/** What a chaos run shows. Pure: from what happened and what was found to the figures, and which promise they break. */
import type { Happened, Kill } from "./driver.js";
import type { CampaignEnd, FencedWrite, Held } from "./evidence.js";
import { type Kind, kinds } from "./plan.js";
import type { Span } from "./topology.js";

export interface Found {
  happened: Happened;
  /** The campaigns as they ended, and the same ones undisturbed. */
  ends: CampaignEnd[];
  calmEnds: CampaignEnd[];
  /** By tag, the cap of each campaign, and what the provider would bill. */
  capsMicroUsd: ReadonlyMap<string, number>;
  billedMicroUsd: ReadonlyMap<string, number>;
  /** Campaigns that were to meet their cap. */
  tight: ReadonlySet<string>;
  repaidCalls: number;
  inFlightAtKills: number;
  unevenEvaluations: number;
  /** Runs that had not come to an end or a rest. */
  openRuns: readonly Held[];
  writes: FencedWrite[];
  postgresDown: readonly Span[];
}

export interface Report {
  campaigns: number;
  kills: number;
  kills_holding_lease: number;
  kills_by_process: Record<Kind, number>;
  stopped: number;
  cuts: number;
  /** Rows in the datasets of all campaigns. */
  rows: number;
  lost_rows: number;
  duplicate_rows: number;
  digest_mismatches: number;
  /** Campaigns that met their cap. */
  capped: number;
  overspent_micro_usd: number;
  repaid_calls: number;
  in_flight_at_kills: number;
  event_gaps: number;
  /** Leases that had to be taken over. */
  takeovers: number;
  /** Leases of killed holders that nobody took over, though the run has not ended. */
  not_taken_over: number;
  max_takeover_seconds: number;
  /** Whose run it was, and who had been killed. */
  slowest_takeover: string;
  /** From the kill to the successor's first change of the run after its claim. */
  max_first_change_seconds: number;
  /** Ended otherwise than undisturbed. */
  failed: number;
  stuck: number;
}

export function judge(found: Found): Report {
  const { happened, ends, calmEnds, tight } = found;
  const calm = new Map(calmEnds.map((end) => [end.tag, end]));
  const pairs = ends.map((end) => ({ end, same: tight.has(end.tag) ? undefined : calm.get(end.tag) }));
  const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
  const claims = takeovers(happened.kills, found.writes, found.postgresDown, "claim");
  const changes = takeovers(happened.kills, found.writes, found.postgresDown, "change");
  return {
    campaigns: ends.length,
    kills: happened.kills.length,
    kills_holding_lease: happened.kills.filter(({ held }) => held.length > 0).length,
    kills_by_process: Object.fromEntries(
      kinds.map((kind) => [kind, happened.kills.filter((kill) => kill.kind === kind).length]),
    ) as Record<Kind, number>,
    stopped: happened.stops.length,
    cuts: happened.cuts.filter(({ connections }) => connections > 0).length,
    rows: sum(ends.map(({ rowIds }) => rowIds.length)),
    lost_rows: sum(pairs.map(({ end, same }) => lostRows(end, same))) + found.unevenEvaluations,
    duplicate_rows: sum(pairs.map(({ end, same }) => duplicateRows(end, same))),
    digest_mismatches: pairs.filter(({ end, same }) => same && String(end.digests) !== String(same.digests)).length,
    capped: ends.filter(({ stopReason, status }) => stopReason === "budget" || status === "BUDGET_EXHAUSTED").length,
    overspent_micro_usd: sum(
      [...found.capsMicroUsd].map(([tag, cap]) => Math.max(0, (found.billedMicroUsd.get(tag) ?? 0) - cap)),
    ),
    repaid_calls: found.repaidCalls,
    in_flight_at_kills: found.inFlightAtKills,
    event_gaps: sum(ends.map((end) => eventGaps(end, happened.followed.get(end.tag)))),
    takeovers: claims.length,
    not_taken_over: notTakenOver(happened.kills, found.writes, found.openRuns),
    max_takeover_seconds: seconds(claims),
    slowest_takeover: claims.toSorted((a, b) => b.ms - a.ms)[0]?.what ?? "",
    max_first_change_seconds: seconds(changes),
    failed: ends.filter(({ status }) => status === "FAILED" || status === "CANCELLED").length,
    stuck: happened.stuck.length,
  };
}

/** Rows that an accepted candidate or the undisturbed campaign has, and this one has not. */
function lostRows({ rowIds, acceptedRowIds }: CampaignEnd, same: CampaignEnd | undefined): number {
  const there = new Set(rowIds);
  return new Set([...acceptedRowIds, ...(same?.rowIds ?? [])].filter((id) => !there.has(id))).size;
}

/** Rows that are there twice, or were accepted twice, or that the undisturbed campaign has not. */
function duplicateRows({ rowIds, acceptedRowIds }: CampaignEnd, same: CampaignEnd | undefined): number {
  const twice = [rowIds, acceptedRowIds].map((ids) => ids.length - new Set(ids).size);
  const calm = new Set(same?.rowIds ?? rowIds);
  return Math.max(...twice) + rowIds.filter((id) => !calm.has(id)).length;
}

/** Sequence numbers that are missing or repeated, stored or told to who follows, and an end that is not told exactly once. */
function eventGaps({ status, events }: CampaignEnd, followed: readonly number[] = []): number {
  const misplaced = events.filter(({ sequence }, index) => sequence !== index + 1).length;
  const finished = events.filter(({ type }) => type === "campaign.finished").length;
  const told = events.filter((_, index) => followed[index] !== index + 1).length;
  const toldMore = Math.max(0, followed.length - events.length);
  return misplaced + told + toldMore + (status === "SUCCEEDED" ? Math.abs(finished - 1) : 0);
}

/**
 * From each kill, for each lease that the process held: milliseconds until the
 * next fence claimed the run, or until it changed it, without the time in
 * which Postgres was down. A successor that was killed before it changed
 * anything has a kill of its own here.
 */
export function takeovers(
  kills: readonly Kill[],
  writes: readonly FencedWrite[],
  down: readonly Span[],
  kind: FencedWrite["kind"],
): { ms: number; what: string }[] {
  return kills.flatMap(({ at, name, held }) =>
    held.flatMap(({ service, runId, fence }) => {
      const write = writes.find(
        (one) => one.service === service && one.runId === runId && one.fence === fence + 1 && one.kind === kind,
      );
      if (write === undefined) return [];
      const away = down.reduce(
        (sum, { from, to }) => sum + Math.max(0, Math.min(to, write.at) - Math.max(from, at)),
        0,
      );
      const what = `${service} ${runId} under fence ${fence + 1}, ${name} killed at ${new Date(at).toISOString()}`;
      return [{ ms: write.at - at - away, what }];
    }),
  );
}

/**
 * Leases of killed holders without a next claim, whose run is as the holder left it. One that ended it, or laid it to
 * rest, did so after it was seen to hold the lease and before the kill met it.
 */
export function notTakenOver(
  kills: readonly Kill[],
  writes: readonly FencedWrite[],
  openRuns: readonly Held[],
): number {
  const same = (one: Held, { service, runId, fence }: Held) =>
    one.service === service && one.runId === runId && one.fence === fence;
  return kills
    .flatMap(({ held }) => held)
    .filter((lease) => !writes.some((one) => one.kind === "claim" && same(one, { ...lease, fence: lease.fence + 1 })))
    .filter((lease) => openRuns.some((run) => same(run, lease))).length;
}

function seconds(spans: readonly { ms: number }[]): number {
  return Math.round(Math.max(0, ...spans.map(({ ms }) => ms))) / 1_000;
}

/** What a run must have met to show anything. */
export interface Least {
  kills: number;
  killsHoldingLease: number;
  stopped: number;
  cuts: number;
}

/** The promises that a report breaks, and what it lacks to show them; empty when all is well. */
export function broken(report: Report, least: Least): string[] {
  const wrong: [boolean, string][] = [
    [report.kills < least.kills, `only ${report.kills} kills`],
    [report.kills_holding_lease < least.killsHoldingLease, `only ${report.kills_holding_lease} kills held a lease`],
    ...kinds.map((kind): [boolean, string] => [report.kills_by_process[kind] === 0, `no ${kind} was killed`]),
    [report.stopped < least.stopped, `only ${report.stopped} processes were stopped`],
    [report.cuts < least.cuts, `only ${report.cuts} cuts met a connection`],
    [report.rows === 0, "no rows came of it"],
    [report.takeovers === 0, "no lease was taken over"],
    [report.lost_rows > 0, `${report.lost_rows} rows lost`],
    [report.duplicate_rows > 0, `${report.duplicate_rows} rows twice`],
    [report.digest_mismatches > 0, `${report.digest_mismatches} campaigns have other datasets than undisturbed`],
    [report.overspent_micro_usd > 0, `${report.overspent_micro_usd} micro-USD above the caps`],
    [
      report.repaid_calls > report.in_flight_at_kills,
      `${report.repaid_calls} calls paid twice, of ${report.in_flight_at_kills} in flight`,
    ],
    [report.event_gaps > 0, `${report.event_gaps} gaps in events`],
    [report.max_takeover_seconds > 10, `a takeover took ${report.max_takeover_seconds} s`],
    [report.not_taken_over > 0, `nobody took over ${report.not_taken_over} leases`],
    [report.failed > 0, `${report.failed} campaigns failed`],
    [report.stuck > 0, `${report.stuck} campaigns are stuck`],
  ];
  return wrong.flatMap(([isWrong, what]) => (isWrong ? [what] : []));
}
