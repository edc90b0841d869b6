/** Checks trainings and what students answered: which rows, graded anew, and the metrics that follow. */
import { gradePrediction } from "@tutelage/platform/gradedprediction";
import { type Grade, metricsOf } from "@tutelage/platform/metrics";
import { selects } from "@tutelage/platform/rowfile";
import { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { type Evidence, rowsOf, type VersionRows } from "./evidence.js";
import type { Findings } from "./findings.js";

/** Each step's training succeeded, on rows of a version in the bundle, with every step's loss; and what they took in all. */
export function checkTrainings(evidence: Evidence, found: Findings): string {
  const artifacts = versionsByArtifact(evidence);
  let own = 0;
  let shared = 0;
  for (const { name, trainingRunId, shared: isShared } of evidence.steps.values()) {
    if (trainingRunId === "") continue;
    const run = evidence.trainingRuns.get(trainingRunId);
    if (run?.checkpoint === undefined || run.run?.status !== RunStatus.SUCCEEDED) {
      found.differs("training-runs", `step ${name}: its training run ${trainingRunId} is missing, or did not succeed`);
      continue;
    }
    if (isShared) shared += run.chargedSeconds;
    else own += run.chargedSeconds;
    const { sha256 = "" } = run.request?.rows ?? {};
    if (!artifacts.has(sha256)) {
      found.differs(
        "training-runs",
        `run ${trainingRunId} (${name}): no version has the rows ${sha256} it was trained on`,
      );
    }
    const steps = evidence.losses.get(trainingRunId)?.length ?? 0;
    found.same("training-steps", `run ${trainingRunId} (${name}): steps`, steps, run.lastStep?.step ?? 0);
  }
  const { trainingSeconds, forkedFrom } = evidence.campaign;
  found.same("campaign.json", "training_seconds", trainingSeconds, own);
  if (forkedFrom !== undefined) {
    found.same("campaign.json", "forked_from.shared_training_seconds", forkedFrom.sharedTrainingSeconds, shared);
  }
  return `${evidence.trainingRuns.size} trainings, ${[...evidence.losses.values()].flat().length} steps`;
}

/** Grades every prediction anew, and adds them up. Reads the answers into the evidence on the way. */
export async function checkPredictions(evidence: Evidence, found: Findings): Promise<string> {
  const artifacts = versionsByArtifact(evidence);
  let count = 0;
  let current: { id: string; rowIds: string[]; grades: Grade[] } | undefined;
  const close = () => {
    if (current === undefined) return;
    checkRun(evidence, artifacts, current, found);
  };
  for await (const { json, line } of evidence.bundle.documents("predictions")) {
    const { runId = "" } = json as { runId?: string };
    const stored = GradedPrediction.fromJSON(json);
    if (current?.id !== runId) {
      close();
      if (evidence.answers.has(runId))
        found.differs(line.member, `line ${line.line}: run ${runId} comes a second time`);
      current = { id: runId, rowIds: [], grades: [] };
      evidence.answers.set(runId, new Map());
    }
    const row = evidence.rows.get(stored.rowId);
    const where = `line ${line.line}: the answer to row ${stored.rowId} in run ${runId}`;
    if (row !== undefined && row.output !== stored.expected) {
      found.differs(line.member, `${where} was graded against another output than the row's`);
    }
    const { graded, grade } = gradePrediction(stored, stored.expected, evidence.task);
    found.same(line.member, where, stored, { ...graded, labelScores: stored.labelScores });
    current.rowIds.push(stored.rowId);
    current.grades.push(grade);
    evidence.answers.get(runId)?.set(stored.rowId, {
      correct: graded.correct,
      disputed: graded.disputed,
      tooLong: graded.tooLong,
      answer: graded.answer,
      text: graded.text,
      expectedLogProbability: stored.labelScores.find(({ label }) => label === stored.expected)?.logProbability,
    });
    count += 1;
  }
  close();
  for (const id of evidence.evaluationRuns.keys()) {
    if (!evidence.answers.has(id)) found.differs("predictions", `none of evaluation run ${id}`);
  }
  for (const { name, evaluationRunId } of evidence.steps.values()) {
    if (evaluationRunId !== "" && !evidence.evaluationRuns.has(evaluationRunId)) {
      found.differs("evaluation-runs", `step ${name}: its evaluation run ${evaluationRunId} is missing`);
    }
  }
  return `${evidence.evaluationRuns.size} evaluations, ${count} answers graded anew`;
}

function checkRun(
  evidence: Evidence,
  artifacts: ReadonlyMap<string, VersionRows>,
  { id, rowIds, grades }: { id: string; rowIds: string[]; grades: Grade[] },
  found: Findings,
): void {
  const run = evidence.evaluationRuns.get(id);
  if (run === undefined) {
    found.differs("evaluation-runs", `run ${id}, which has predictions, is missing`);
    return;
  }
  found.same("evaluation-runs", `run ${id}: metrics`, run.metrics, metricsOf(grades, evidence.task));
  const { rows } = run.request ?? {};
  const version = artifacts.get(rows?.sha256 ?? "");
  // Others are of candidates, in files of their own.
  if (rows === undefined || version === undefined) return;
  const selected = selects(rows);
  const expected = [...rowsOf(version)].filter(selected).map((row) => row.id);
  found.same("predictions", `run ${id}: its rows`, rowIds, expected);
}

function versionsByArtifact({ versions }: Evidence): Map<string, VersionRows> {
  return new Map([...versions.values()].map((one) => [one.version.artifactSha256, one]));
}
