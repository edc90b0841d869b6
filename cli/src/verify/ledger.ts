/** Checks what the teacher cost: calls, tokens, money and seconds of every run, purpose and campaign, from the calls. */
import { totalsByPurpose } from "@tutelage/platform/campaignledger";
import { type Call, type RunTotal, Usage } from "@tutelage/proto/teacher/v1/teacher";
import type { Evidence } from "./evidence.js";
import type { Findings } from "./findings.js";

export function checkLedger(evidence: Evidence, found: Findings): string {
  const { campaign, generationRuns, calls, steps } = evidence;
  const callsOf = new Map<string, Call[]>();
  for (const { call, runId } of calls.values()) {
    const own = callsOf.get(runId);
    if (own === undefined) callsOf.set(runId, [call]);
    else own.push(call);
  }
  const totals: RunTotal[] = [];
  const usages = new Map<string, Usage>();
  for (const [id, { runKey, usage, results: count }] of generationRuns) {
    const own = callsOf.get(id) ?? [];
    const recomputed = usageOf(evidence, id, own, found);
    // Calls are told to the millisecond, and were added up more finely.
    const rounding = 0.002 * (own.length + 1);
    if (usage !== undefined && Math.abs(usage.teacherSeconds - recomputed.teacherSeconds) < rounding) {
      recomputed.teacherSeconds = usage.teacherSeconds;
    }
    found.same("generation-runs", `run ${id} (${runKey}): usage`, usage, recomputed);
    found.same("generation-runs", `run ${id} (${runKey}): results`, count, evidence.results.get(id)?.length ?? 0);
    usages.set(id, recomputed);
    const failedCalls = own.filter(({ status }) => status === "failed").length;
    if (runKey.startsWith(`${campaign.run?.id}/`)) totals.push({ runKey, usage: recomputed, failedCalls });
  }
  for (const runId of callsOf.keys()) {
    if (runId !== "" && !generationRuns.has(runId))
      found.differs("generation-runs", `run ${runId}, which has calls, is missing`);
  }
  found.same("ledger-totals", "totals", evidence.ledgerTotals, totalsByPurpose(totals));
  const [own, shared] = [noUsage(), noUsage()];
  for (const { name, generationRunId, shared: isShared } of steps.values()) {
    if (generationRunId === "") continue;
    const usage = usages.get(generationRunId);
    if (usage === undefined) found.differs("generation-runs", `step ${name}: its run ${generationRunId} is missing`);
    else add(isShared ? shared : own, usage);
  }
  // A call that was under way when its holder died may have been counted for more than it was in the end.
  const crashed = [...calls.values()].some(({ call }) => call.afterCrash || call.errorCode === "in_flight_at_crash");
  if (!crashed) {
    found.same("campaign.json", "usage", campaign.usage ?? noUsage(), own);
    if (campaign.forkedFrom !== undefined) {
      found.same("campaign.json", "forked_from.shared_usage", campaign.forkedFrom.sharedUsage ?? noUsage(), shared);
    }
  }
  return `${calls.size} calls, ${own.costMicroUsd} micro-USD`;
}

/** What a run's own calls and the replies that it used again come to. */
function usageOf({ calls, results }: Evidence, runId: string, own: readonly Call[], found: Findings): Usage {
  const usage = noUsage();
  for (const { promptTokens, completionTokens, costMicroUsd } of own) {
    usage.calls += 1;
    usage.promptTokens += promptTokens;
    usage.completionTokens += completionTokens;
    usage.costMicroUsd += costMicroUsd;
  }
  for (const { callId, rowId, attempt } of results.get(runId) ?? []) {
    const placed = calls.get(callId);
    if (placed === undefined) {
      found.differs("calls", `${callId}, of run ${runId}, row ${rowId}, attempt ${attempt}, is missing`);
    } else if (placed.runId !== runId) {
      usage.reusedCalls += 1;
      usage.savedMicroUsd += placed.call.costMicroUsd;
    }
  }
  usage.teacherSeconds = busySeconds(own);
  return usage;
}

/** Calls overlap: the teacher worked while at least one was under way. */
function busySeconds(calls: readonly Call[]): number {
  const spans = calls
    .map(({ finishedAt, durationMs }) => ({
      ended: finishedAt?.getTime() ?? 0,
      began: (finishedAt?.getTime() ?? 0) - durationMs,
    }))
    .sort((a, b) => a.began - b.began || a.ended - b.ended);
  let before = Number.NEGATIVE_INFINITY;
  let ms = 0;
  for (const { began, ended } of spans) {
    ms += Math.max(0, ended - Math.max(began, before));
    before = Math.max(before, ended);
  }
  return ms / 1_000;
}

function noUsage(): Usage {
  return Usage.fromPartial({});
}

function add(sum: Usage, usage: Usage): void {
  for (const name of Object.keys(sum) as (keyof Usage)[]) sum[name] += usage[name];
}
