/** What a campaign's arms will take besides the campaign. Pure. */
import { Arm, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { ForecastBasis } from "./forecast.js";
import { goldRows } from "./writing.js";

/** Teacher calls of the arms, by kind; those of the oracle's own teacher are not among them. */
export function armCalls(
  { settings, seedRows, testRows }: Pick<ForecastBasis, "settings" | "seedRows" | "testRows">,
  campaignWrites: number,
): { writes: number; labels: number } {
  const has = (arm: Arm) => settings.arms.includes(arm);
  const checks = settings.checkTeacher === Switch.ON;
  const record = has(Arm.TEACHER) && !checks ? Math.min(goldRows, seedRows.length) : 0;
  return {
    writes: (has(Arm.AUGGPT) ? campaignWrites : 0) + (has(Arm.RANDOM) ? campaignWrites : 0),
    labels: record + (has(Arm.TEACHER) ? testRows : 0) + (has(Arm.RANDOM) && checks ? campaignWrites : 0),
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
