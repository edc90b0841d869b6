/** Selection: turns mined rows into orders to the teacher. */

import { rowText } from "@tutelage/platform/conversation";
import { Priority, Selection, type Settings } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Row } from "@tutelage/proto/task/v1/task";
import type { WriteOrder } from "@tutelage/proto/teacher/v1/teacher";
import { difficulty, type MinedRow } from "./mining.js";
import { shuffled } from "./random.js";

/** New rows that an iteration wants for one row. */
export interface Want {
  mined: MinedRow;
  rows: number;
}

/** Where a campaign stands when it orders. */
export interface Standing {
  iteration: number;
  /** Attempts already made for each row id in this campaign. */
  attemptsSoFar: ReadonlyMap<string, number>;
  /** Most calls that may still be made; orders are cut to it by priority. */
  callsLeft: number;
  /**
   * The folds of cross-fitting: only rows of the seed row's own fold are shown. A teacher that is shown a row also copies
   * from it, and a student that must not see that row would learn it through the copy: with examples of all folds the
   * demo's cross-fitted accuracy rose from .67 to .87 in two iterations, its dev accuracy from .73 to .78.
   */
  foldOf?: ReadonlyMap<string, number> | undefined;
  /** In how many iterations each row id was wrong. */
  timesWrong?: ReadonlyMap<string, number>;
}

/** Rows shown to the teacher beside the one to vary; it takes as many as its prompt form has room for. */
const exampleRowsPerOrder = 8;
/** Texts that may lend the new row its first words. */
const openingTextsPerOrder = 8;
/** Weight of the easiest row in the balanced selection: hard rows get up to four times as many new rows. */
const easyWeight = 1 / 3;
/** No row gets more than this times the mean: three rows of a rare label cannot carry its whole share. */
const mostOverMean = 4;

/**
 * How many new rows each mined row gets.
 * `errors_only` (the paper): examples_per_error for each wrong row, nothing for
 * the others. `uncertain`: for each row whose expected output is improbable,
 * `all`: for each row. `balanced`: rows_per_seed_row times the number of seed rows,
 * every label the same share, within a label by difficulty; hard rows cluster
 * in a few labels, and errors alone cost diversity (DESIGN.md has the table).
 */
export function wantedRows(mined: readonly MinedRow[], settings: Settings): Want[] {
  if (settings.selection !== Selection.BALANCED) {
    return mined
      .filter((one) => isSelected(one, settings))
      .map((one) => ({ mined: one, rows: settings.examplesPerError }));
  }
  const budget = Math.round(settings.rowsPerSeedRow * mined.length);
  const groups = labelGroups(mined);
  const shares = apportion(
    groups.map(() => 1),
    budget,
  );
  const wants = new Map<string, number>();
  groups.forEach((group, index) => {
    const counts = apportion(
      group.map((one) => easyWeight + difficulty(one)),
      shares[index] ?? 0,
    );
    const most = Math.max(1, Math.ceil(mostOverMean * settings.rowsPerSeedRow));
    group.forEach((one, position) => {
      wants.set(one.row.id, Math.min(most, counts[position] ?? 0));
    });
  });
  return mined.map((one) => ({ mined: one, rows: wants.get(one.row.id) ?? 0 })).filter((want) => want.rows > 0);
}

function isSelected(one: MinedRow, { selection, uncertainBelow }: Settings): boolean {
  switch (selection) {
    case Selection.ALL:
      return true;
    case Selection.UNCERTAIN:
      // A wrong answer is an error even where its label was scored high.
      return !one.correct || 1 - difficulty(one) < uncertainBelow;
    default:
      return !one.correct;
  }
}

/** The wants in the order in which calls are given to them while there are any. */
function byPriority(
  wants: readonly Want[],
  priority: Priority | undefined,
  timesWrong: ReadonlyMap<string, number>,
): Want[] {
  // A campaign of an earlier release goes on with the orders that it began with.
  if (priority === undefined) return [...wants];
  const hardest = [...wants].sort((a, b) => difficulty(b.mined) - difficulty(a.mined));
  const wrongs = ({ mined }: Want) => timesWrong.get(mined.row.id) ?? 0;
  switch (priority) {
    case Priority.MOST_OFTEN_WRONG:
      return hardest.sort((a, b) => wrongs(b) - wrongs(a));
    case Priority.LABEL_BALANCED: {
      const taken = new Map<string, number>();
      const turn = new Map<Want, number>();
      for (const want of hardest) {
        const { output } = want.mined.row;
        turn.set(want, taken.get(output) ?? 0);
        taken.set(output, (taken.get(output) ?? 0) + 1);
      }
      return hardest.sort((a, b) => (turn.get(a) ?? 0) - (turn.get(b) ?? 0));
    }
    default:
      return hardest;
  }
}

/** Mined rows by output where outputs repeat (a label set), else all in one group. */
function labelGroups(mined: readonly MinedRow[]): MinedRow[][] {
  const byOutput = new Map<string, MinedRow[]>();
  for (const one of mined) byOutput.set(one.row.output, [...(byOutput.get(one.row.output) ?? []), one]);
  if (byOutput.size > mined.length / 2) return [[...mined]];
  return [...byOutput.keys()].sort().map((output) => byOutput.get(output) ?? []);
}

/** Splits a whole number by weights; the largest remainders get what is left (Hamilton's method). */
export function apportion(weights: readonly number[], total: number): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  if (sum === 0) return weights.map(() => 0);
  const exact = weights.map((weight) => (weight / sum) * total);
  const counts = exact.map(Math.floor);
  const left = total - counts.reduce((a, b) => a + b, 0);
  const byRemainder = exact.map((value, index) => ({ index, remainder: value - Math.floor(value) }));
  byRemainder.sort((a, b) => b.remainder - a.remainder || a.index - b.index);
  for (const { index } of byRemainder.slice(0, left)) counts[index] = (counts[index] ?? 0) + 1;
  return counts;
}

/**
 * Orders for the wanted rows: a reply that cannot be used is asked for again,
 * up to attempts_per_row calls for each wanted row.
 * @param seedRows what the teacher is shown beside the row: never rows that it wrote itself, they would breed and drift
 */
export function writeOrders(
  wants: readonly Want[],
  seedRows: readonly Row[],
  settings: Settings,
  { iteration, attemptsSoFar, callsLeft, foldOf, timesWrong = new Map() }: Standing,
): WriteOrder[] {
  let left = callsLeft;
  const callsOf = new Map<Want, number>();
  for (const want of byPriority(wants, settings.priority, timesWrong)) {
    const calls = Math.min(left, want.rows * settings.attemptsPerRow);
    callsOf.set(want, calls);
    left -= calls;
  }
  const orders: WriteOrder[] = [];
  for (const want of wants) {
    const { mined, rows } = want;
    const maxAttempts = callsOf.get(want) ?? 0;
    if (maxAttempts <= 0) continue;
    const others = seedRows.filter((row) => row.id !== mined.row.id && row.id !== mined.row.rootRowId);
    const sameOutput = others.filter((row) => row.output === mined.row.output);
    // A label with a single seed row has no like; rows of other labels would teach the wrong one.
    const pool = sameOutput.length > 0 || labelGroups(wants.map((want) => want.mined)).length > 1 ? sameOutput : others;
    const rootOf = (row: Row) => (row.rootRowId === "" ? row.id : row.rootRowId);
    const ownFold = foldOf?.get(rootOf(mined.row));
    const shown = foldOf === undefined ? pool : pool.filter((row) => foldOf.get(row.id) === ownFold);
    const drawn = (rows: readonly Row[], what: string) =>
      shuffled(rows, (row) => row.id, settings.seed, what, iteration, mined.row.id);
    orders.push({
      seedRow: mined.row,
      wrongAnswer: mined.correct ? "" : mined.answer,
      exampleRows: drawn(shown, "examples").slice(0, exampleRowsPerOrder),
      // Two words give nothing away.
      openingTexts: drawn(pool, "openings").slice(0, openingTextsPerOrder).map(rowText),
      count: Math.min(rows, maxAttempts),
      maxAttempts,
      firstAttempt: attemptsSoFar.get(mined.row.id) ?? 0,
    });
  }
  return orders;
}
