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

/** What students were trained so far. */
export interface Trained {
  seconds: number;
  steps: number;
}

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
  trained: Trained,
): Shortfall[] {
  const found: Shortfall[] = [];
  for (const name of names) {
    const need = name === "training_seconds" ? secondsOf(used[name], whole, trained) : sumOf(name, whole);
    const cap = caps[capOf[name]];
    if (cap > 0) {
      const missing = missingOf(need, cap);
      if (missing !== undefined || met === `run_${name}`)
        found.push({ name, scope: "campaign", used: used[name], cap, missing });
    }
    const line = month.find((one) => one.name === name);
    if (line !== undefined && line.cap > 0) {
      // What others have used of it is gone for this campaign.
      const room = line.cap - line.used + used[name];
      const missing = missingOf(need, room);
      if (missing !== undefined || met === `project_${name}`)
        found.push({ name, scope: "project", used: line.used, cap: line.cap, missing });
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

type Need = Pick<Forecast, "low" | "likely" | "high" | "basis">;

/** What the whole campaign takes of a quantity; undefined where nobody can say. */
function sumOf(name: keyof Used | "optimizer_steps", whole: readonly Forecast[]): Need | undefined {
  const parts: string[] = name === "teacher_tokens" ? ["prompt_tokens", "completion_tokens"] : [name];
  const found = whole.filter((one) => parts.includes(one.name));
  if (found.length === 0) return undefined;
  const sum = (bound: "low" | "likely" | "high") => found.reduce((all, one) => all + one[bound], 0);
  return { low: sum("low"), likely: sum("likely"), high: sum("high"), basis: found[0]?.basis ?? "" };
}

/** What it used, and the steps that are left at the pace of those that it made. */
function secondsOf(used: number, whole: readonly Forecast[], trained: Trained): Need | undefined {
  const steps = sumOf("optimizer_steps", whole);
  if (steps === undefined || trained.steps === 0) return undefined;
  const pace = trained.seconds / trained.steps;
  const need = (bound: "low" | "likely" | "high") => used + pace * Math.max(0, steps[bound] - trained.steps);
  const basis = `${pace.toFixed(2)} s an optimizer step so far. ${steps.basis}`;
  return { low: need("low"), likely: need("likely"), high: need("high"), basis };
}

/** Undefined where nothing is missing, or use has outrun the forecast: it then says nothing about what is left. */
function missingOf(need: Need | undefined, room: number): Forecast | undefined {
  if (need === undefined || need.likely <= room) return undefined;
  const over = (value: number) => Math.max(1, Math.ceil(value - room));
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
      const by =
        more === undefined ? "; by how much is not known" : ` by about ${more.likely} (${more.low} to ${more.high})`;
      return `${Math.ceil(used)} of ${cap} ${name} are used: raise ${whose}${by}.`;
    })
    .join(" ");
}
