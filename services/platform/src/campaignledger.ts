/** A campaign's teacher calls by what they were for. */
import type { LedgerTotal, ListLedgerResponse } from "@tutelage/proto/campaigns/v1/campaigns";
import type { RunTotal, ListLedgerResponse as TeacherLedger, Usage } from "@tutelage/proto/teacher/v1/teacher";

/** What the idempotency keys of a campaign's runs begin with; the step follows. */
export function runKeyPrefix(campaignId: string): string {
  return `${campaignId}/`;
}

const purposes: Record<string, string> = {
  "preflight/write": "preflight_write",
  "preflight/label": "preflight_label",
  teacher_record: "check_record",
  "audit/record": "audit",
};

/** What a run was for, by the step that started it. Pure. */
export function purposeOf(runKey: string): { purpose: string; iteration: number } {
  const step = runKey.slice(runKey.indexOf("/") + 1);
  const [, number, phase] = /^iteration\/(\d+)\/(.+)$/.exec(step) ?? [];
  const [, arm, of] = /^arm\/([a-z_]+)\/([a-z]+)/.exec(step) ?? [];
  if (arm !== undefined) return { purpose: `arm_${arm}_${of}`, iteration: -1 };
  if (number === undefined) return { purpose: purposes[step] ?? step, iteration: -1 };
  const purpose = phase === "generate" ? "write" : phase === "check/teacher" ? "check" : (phase ?? step);
  return { purpose, iteration: Number(number) };
}

/** Sums of runs by purpose, in the order in which each purpose first came. Pure. */
export function totalsByPurpose(runs: readonly RunTotal[]): LedgerTotal[] {
  const totals = new Map<string, { usage: Usage; failedCalls: number }>();
  for (const { runKey, usage, failedCalls } of runs) {
    if (usage === undefined) continue;
    const { purpose } = purposeOf(runKey);
    const before = totals.get(purpose);
    totals.set(purpose, {
      usage: before === undefined ? usage : sum(before.usage, usage),
      failedCalls: (before?.failedCalls ?? 0) + failedCalls,
    });
  }
  return [...totals].map(([purpose, total]) => ({ purpose, ...total }));
}

function sum(one: Usage, other: Usage): Usage {
  return {
    calls: one.calls + other.calls,
    reusedCalls: one.reusedCalls + other.reusedCalls,
    promptTokens: one.promptTokens + other.promptTokens,
    completionTokens: one.completionTokens + other.completionTokens,
    costMicroUsd: one.costMicroUsd + other.costMicroUsd,
    teacherSeconds: one.teacherSeconds + other.teacherSeconds,
    savedMicroUsd: one.savedMicroUsd + other.savedMicroUsd,
  };
}

/** The teacher's page as the campaign's. */
export function ledgerPage({ calls, nextCursor, runs }: TeacherLedger): ListLedgerResponse {
  return {
    entries: calls.map(({ call, runKey }) => ({ ...purposeOf(runKey), call })),
    nextCursor,
    totals: totalsByPurpose(runs),
  };
}
