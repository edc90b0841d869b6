/** The end of a campaign: plain fine-tuning on the same number of tries, the choice, and what the test rows say. */

import { betterBeyondChance, chooseIteration, choosingScore, pairedGain } from "@tutelage/platform/choosing";
import { type ArmResult, type Outcome, type PairedGain, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type RowSource, Split } from "@tutelage/proto/task/v1/task";
import { type Campaign, rowSource, type SeedData } from "./campaign.js";
import { rowsOf } from "./clients.js";
import { derivedSeed } from "./random.js";
import {
  type Evaluated,
  evaluateStudent,
  predictions,
  type Round,
  type Student,
  trainRoundStudent,
  trainStudent,
} from "./students.js";

/** A student that an arm tried. */
interface Try {
  student: Student;
  devAccuracy: Proportion | undefined;
}

/** Picks the student to return, measures it beside plain fine-tuning, and sums up. */
export async function concludeCampaign(
  campaign: Campaign,
  seed: SeedData,
  rounds: readonly Round[],
  reason: string,
): Promise<Outcome> {
  const last = rounds.length - 1;
  await campaign.enter(last, "plain");
  const plainTries = await trainPlain(campaign, seed, rounds[0], rounds.length);
  const plain = bestOf(plainTries);

  const chosenIteration = chooseIteration(rounds.map((round) => round.iteration));
  const chosen = rounds[chosenIteration?.number ?? last];
  if (chosen === undefined) throw new Error("A campaign ended without a round.");
  const student = chosen.student ?? (await trainRoundStudent(campaign, chosen.iteration.number, chosen.version));
  // Where only cross-fitting judged the rounds, the chosen one's own student exists from here on.
  chosen.student = student;
  chosen.iteration.trainingRunId = student.trainingRunId;
  chosen.iteration.checkpoint = student.checkpoint;
  const score = choosingScore(chosen.iteration);
  // Do no harm: a student that dev rows find worse than plain fine-tuning is not returned, nor, where there are no dev
  // rows, one that cross-fitting may have found better by chance.
  const plainReturned =
    chosen.iteration.number === 0 ||
    (plain.devAccuracy !== undefined && score !== undefined && score.value < plain.devAccuracy.value) ||
    (plain.devAccuracy === undefined && !standsOut(chosen, rounds[0]));
  const final: Try = plainReturned ? plain : { student, devAccuracy: chosen.iteration.devAccuracy };
  const { wallSeconds } = campaign;

  const otherArms = await trainOtherArms(campaign, seed, final.student);
  const measured = await measure(campaign, seed, rounds, plainTries, plain, final, otherArms);
  const outcome: Outcome = {
    stopReason: reason,
    chosenIteration: plainReturned ? -1 : chosen.iteration.number,
    plainReturned,
    summary: "",
    baseline: {
      ...armResult("plain", plain, plainTries.length, plain.devAccuracy),
      ...measured.baseline,
      triesTestAccuracy: measured.plainTries.map((one) => one.accuracy),
      triesTestEvaluationRunIds: measured.plainTries.map((one) => one.evaluationRunId),
    },
    final: {
      ...armResult("campaign", final, rounds.length, plainReturned ? plain.devAccuracy : score),
      ...measured.final,
    },
    otherArms: otherArms.map((arm, index) => ({
      ...armResult(arm.name, { student: arm.student, devAccuracy: undefined }, 1, undefined),
      ...measured.others[index],
    })),
    gain: measured.gain,
    datasetVersionId: plainReturned ? seed.version.id : chosen.version.id,
    wallSeconds,
  };
  outcome.summary = summarize(outcome);
  return outcome;
}

/** Whether a round is better than plain fine-tuning as far as cross-fitting can tell; where nothing can, it is taken. */
function standsOut({ heldOutRight }: Round, plain: Round | undefined): boolean {
  if (heldOutRight === undefined || plain?.heldOutRight === undefined) return true;
  return betterBeyondChance(plain.heldOutRight, heldOutRight);
}

/**
 * Plain fine-tuning on the seed rows, as many tries as the campaign had rounds unless its settings say how many; the
 * first is iteration 0's student.
 */
export async function trainPlain(
  campaign: Campaign,
  seed: SeedData,
  first: Round | undefined,
  rounds: number,
): Promise<Try[]> {
  const tries = campaign.settings.plainTries === 0 ? rounds : campaign.settings.plainTries;
  const plainTry = async (number: number): Promise<Try> => {
    const shared = number === 0 ? first?.student : undefined;
    const name = `plain/${number}`;
    const student =
      shared ??
      (await trainStudent(campaign, `${name}/train`, {
        rows: rowSource(seed.version, { split: Split.TRAIN }),
        seed: derivedSeed(campaign.settings.seed, "train", number),
      }));
    let devAccuracy = shared === undefined ? undefined : first?.iteration.devAccuracy;
    if (devAccuracy === undefined && seed.devRows > 0) {
      const rows = rowSource(seed.version, { split: Split.DEV });
      devAccuracy = (await evaluateStudent(campaign, `${name}/dev`, student.checkpoint, rows)).accuracy;
    }
    return { student, devAccuracy };
  };
  return await campaign.sideBySide(Array.from({ length: tries }, (_, number) => () => plainTry(number)));
}

/** The best by dev accuracy, the first of equals; the first where there is nothing to choose by. */
function bestOf(tries: readonly Try[]): Try {
  const [first, ...others] = tries;
  if (first === undefined) throw new Error("Plain fine-tuning had no try.");
  return others.reduce(
    (best, one) => ((one.devAccuracy?.value ?? 0) > (best.devAccuracy?.value ?? 0) ? one : best),
    first,
  );
}

/** Arms that were asked for beside the campaign; they decide nothing. */
async function trainOtherArms(
  campaign: Campaign,
  seed: SeedData,
  final: Student,
): Promise<{ name: string; student: Student }[]> {
  const { settings } = campaign;
  const arms: (() => Promise<{ name: string; student: Student }>)[] = [];
  const add = (name: string, rows: RowSource, recipe: Partial<Recipe> = {}) => {
    const options = { rows, seed: derivedSeed(settings.seed, "train", 0), recipe };
    arms.push(async () => ({ name, student: await trainStudent(campaign, `arm/${name}/train`, options) }));
  };
  if (settings.matchedArm === Switch.ON) {
    add("none_matched", rowSource(seed.version, { split: Split.TRAIN }), { exactSteps: final.steps });
  }
  if (settings.noneAllArm === Switch.ON && seed.devRows > 0) {
    const devRows = await rowsOf(campaign.services, campaign.projectId, seed.version.id, Split.DEV, campaign.signal);
    add("none_all", rowSource(seed.version, { rowIds: [...seed.seedRows, ...devRows].map((row) => row.id) }));
  }
  return await campaign.sideBySide(arms);
}

type Measured = Pick<ArmResult, "testAccuracy" | "testEvaluationRunId">;

/** Evaluates every student on the test rows, after everything is chosen. */
async function measure(
  campaign: Campaign,
  seed: SeedData,
  rounds: readonly Round[],
  plainTries: readonly Try[],
  plain: Try,
  final: Try,
  otherArms: readonly { name: string; student: Student }[],
): Promise<{
  baseline: Measured;
  final: Measured;
  others: Measured[];
  plainTries: Evaluated[];
  gain: PairedGain | undefined;
}> {
  const nothing: Measured = { testAccuracy: undefined, testEvaluationRunId: "" };
  if (seed.testRows === 0) {
    return { baseline: nothing, final: nothing, others: otherArms.map(() => nothing), plainTries: [], gain: undefined };
  }
  await campaign.enter(rounds.length - 1, "test");
  const rows = rowSource(seed.version, { split: Split.TEST });
  // A student that plays two parts is evaluated once.
  const tested = [...plainTries, plain, final, ...otherArms, ...rounds].flatMap(({ student }) => student ?? []);
  const students = new Map(tested.map((student) => [student.trainingRunId, student]));
  const evaluated = await campaign.sideBySide(
    [...students].map(([id, { checkpoint }]) => async () => {
      const result = await evaluateStudent(campaign, `test/${id}`, checkpoint, rows);
      return [id, result] as const;
    }),
  );
  const results = new Map(evaluated);
  const onTest = ({ trainingRunId }: Student): Evaluated => results.get(trainingRunId) as Evaluated;
  const asMeasured = ({ accuracy, evaluationRunId }: Evaluated): Measured => ({
    testAccuracy: accuracy,
    testEvaluationRunId: evaluationRunId,
  });
  const baseline = onTest(plain.student);
  const finalMeasured = onTest(final.student);
  for (const { iteration, student } of rounds) {
    if (student === undefined) continue;
    const { accuracy } = onTest(student);
    await campaign.step(
      `test/iteration/${iteration.number}`,
      async () => null,
      (transaction) => campaign.store.putIteration(transaction, campaign.key, { ...iteration, testAccuracy: accuracy }),
    );
  }
  return {
    baseline: asMeasured(baseline),
    final: asMeasured(finalMeasured),
    others: otherArms.map(({ student }) => asMeasured(onTest(student))),
    plainTries: plainTries.map(({ student }) => onTest(student)),
    gain: pairedGain(await predictions(campaign, finalMeasured), await predictions(campaign, baseline)),
  };
}

function armResult(name: string, one: Try, tries: number, score: Proportion | undefined): ArmResult {
  return {
    name,
    checkpoint: one.student.checkpoint,
    trainingRunId: one.student.trainingRunId,
    trainRows: one.student.rows,
    steps: one.student.steps,
    tries,
    choosingScore: score,
    testAccuracy: undefined,
    testEvaluationRunId: "",
    triesTestAccuracy: [],
    triesTestEvaluationRunIds: [],
  };
}

/** The outcome in one sentence. */
function summarize({ plainReturned, chosenIteration, gain, baseline, final }: Outcome): string {
  const chosen = plainReturned
    ? "No iteration beat plain fine-tuning, so the plain student is returned"
    : `The student of iteration ${chosenIteration} is returned`;
  if (gain === undefined) return `${chosen}. There are no test rows to say how much better it is.`;
  const points = (value: number) => `${value >= 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(1)}`;
  return (
    `${chosen}: ${((final?.testAccuracy?.value ?? 0) * 100).toFixed(1)} % of ${gain.n} test rows right, plain fine-tuning ` +
    `${((baseline?.testAccuracy?.value ?? 0) * 100).toFixed(1)} % (${points(gain.gain)} points, 95 % interval ` +
    `${points(gain.ci95Low)} to ${points(gain.ci95High)}).`
  );
}
