/** What a campaign's arms will take besides the campaign. Pure. */
import { Arm, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { ForecastBasis } from "./forecast.js";
import { goldRows } from "./writing.js";

/** Teacher calls of the arms, by kind; `checked` are rows that may get a second look. */
export function armCalls(
  { settings, seedRows, testRows }: Pick<ForecastBasis, "settings" | "seedRows" | "testRows">,
  campaignWrites: number,
): { writes: number; labels: number; checked: number } {
  const has = (arm: Arm) => settings.arms.includes(arm);
  return {
    // The oracle's calls are a part of them, at its own teacher's prices.
    writes: [Arm.AUGGPT, Arm.RANDOM, Arm.ORACLE].filter(has).length * campaignWrites,
    labels: has(Arm.TEACHER) ? Math.min(goldRows, seedRows.length) + testRows : 0,
    checked: has(Arm.RANDOM) && settings.checkTeacher === Switch.ON ? campaignWrites : 0,
  };
}

/**
 * Optimizer steps of the arms.
 * @param grown rows of the campaign's last training
 * @param stepsOn of one student on so many rows
 */
export function armSteps(
  { settings, seedRows, devRows }: Pick<ForecastBasis, "settings" | "seedRows" | "devRows">,
  tries: number,
  grown: number,
  stepsOn: (rows: number) => number,
): number {
  const chosenFrom = devRows > 0 ? tries : 1;
  const onGrown = [Arm.NONE_MATCHED, Arm.EDA, Arm.AUGGPT, Arm.RANDOM, Arm.ORACLE];
  const students = settings.arms.filter((arm) => onGrown.includes(arm)).length * chosenFrom;
  const all = settings.arms.includes(Arm.NONE_ALL) && devRows > 0 ? stepsOn(seedRows.length + devRows) : 0;
  return students * stepsOn(grown) + all;
}
