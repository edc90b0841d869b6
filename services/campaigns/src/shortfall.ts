/** What the budget of a campaign lacks for it to end, as far as can be forecast. Pure. */

import { budgetMarks } from "@tutelage/platform/monthbudget";
import type { Forecast, Shortfall } from "@tutelage/proto/campaigns/v1/campaigns";
import type { BudgetLine } from "@tutelage/proto/run/v1/budget";
import type { Caps } from "./spending.js";

/** What a campaign has used of each quantity that a cap can be put on. */
export interface Used {
  teacher_calls: number;
  teacher_tokens: number;
  cost_micro_usd: number;
  training_seconds: number;
}

const capOf = {
  teacher_calls: "maxTeacherCalls",
  teacher_tokens: "maxTeacherTokens",
  cost_micro_usd: "maxCostMicroUsd",
  training_seconds: "maxTrainingSeconds",
} as const satisfies Record<keyof Used, keyof Caps>;
const names = Object.keys(capOf) as (keyof Used)[];

/**
 * One for each cap that is met or will be.
 * @param met code of the rest, e.g. "run_teacher_calls"
 * @param whole forecasts of the whole campaign without caps
 */
export function shortfalls(
  met: string,
  caps: Caps,
  used: Used,
  month: readonly BudgetLine[],
  whole: readonly Forecast[],
): Shortfall[] {
  const found: Shortfall[] = [];
  for (const name of names) {
    const need = needOf(name, whole);
    const cap = caps[capOf[name]];
    if (cap > 0) {
      const missing = missingOf(need, cap, met === `run_${name}` ? 1 : 0);
      if (missing.likely > 0) found.push({ name, scope: "campaign", used: used[name], cap, missing });
    }
    const line = month.find((one) => one.name === name);
    if (line !== undefined && line.cap > 0) {
      // What others have used of it is gone for this campaign.
      const room = line.cap - line.used + used[name];
      const missing = missingOf(need, room, met === `project_${name}` ? 1 : 0);
      if (missing.likely > 0) found.push({ name, scope: "project", used: line.used, cap: line.cap, missing });
    }
  }
  return found;
}

/** The marks that are passed, of the caps that there are. */
export function passedMarks(
  caps: Caps,
  used: Used,
): { name: keyof Used; percent: number; used: number; cap: number }[] {
  return names.flatMap((name) => {
    const cap = caps[capOf[name]];
    if (cap === 0) return [];
    return budgetMarks
      .filter((percent) => used[name] >= (cap * percent) / 100)
      .map((percent) => ({ name, percent, used: used[name], cap }));
  });
}

function needOf(name: keyof Used, whole: readonly Forecast[]): Pick<Forecast, "low" | "likely" | "high" | "basis"> {
  const parts = name === "teacher_tokens" ? ["prompt_tokens", "completion_tokens"] : [name];
  const found = whole.filter((one) => parts.includes(one.name));
  if (found.length === 0) return { low: 0, likely: 0, high: 0, basis: "How much it takes is not known beforehand." };
  return {
    low: found.reduce((sum, { low }) => sum + low, 0),
    likely: found.reduce((sum, { likely }) => sum + likely, 0),
    high: found.reduce((sum, { high }) => sum + high, 0),
    basis: found[0]?.basis ?? "",
  };
}

function missingOf(need: ReturnType<typeof needOf>, room: number, least: number): Forecast {
  const over = (value: number) => Math.max(least, Math.ceil(value - room));
  return {
    name: "missing",
    low: over(need.low),
    likely: over(need.likely),
    high: over(need.high),
    basis: need.basis,
  };
}

/** A rest in words: what is missing, and how to go on. */
export function restMessage(missing: readonly Shortfall[]): string {
  if (missing.length === 0) return "A budget does not pay for what comes next; raise it to go on.";
  return missing
    .map(({ name, scope, used, cap, missing: more }) => {
      const whose = scope === "campaign" ? `max_${name}` : `the month's ${name}`;
      const by = more === undefined ? "" : ` by about ${more.likely} (${more.low} to ${more.high})`;
      return `${Math.ceil(used)} of ${cap} ${name} are used: raise ${whose}${by}.`;
    })
    .join(" ");
}
