/** Auditing the seed rows as steps of a campaign: whom the students contradict, and what the teacher says of those. */
import { Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Campaign, SeedData } from "./campaign.js";
import { calibrate, measureReliability } from "./judging.js";
import { type Doubt, doubts, suspects } from "./seedaudit.js";
import { isAudited } from "./settings.js";
import type { CrossFit } from "./students.js";
import { goldSample, labelRows } from "./writing.js";

/** Gold rows on which the teacher is measured for the audit alone, where no other check has it measured. */
export const auditRecordRows = 48;

/**
 * The seed rows whose label is in doubt. The teacher is asked for those only
 * that the students contradict; where it checks labels anyway, its answers to
 * seed rows are stored already, and are used again.
 * @param decided rows that somebody has decided: they are not doubted twice
 */
export async function auditSeed(
  campaign: Campaign,
  iteration: number,
  seed: SeedData,
  fit: CrossFit | undefined,
  decided: ReadonlySet<string>,
): Promise<Doubt[]> {
  const { settings, task, spending } = campaign;
  if (!isAudited(settings, task) || fit === undefined) return [];
  const suspected = suspects(seed.seedRows, fit.heldOut).filter(({ rowId }) => !decided.has(rowId));
  if (suspected.length === 0) return [];

  await campaign.enter(iteration, "audit");
  const gold = goldSample(campaign, seed);
  const measured = settings.checkTeacher === Switch.ON ? gold : gold.slice(0, auditRecordRows);
  const recordStep = settings.checkTeacher === Switch.ON ? "teacher_record" : "audit/record";
  const { opinions: record } = await labelRows(campaign, recordStep, measured.slice(0, spending.callsLeft), gold);
  const ids = new Set(suspected.map(({ rowId }) => rowId));
  const rows = seed.seedRows.filter(({ id }) => ids.has(id)).slice(0, spending.callsLeft);
  const { opinions } = await labelRows(campaign, `iteration/${iteration}/audit`, rows, gold);

  const labels = [...new Set(seed.seedRows.map(({ output }) => output))];
  const answers = fit.heldOut.map((one) => ({ rowId: one.rowId, answer: one.answer, scores: one.labelScores }));
  return doubts(
    suspected,
    calibrate(opinions, record, gold),
    measureReliability(seed.seedRows, answers, labels),
    measureReliability(measured, calibrate(record, record, gold), labels),
  );
}
