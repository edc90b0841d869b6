/** What the results of all experiments come to: every number of docs/results.md. Pure. */
import {
  bootstrapP,
  crossedBootstrap,
  type Estimate,
  interval95,
  mean,
  resampledMeans,
  standardDeviation,
  type Table,
} from "@tutelage/platform/bootstrap";
import { smallestDetectable } from "@tutelage/platform/detectable";
import { holm } from "@tutelage/platform/holm";
import { mcnemar } from "@tutelage/platform/mcnemar";
import { defaultVariant } from "./experimentfile.js";
import type { Result } from "./resultfile.js";

/** An arm on a task's test rows. */
export interface ArmSummary extends Estimate {
  replicates: number;
  /** Test rows. */
  n: number;
  /** Means over replicates. */
  train_rows: number;
  steps: number;
  /** Accuracy less that of plain fine-tuning, paired; null for plain fine-tuning itself. */
  gain_over_none: Estimate | null;
}

/** What a whole campaign took; means over replicates. */
export interface CampaignSummary {
  replicates: number;
  plain_returned: number;
  rows_added: number;
  /** Replies that were used again count as calls. */
  teacher_calls: number;
  cost_micro_usd: number;
  wall_seconds: number;
  training_seconds: number;
  /** By iteration: how many replicates had it, and their means. */
  iterations: { number: number; replicates: number; train_rows: number; errors: number; accuracy: number | null }[];
}

/** The default campaign's student minus an arm, on the same rows of the same replicates. */
export interface GainSummary extends Estimate {
  against: string;
  replicates: number;
  /** Of each replicate, in order. */
  by_replicate: number[];
  /** Two-sided, by the bootstrap over replicates and rows; then after Holm's correction over the task's arms. */
  p: number;
  holm_p: number;
  /** McNemar's p within each replicate. */
  mcnemar_p: number[];
  /** Smallest true gain that would have been found with 80 % probability. */
  detectable: number;
}

export interface TaskSummary {
  seed_rows: number;
  tuned: boolean;
  arms: Record<string, ArmSummary>;
  campaigns: Record<string, CampaignSummary>;
  gains: GainSummary[];
  gain_over_none: GainSummary | null;
  gain_over_none_matched: GainSummary | null;
  gain_over_random: GainSummary | null;
  /** null where the interval of the oracle's own gain includes 0. */
  share_of_oracle_gain: Estimate | null;
  /** Arms that some replicates did not measure, with the reasons. */
  left_out: Record<string, string[]>;
}

/** By experiment, in order of their names. Throws where replicates of a variant were asked for differently. */
export function summarize(results: readonly Result[]): Record<string, TaskSummary> {
  const names = [...new Set(results.map(({ experiment }) => experiment))].sort();
  return Object.fromEntries(
    names.map((name) => [name, summarizeTask(results.filter(({ experiment }) => experiment === name))]),
  );
}

function summarizeTask(results: readonly Result[]): TaskSummary {
  const variants = [...new Set(results.map(({ variant }) => variant))];
  for (const variant of variants) requireAlike(results.filter((one) => one.variant === variant));
  const ordered = [...results].sort((a, b) => a.replicate - b.replicate);
  const main = ordered.filter(({ variant }) => variant === defaultVariant);
  const arms = armsOf(ordered, main);
  const student = arms.get(defaultVariant);
  const gains =
    student === undefined
      ? []
      : gainsOf(
          student,
          [...arms.values()].filter((one) => one !== student),
        );
  const against = (name: string) => gains.find((one) => one.against === name) ?? null;
  const oracle = arms.get("oracle");
  return {
    seed_rows: results[0]?.seed_rows ?? 0,
    tuned: results.some(({ tuned }) => tuned),
    arms: Object.fromEntries([...arms].map(([name, arm]) => [name, armSummary(arm)])),
    campaigns: Object.fromEntries(
      variants.map((name) => [name, campaignSummary(ordered.filter(({ variant }) => variant === name))]),
    ),
    gains,
    gain_over_none: against("none"),
    gain_over_none_matched: against("none_matched"),
    gain_over_random: against("random"),
    share_of_oracle_gain: student === undefined || oracle === undefined ? null : shareOf(student, oracle),
    left_out: leftOut(ordered),
  };
}

function requireAlike(replicates: readonly Result[]): void {
  const [first] = replicates;
  for (const one of replicates) {
    const what = `${one.experiment}/${one.variant}`;
    if (one.settings_digest !== first?.settings_digest || one.asked_digest !== first.asked_digest) {
      throw new Error(
        `Replicates ${first?.replicate} and ${one.replicate} of ${what} ran with other settings; move those of one kind away.`,
      );
    }
    if (one.test_rows !== first.test_rows) {
      throw new Error(`Replicates ${first.replicate} and ${one.replicate} of ${what} were tested on other rows.`);
    }
  }
}

interface ArmReplicate {
  /** Share of its students that answered each test row rightly. */
  correct: number[];
  /** The same less plain fine-tuning; undefined where that is not known. */
  overNone: number[] | undefined;
  /** One student's answers, for a test within the replicate. */
  student: number[];
  trainRows: number;
  steps: number;
}
type Arm = { name: string; byReplicate: Map<number, ArmReplicate> };

/** The default campaign's student, its arms, then the other variants' students. */
function armsOf(results: readonly Result[], main: readonly Result[]): Map<string, Arm> {
  const plain = new Map(main.map((one) => [one.replicate, meanOf(one.arms.none?.students ?? [])]));
  const arms = new Map<string, Arm>();
  const add = (name: string, { replicate }: Result, one: ArmReplicate) => {
    const arm = arms.get(name) ?? { name, byReplicate: new Map() };
    arm.byReplicate.set(replicate, one);
    arms.set(name, arm);
  };
  const isMain = ({ variant }: Result) => variant === defaultVariant;
  for (const one of [...results.filter(isMain), ...results.filter((result) => !isMain(result))]) {
    for (const [name, arm] of Object.entries(one.arms)) {
      if (name !== "returned" && !isMain(one)) continue;
      const correct = meanOf(arm.students);
      const none = plain.get(one.replicate);
      // Where the plain student is given back it is compared with itself: the mean of the plain tries would differ from
      // it by chance alone.
      const isPlain = name === "returned" && one.plain_returned;
      add(name === "returned" ? one.variant : name, one, {
        correct,
        overNone: isPlain ? correct.map(() => 0) : none && less(correct, none),
        student: digits(arm.students[name === "none" ? one.plain_student : 0] ?? ""),
        trainRows: arm.train_rows,
        steps: arm.steps,
      });
    }
  }
  return arms;
}

/** Share of the students that answered each test row rightly. */
export function meanOf(students: readonly string[]): number[] {
  const all = students.map(digits);
  return (all[0] ?? []).map((_, row) => mean(all.map((one) => one[row] ?? 0)));
}

const digits = (rows: string): number[] => [...rows].map(Number);
const less = (a: readonly number[], b: readonly number[]): number[] => a.map((one, row) => one - (b[row] ?? 0));

function armSummary({ name, byReplicate }: Arm): ArmSummary {
  const replicates = [...byReplicate.values()];
  const overNone = replicates.flatMap((one) => (one.overNone === undefined ? [] : [one.overNone]));
  return {
    ...crossedBootstrap(replicates.map(({ correct }) => correct)),
    replicates: replicates.length,
    n: replicates[0]?.correct.length ?? 0,
    train_rows: mean(replicates.map(({ trainRows }) => trainRows)),
    steps: mean(replicates.map(({ steps }) => steps)),
    gain_over_none: name === "none" || overNone.length === 0 ? null : crossedBootstrap(overNone),
  };
}

function gainsOf(student: Arm, others: readonly Arm[]): GainSummary[] {
  const gains = others.flatMap(({ name, byReplicate }): Omit<GainSummary, "holm_p">[] => {
    const pairs = [...student.byReplicate].flatMap(([replicate, ours]) => {
      const theirs = byReplicate.get(replicate);
      return theirs === undefined ? [] : [{ ours, theirs }];
    });
    if (pairs.length === 0) return [];
    const table = pairs.map(({ ours, theirs }) =>
      name === "none" ? (ours.overNone ?? less(ours.correct, theirs.correct)) : less(ours.correct, theirs.correct),
    );
    const [means = new Float64Array()] = resampledMeans([table]);
    return [
      {
        against: name,
        mean: mean(table.map(mean)),
        ci95: interval95(means),
        replicates: pairs.length,
        by_replicate: table.map(mean),
        p: bootstrapP(means),
        mcnemar_p: pairs.map(({ ours, theirs }) => discordance(ours.student, theirs.student)),
        detectable: smallestDetectable(standardDeviation([...means])),
      },
    ];
  });
  const adjusted = holm(gains.map(({ p }) => p));
  return gains.map((one, index) => ({ ...one, holm_p: adjusted[index] ?? 1 }));
}

function discordance(ours: readonly number[], theirs: readonly number[]): number {
  const only = (a: readonly number[], b: readonly number[]) => a.filter((one, row) => one === 1 && b[row] === 0).length;
  return mcnemar(only(ours, theirs), only(theirs, ours));
}

/** The student's gain over plain fine-tuning as a share of the oracle's: both in the same resamples. */
function shareOf(student: Arm, oracle: Arm): Estimate | null {
  const pairs = [...student.byReplicate].flatMap(([replicate, { overNone }]) => {
    const best = oracle.byReplicate.get(replicate)?.overNone;
    return overNone === undefined || best === undefined ? [] : [{ overNone, best }];
  });
  if (pairs.length === 0) return null;
  const tables: Table[] = [pairs.map(({ overNone }) => overNone), pairs.map(({ best }) => best)];
  const [ours = new Float64Array(), best = new Float64Array()] = resampledMeans(tables);
  if (interval95(best)[0] <= 0) return null;
  const [gain = 0, bestGain = 1] = tables.map((table) => mean(table.map(mean)));
  return { mean: gain / bestGain, ci95: interval95(ours.map((one, resample) => one / (best[resample] ?? 1))) };
}

function campaignSummary(results: readonly Result[]): CampaignSummary {
  const over = (of: (one: Result) => number) => mean(results.map(of));
  const numbers = [...new Set(results.flatMap(({ iterations }) => iterations.map(({ number }) => number)))].sort(
    (a, b) => a - b,
  );
  return {
    replicates: results.length,
    plain_returned: results.filter(({ plain_returned }) => plain_returned).length,
    rows_added: over(({ iterations }) => iterations.reduce((sum, { accepted }) => sum + accepted, 0)),
    teacher_calls: over(({ teacher_usage }) => teacher_usage.calls + teacher_usage.reused_calls),
    cost_micro_usd: over(({ teacher_usage }) => teacher_usage.cost_micro_usd),
    wall_seconds: over(({ wall_seconds }) => wall_seconds),
    training_seconds: over(({ training_seconds }) => training_seconds),
    iterations: numbers.map((number) => {
      const those = results.flatMap(({ iterations }) => iterations.filter((one) => one.number === number));
      const scores = those.flatMap((one) => one.dev_accuracy ?? one.cross_fit_accuracy ?? []);
      return {
        number,
        replicates: those.length,
        train_rows: mean(those.map((one) => one.train_rows)),
        errors: mean(those.map(({ errors }) => errors)),
        accuracy: scores.length === 0 ? null : mean(scores),
      };
    }),
  };
}

function leftOut(results: readonly Result[]): Record<string, string[]> {
  const reasons = new Map<string, Set<string>>();
  for (const { variant, left_out } of results) {
    if (variant !== defaultVariant) continue;
    for (const [name, why] of Object.entries(left_out))
      reasons.set(name, (reasons.get(name) ?? new Set<string>()).add(why));
  }
  return Object.fromEntries([...reasons].map(([name, those]) => [name, [...those]]));
}
