/** Checks iterations and seed rows: what each was trained on and scored, and which rows were wrong, from the answers. */
import { proportion } from "@tutelage/platform/interval";
import { selects } from "@tutelage/platform/rowfile";
import { stateOf } from "@tutelage/platform/seedrowstate";
import {
  Disputes,
  HeldOutOverlaps,
  type Iteration,
  type SeedGrade,
  type SeedRow,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { type Answer, type Evidence, isReviewed, rowsOf, settingsAt } from "./evidence.js";
import type { Findings } from "./findings.js";

export function checkIterations(evidence: Evidence, found: Findings): string {
  for (const [index, iteration] of evidence.iterations.entries()) {
    const { number } = iteration;
    const what = `iteration ${number}`;
    const same = (name: string, stored: unknown, recomputed: unknown) =>
      found.same("iterations", `${what}: ${name}`, stored, recomputed);
    same("number", number, index);
    const version = evidence.versions.get(iteration.datasetVersionId)?.version;
    same("dataset_digest", iteration.datasetDigest, version?.digest);
    same("train_rows", iteration.trainRows, trainRows(evidence, iteration));
    if (iteration.trainingRunId !== "") {
      same("checkpoint", iteration.checkpoint, evidence.trainingRuns.get(iteration.trainingRunId)?.checkpoint);
    }
    same("dev_accuracy", iteration.devAccuracy, accuracyOfStep(evidence, `iteration/${number}/dev`));
    same("cross_fit_accuracy", iteration.crossFitAccuracy, crossFitAccuracy(evidence, number));
    const isTested = evidence.steps.has(`test/iteration/${number}`);
    // A fork takes an iteration over with what its parent measured, until it measures by itself.
    if (isTested || number >= (evidence.campaign.forkedFrom?.iteration ?? 0)) {
      const again = isTested ? accuracyOfStep(evidence, `test/${iteration.trainingRunId}`) : undefined;
      same("test_accuracy", iteration.testAccuracy, again);
    }
    if (iteration.mined && !isReviewed(evidence)) {
      const wrong = [...settled(evidence, number).values()].filter(({ correct }) => !correct);
      same("errors", iteration.errors, wrong.length);
    }
    const own = evidence.candidates.filter((one) => one.iteration === number);
    same("candidates", iteration.candidates, own.length);
    same("accepted", iteration.accepted, own.filter(({ accepted }) => accepted).length);
    const rejected: Record<string, number> = {};
    for (const { rejection } of own) if (rejection !== "") rejected[rejection] = (rejected[rejection] ?? 0) + 1;
    same("rejected", iteration.rejected, rejected);
    for (const [phase, seconds] of Object.entries(iteration.phaseSeconds)) {
      same(`phase_seconds.${phase}`, seconds, secondsOf(evidence, `iteration/${number}/${phase}`));
    }
    const sum = Object.values(iteration.phaseSeconds).reduce((a, b) => a + b, 0);
    same("seconds", iteration.seconds, sum);
  }
  return `${evidence.iterations.length} iterations`;
}

/** Every seed row of the version with the grades, the state and the counts that follow from answers and candidates. */
export function checkSeedRows(evidence: Evidence, found: Findings): string {
  const version = evidence.versions.get(evidence.campaign.request?.datasetVersionId ?? "");
  const ids = [...rowsOf(version)]
    .filter(({ split, origin }) => split === Split.TRAIN && origin === RowOrigin.SEED)
    .map(({ id }) => id);
  found.same(
    "seed-rows",
    "their ids",
    evidence.seedRows.map(({ row }) => row?.id),
    ids,
  );
  const graded = [...evidence.steps.keys()].flatMap((name) => /^iteration\/(\d+)\/grades$/.exec(name)?.[1] ?? []);
  const settledBy = new Map(graded.map((number) => [Number(number), settled(evidence, Number(number))]));
  const counts = new Map<string, Pick<SeedRow, "candidates" | "accepted">>();
  for (const { seedRowId, accepted } of evidence.candidates) {
    const before = counts.get(seedRowId) ?? { candidates: 0, accepted: 0 };
    counts.set(seedRowId, { candidates: before.candidates + 1, accepted: before.accepted + Number(accepted) });
  }
  let grades = 0;
  for (const { row, ...stored } of evidence.seedRows) {
    const id = row?.id ?? "";
    const recomputed: SeedGrade[] = [];
    for (const iteration of [...settledBy.keys()].sort((a, b) => a - b)) {
      const one = settledBy.get(iteration)?.get(id);
      if (one === undefined) continue;
      const { correct, answer, expectedLogProbability } = one;
      const expectedProbability = expectedLogProbability === undefined ? undefined : Math.exp(expectedLogProbability);
      recomputed.push({ iteration, correct, answer, expectedProbability });
    }
    grades += recomputed.length;
    if (isReviewed(evidence)) continue;
    const { candidates = 0, accepted = 0 } = counts.get(id) ?? {};
    const again = { grades: recomputed, candidates, accepted, state: stateOf(recomputed) };
    found.same("seed-rows", `row ${id}`, stored, again);
  }
  return `${evidence.seedRows.length} seed rows, ${grades} grades`;
}

/** The rows that its student was given; where it had none, those of the version but what the settings leave out. */
function trainRows(evidence: Evidence, { trainingRunId, datasetVersionId, trainRows }: Iteration): number | undefined {
  const version = evidence.versions.get(datasetVersionId);
  const source = evidence.trainingRuns.get(trainingRunId)?.request?.rows;
  if (source !== undefined) return [...rowsOf(version)].filter(selects(source)).length;
  // Which rows a decision left out is not in the parts, and how many overlaps did is in the report.
  const drops = evidence.campaign.request?.settings?.heldOutOverlaps === HeldOutOverlaps.DROP;
  if (isReviewed(evidence) || (drops && evidence.report === undefined)) return trainRows;
  return (version?.version.splits?.train ?? 0) - (evidence.report?.splitOverlaps?.droppedRows ?? 0);
}

/** The answers by which an iteration's rows were mined: of students that had not seen them, or of its own. */
export function settled(
  evidence: Evidence,
  number: number,
): Map<string, Pick<Answer, "correct" | "answer" | "expectedLogProbability">> {
  const own = evidence.steps.get(`iteration/${number}/mine`)?.evaluationRunId;
  const runIds = own === undefined ? crossFitRuns(evidence, number) : [own];
  const disputes = settingsAt(evidence, number)?.disputes;
  const rows = new Map<string, Pick<Answer, "correct" | "answer" | "expectedLogProbability">>();
  for (const runId of runIds) {
    for (const [id, { tooLong, disputed, correct, answer, text, expectedLogProbability }] of evidence.answers.get(
      runId,
    ) ?? []) {
      if (tooLong || (disputed && disputes === Disputes.ASIDE)) continue;
      const flips = disputed && disputes === Disputes.LENIENT;
      const read = flips || answer === "" ? text : answer;
      rows.set(id, { correct: correct !== flips, answer: read, expectedLogProbability });
    }
  }
  return rows;
}

function crossFitRuns({ steps }: Evidence, number: number): string[] {
  const name = new RegExp(`^iteration/${number}/cross_fit/\\d+/evaluate$`);
  return [...steps.values()].filter((step) => name.test(step.name)).map((step) => step.evaluationRunId);
}

/** Over the seed rows, each answered by a student that had not seen it. */
function crossFitAccuracy(evidence: Evidence, number: number): Proportion | undefined {
  const runIds = crossFitRuns(evidence, number);
  if (runIds.length === 0) return undefined;
  const answers = runIds
    .flatMap((runId) => [...(evidence.answers.get(runId) ?? [])])
    .filter(([id]) => evidence.rows.get(id)?.origin === RowOrigin.SEED);
  return proportion(answers.filter(([, { correct }]) => correct).length, answers.length);
}

/** Of the answers themselves, whatever the run says. */
export function accuracyOfRun({ answers }: Evidence, runId: string | undefined): Proportion | undefined {
  const own = answers.get(runId ?? "");
  return own && proportion([...own.values()].filter(({ correct }) => correct).length, own.size);
}

function accuracyOfStep(evidence: Evidence, name: string): Proportion | undefined {
  return accuracyOfRun(evidence, evidence.steps.get(name)?.evaluationRunId);
}

function secondsOf({ steps }: Evidence, prefix: string): number {
  let seconds = 0;
  for (const { name, seconds: own } of steps.values()) if (name.startsWith(prefix)) seconds += own;
  return seconds;
}
