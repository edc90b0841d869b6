/** Checks what a campaign reports: accuracies, the paired gain, the choice, loss curves, the sentence on top. */

import { chooseIteration, pairedGain } from "@tutelage/platform/choosing";
import { claims, compare } from "@tutelage/platform/comparisons";
import { thinned } from "@tutelage/platform/losscurve";
import { signedPoints } from "@tutelage/platform/signedpoints";
import type { ArmResult, Outcome } from "@tutelage/proto/campaigns/v1/campaigns";
import { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Evidence } from "./evidence.js";
import type { Findings } from "./findings.js";
import { accuracyOfRun } from "./iterations.js";

/** Nothing but what checkReport looks at; anything else in a report is listed as not made again. */
const checkedParts = new Set<string>([
  "iterations",
  "candidateCount",
  "baselineMetrics",
  "finalMetrics",
  "lossCurves",
  "comparisons",
  "claims",
]);

export function checkOutcome(evidence: Evidence, found: Findings): string {
  const { outcome } = evidence.campaign;
  if (outcome === undefined) return "none: the campaign did not succeed";
  const { baseline, final, otherArms } = outcome;
  const arms = [baseline, final, ...otherArms].filter((arm) => arm !== undefined);
  for (const arm of arms) checkArm(evidence, arm, found);
  const [finalAnswers, baselineAnswers] = [answersOf(evidence, final), answersOf(evidence, baseline)];
  const gain =
    finalAnswers === undefined || baselineAnswers === undefined ? undefined : pairedGain(finalAnswers, baselineAnswers);
  found.same("campaign.json", "outcome.gain", outcome.gain, gain);
  for (const arm of otherArms) {
    const answers = answersOf(evidence, arm);
    const again = finalAnswers && answers && pairedGain(finalAnswers, answers);
    found.same("campaign.json", `outcome, arm ${arm.name}: final_gain`, arm.finalGain, again);
  }
  const chosen = outcome.plainReturned ? -1 : chooseIteration(evidence.iterations)?.number;
  found.same("campaign.json", "outcome.chosen_iteration", outcome.chosenIteration, chosen);
  const version = outcome.plainReturned
    ? evidence.campaign.request?.datasetVersionId
    : evidence.iterations.find(({ number }) => number === outcome.chosenIteration)?.datasetVersionId;
  found.same("campaign.json", "outcome.dataset_version_id", outcome.datasetVersionId, version);
  checkSummary(outcome, found);
  return `${arms.length} arms${gain === undefined ? ", no test rows" : `, the gain over ${gain.n} test rows`}`;
}

function checkArm(evidence: Evidence, arm: ArmResult, found: Findings): void {
  const run = evidence.trainingRuns.get(arm.trainingRunId);
  const same = (name: string, stored: unknown, recomputed: unknown) =>
    found.same("campaign.json", `outcome, arm ${arm.name}: ${name}`, stored, recomputed);
  same("checkpoint", arm.checkpoint, run?.checkpoint);
  if (arm.trainingRunId !== "") {
    same("train_rows", arm.trainRows, run?.rows);
    same("steps", arm.steps, run?.lastStep?.totalSteps);
  }
  same("test_accuracy", arm.testAccuracy, accuracyOfRun(evidence, arm.testEvaluationRunId));
  same(
    "tries_test_accuracy",
    arm.triesTestAccuracy,
    arm.triesTestEvaluationRunIds.map((id) => accuracyOfRun(evidence, id)),
  );
  checkStudent(evidence, arm, found);
  const { choosingScore } = arm;
  if (choosingScore === undefined) return;
  const ofStudent = [...evidence.steps.values()].filter(
    ({ name, evaluationRunId }) =>
      name.endsWith("/dev") && studentOf(evidence, evaluationRunId) === (arm.checkpoint?.uri ?? ""),
  );
  const scores = [
    ...ofStudent.map(({ evaluationRunId }) => accuracyOfRun(evidence, evaluationRunId)),
    // The iteration that was chosen by cross-fitting.
    ...(arm.name === "campaign" ? evidence.iterations : [])
      .filter(({ number }) => number === evidence.campaign.outcome?.chosenIteration)
      .map((one) => one.crossFitAccuracy),
  ];
  const own = scores.find((score) => score?.successes === choosingScore.successes && score.n === choosingScore.n);
  if (own !== undefined) same("choosing_score", choosingScore, own);
  else
    found.differs(
      "campaign.json",
      `outcome, arm ${arm.name}: no dev or cross-fitted accuracy of its student is its choosing_score`,
    );
}

/** The test rows were answered by the arm's own student. */
function checkStudent(evidence: Evidence, { name, checkpoint, testEvaluationRunId }: ArmResult, found: Findings): void {
  if (testEvaluationRunId === "") return;
  found.same(
    "evaluation-runs",
    `run ${testEvaluationRunId}, of arm ${name}: checkpoint_uri`,
    studentOf(evidence, testEvaluationRunId),
    // The base model, and answers that are no student's, have none.
    checkpoint?.uri ?? "",
  );
}

function studentOf({ evaluationRuns }: Evidence, runId: string): string | undefined {
  return evaluationRuns.get(runId)?.request?.checkpointUri;
}

function answersOf({ answers }: Evidence, arm: ArmResult | undefined): GradedPrediction[] | undefined {
  const own = answers.get(arm?.testEvaluationRunId ?? "");
  return own && [...own].map(([rowId, { correct }]) => GradedPrediction.fromPartial({ rowId, correct }));
}

/** Every number in the sentence is one of those that the parts come to. */
function checkSummary({ summary, chosenIteration, gain, baseline, final }: Outcome, found: Findings): void {
  const percent = (value: number | undefined) => (value === undefined ? [] : [(value * 100).toFixed(1)]);
  const right = new Set([
    String(chosenIteration),
    "95",
    ...percent(final?.testAccuracy?.value),
    ...percent(baseline?.testAccuracy?.value),
    ...(gain === undefined ? [] : [String(gain.n), ...[gain.gain, gain.ci95Low, gain.ci95High].map(signedPoints)]),
  ]);
  for (const [number] of summary.matchAll(/[+−-]?\d+(?:\.\d+)?/g)) {
    if (!right.has(number)) found.differs("campaign.json", `outcome.summary says ${number}, which the parts do not`);
  }
}

/** Also gives the parts of the report that nothing here makes again. */
export function checkReport(evidence: Evidence, notMadeAgain: string[], found: Findings): string {
  const { report, campaign } = evidence;
  const { outcome } = campaign;
  if ((report === undefined) !== (outcome === undefined)) {
    found.differs("report.json", `is ${report === undefined ? "missing" : "there, without an outcome"}`);
  }
  if (report === undefined || outcome === undefined) return "none: the campaign did not succeed";
  found.same("report.json", "iterations", report.iterations, evidence.iterations);
  found.same("report.json", "candidate_count", report.candidateCount, evidence.candidates.length);
  const metricsOf = (arm: ArmResult | undefined) =>
    evidence.evaluationRuns.get(arm?.testEvaluationRunId ?? "")?.metrics;
  found.same("report.json", "baseline_metrics", report.baselineMetrics, metricsOf(outcome.baseline));
  found.same("report.json", "final_metrics", report.finalMetrics, metricsOf(outcome.final));
  const curve = (name: string, arm: ArmResult | undefined) =>
    thinned(name, evidence.losses.get(arm?.trainingRunId ?? "") ?? []);
  const curves = [
    curve("plain", outcome.baseline),
    ...(outcome.plainReturned ? [] : [curve("campaign", outcome.final)]),
  ];
  found.same("report.json", "loss_curves", report.lossCurves, curves);
  const compared = compare(
    [outcome.baseline, ...outcome.otherArms].flatMap((arm) => {
      const [final, other] = [answersOf(evidence, outcome.final), answersOf(evidence, arm)];
      return arm === undefined || final === undefined || other === undefined
        ? []
        : [{ arm: arm.name, gain: pairedGain(final, other) }];
    }),
  );
  found.same("report.json", "comparisons", report.comparisons, compared);
  found.same("report.json", "claims", report.claims, claims(outcome, compared));
  const parts = Object.entries(report).filter(
    ([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0),
  );
  notMadeAgain.push(...parts.map(([name]) => name).filter((name) => !checkedParts.has(name)));
  return `${parts.length - notMadeAgain.length} parts`;
}
