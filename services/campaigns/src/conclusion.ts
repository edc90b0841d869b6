/** The end of a campaign: plain fine-tuning on the same number of tries, the choice, and what the test rows say. */

import { betterBeyondChance, chooseIteration, choosingScore, pairedGain } from "@tutelage/platform/choosing";
import { signedPoints } from "@tutelage/platform/signedpoints";
import type { ArmResult, Outcome, PairedGain } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import { Split } from "@tutelage/proto/task/v1/task";
import { type Arm, armOf, orLeftOut, runArms } from "./arms.js";
import { type Campaign, rowSource, type SeedData } from "./campaign.js";
import {
  type CrossFit,
  type Evaluated,
  evaluateAnswers,
  evaluateStudent,
  predictions,
  type Round,
  type Student,
  trainRoundStudent,
} from "./students.js";
import { bestOf, plainTryCount, type Try, trainPlain } from "./tries.js";

/**
 * Picks the student to return, measures it beside plain fine-tuning and whatever else was asked for, and sums up.
 * @param firstFit the cross-fitted students that know the seed rows only
 */
export async function concludeCampaign(
  campaign: Campaign,
  seed: SeedData,
  rounds: readonly Round[],
  firstFit: CrossFit | undefined,
  reason: string,
): Promise<Outcome> {
  const last = rounds.length - 1;
  await campaign.enter(last, "plain");
  const plainTries = await trainPlain(campaign, seed, rounds[0], rounds.length);
  const plain = bestOf(plainTries);

  const chosenIteration = chooseIteration(rounds.map((round) => round.iteration));
  const chosen = rounds[chosenIteration?.number ?? last];
  if (chosen === undefined) throw new Error("A campaign ended without a round.");
  const student =
    chosen.student ?? (await trainRoundStudent(campaign, chosen.iteration.number, chosen.version, chosen.leftOut));
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

  // The result is measured before whatever it is compared with.
  const measured = await measure(campaign, seed, rounds, plainTries, plain, final);
  if (campaign.settings.arms.length > 0) await campaign.enter(last, "arms");
  const arms = await runArms(campaign, {
    seed,
    final: final.student,
    // Where no iteration that added rows was chosen, the one that had the most.
    grown: chosen.iteration.number > 0 ? chosen : (rounds.at(-1) ?? chosen),
    writeCalls: rounds.reduce((calls, { iteration }) => calls + iteration.candidates, 0),
    firstFit,
    // Without dev rows nothing chooses among them.
    tries: seed.devRows > 0 ? plainTryCount(campaign, rounds.length) : 1,
  });
  const measuredArms = await measureArms(campaign, seed, arms, measured.final);
  const outcome: Outcome = {
    stopReason: reason,
    chosenIteration: plainReturned ? -1 : chosen.iteration.number,
    plainReturned,
    summary: "",
    baseline: {
      ...tryResult("plain", plain, plainTries.length, plain.devAccuracy),
      ...measured.baseline,
      triesTestAccuracy: measured.plainTries.map((one) => one.accuracy),
      triesTestEvaluationRunIds: measured.plainTries.map((one) => one.evaluationRunId),
    },
    final: {
      ...tryResult("campaign", final, rounds.length, plainReturned ? plain.devAccuracy : score),
      ...measured.final,
    },
    otherArms: measuredArms,
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

type Measured = Pick<ArmResult, "testAccuracy" | "testEvaluationRunId">;

/** Evaluates every student on the test rows, after everything is chosen. */
async function measure(
  campaign: Campaign,
  seed: SeedData,
  rounds: readonly Round[],
  plainTries: readonly Try[],
  plain: Try,
  final: Try,
): Promise<{
  baseline: Measured;
  final: Measured;
  plainTries: Evaluated[];
  gain: PairedGain | undefined;
}> {
  const nothing: Measured = { testAccuracy: undefined, testEvaluationRunId: "" };
  if (seed.testRows === 0) return { baseline: nothing, final: nothing, plainTries: [], gain: undefined };
  await campaign.enter(rounds.length - 1, "test");
  const rows = rowSource(seed.version, { split: Split.TEST });
  // A student that plays two parts is evaluated once.
  const trained = [...plainTries, plain, final, ...rounds].flatMap(({ student }) => student ?? []);
  const students = new Map(trained.map((student) => [student.trainingRunId, student]));
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
  const ofFinal = await predictions(campaign, finalMeasured);
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
    plainTries: plainTries.map(({ student }) => onTest(student)),
    gain: pairedGain(ofFinal, await predictions(campaign, baseline)),
  };
}

/** Evaluates the arms on the test rows, and compares each with the returned student. */
async function measureArms(
  campaign: Campaign,
  seed: SeedData,
  arms: readonly Arm[],
  final: Measured,
): Promise<ArmResult[]> {
  const rows = rowSource(seed.version, { split: Split.TEST });
  return await campaign.sideBySide(
    arms.map(({ result, contender }) => async () => {
      if (contender === undefined) return result;
      const { name } = result;
      const step = `test/arm/${name}`;
      const arm = await orLeftOut(campaign, name, async () => {
        const one =
          "answers" in contender
            ? await evaluateAnswers(campaign, step, rows, contender.answers)
            : await evaluateStudent(campaign, step, contender.student, rows, contender.asked);
        const [ofFinal, ofArm] = await Promise.all(
          [final.testEvaluationRunId, one.evaluationRunId].map((id) => predictions(campaign, { evaluationRunId: id })),
        );
        const finalGain = pairedGain(ofFinal ?? [], ofArm ?? []);
        const known = { testAccuracy: one.accuracy, testEvaluationRunId: one.evaluationRunId, finalGain };
        return { result: { ...result, ...known }, contender };
      });
      return arm.result;
    }),
  );
}

function tryResult(name: string, one: Try, tries: number, score: Proportion | undefined): ArmResult {
  return armOf(name, {
    checkpoint: one.student.checkpoint,
    trainingRunId: one.student.trainingRunId,
    trainRows: one.student.rows,
    steps: one.student.steps,
    tries,
    choosingScore: score,
  });
}

/** The outcome in one sentence. */
function summarize({ plainReturned, chosenIteration, gain, baseline, final }: Outcome): string {
  const chosen = plainReturned
    ? "No iteration beat plain fine-tuning, so the plain student is returned"
    : `The student of iteration ${chosenIteration} is returned`;
  if (gain === undefined) return `${chosen}. There are no test rows to say how much better it is.`;
  return (
    `${chosen}: ${((final?.testAccuracy?.value ?? 0) * 100).toFixed(1)} % of ${gain.n} test rows right, plain fine-tuning ` +
    `${((baseline?.testAccuracy?.value ?? 0) * 100).toFixed(1)} % (${signedPoints(gain.gain)} points, 95 % interval ` +
    `${signedPoints(gain.ci95Low)} to ${signedPoints(gain.ci95High)}).`
  );
}
