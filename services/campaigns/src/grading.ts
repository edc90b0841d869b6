/** What an iteration's answers come to: grades, rows in doubt, and the rows that are mined. */
import type { Row } from "@tutelage/proto/task/v1/task";
import { auditSeed } from "./auditing.js";
import type { Campaign, SeedData } from "./campaign.js";
import { type MinedRow, openDisputes, settle } from "./mining.js";
import { type Decisions, findings, type TakenDecision, takeDecisions } from "./reviewing.js";
import { putFindings } from "./reviewstore.js";
import type { CrossFit } from "./students.js";

/** A round whose answers are graded. */
export interface Graded {
  /** What is mined; rows in doubt and those that are left out are not among it. */
  mined: MinedRow[];
  /** Ids of the rows that wait for a decision in this iteration. */
  inDoubt: ReadonlySet<string>;
  /** Why nothing is mined, where nothing wrong is left. */
  reason: "disputed" | "doubted" | "no_errors";
  /** What somebody decided since the round before. */
  taken: TakenDecision[];
}

/** Stores the grades, opens reviews, and takes up what was decided. Throws Rest where the campaign waits for that. */
export async function gradeRound(
  campaign: Campaign,
  number: number,
  seed: SeedData,
  judged: readonly Row[],
  answers: readonly MinedRow[],
  fit: CrossFit | undefined,
  decisions: Decisions,
): Promise<Graded> {
  const { disputes } = campaign.settings;
  const told = (rowIds: readonly string[]) => ({
    iteration: number,
    rows: rowIds.length,
    row_ids: rowIds.slice(0, 100),
  });
  const answered = new Set(answers.map((one) => one.row.id));
  const tooLong = judged.filter((row) => !answered.has(row.id)).map((row) => row.id);
  if (tooLong.length > 0) await campaign.emit("rows.too_long", told(tooLong));
  const found = await auditSeed(campaign, number, seed, fit, decisions.settled);
  // Stored, so that who goes on sets the same rows aside. An earlier release stored nothing, and set none aside.
  const settled = (aside: readonly string[]) => settle(answers, new Set(aside), disputes, decisions.readings);
  const stored = await campaign.step(
    `iteration/${number}/grades`,
    async (): Promise<{ aside: string[]; doubted?: string[] } | null> => ({
      aside: openDisputes(answers, disputes, decisions.readings),
      doubted: found.map(({ rowId }) => rowId),
    }),
    async (transaction, result) => {
      const aside = new Set(result?.aside);
      await campaign.store.putGrades(transaction, campaign.key, number, settled([...aside]));
      const open = answers.map((one) => ({ ...one, disputed: aside.has(one.row.id) }));
      await putFindings(transaction, campaign.key, findings(number, open, found));
    },
  );
  const { aside = [], doubted = [] } = stored ?? {};
  if (aside.length > 0) await campaign.emit("rows.disputed", told(aside));
  if (doubted.length > 0) await campaign.emit("rows.doubted", told(doubted));
  decisions.opened ||= aside.length + doubted.length > 0;

  const taken = decisions.opened ? await takeDecisions(campaign, number) : [];
  decisions.take(taken);
  const inDoubt = new Set([...aside, ...doubted].filter((id) => !decisions.settled.has(id)));
  const kept = new Set(decisions.keep(answers.map(({ row }) => row)).map(({ id }) => id));
  // What was written from a row in doubt breeds its error as the row itself would.
  const isMined = ({ id, rootRowId }: Row) => kept.has(id) && !inDoubt.has(rootRowId);
  return {
    mined: settled([...inDoubt]).filter(({ row }) => isMined(row)),
    inDoubt,
    reason: aside.some((id) => inDoubt.has(id)) ? "disputed" : inDoubt.size > 0 ? "doubted" : "no_errors",
    taken,
  };
}
