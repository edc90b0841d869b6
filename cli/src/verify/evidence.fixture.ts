/** A small campaign's evidence, made by hand: one iteration that wrote two rows of which one was kept, then the end. */

import { createHash } from "node:crypto";
import { totalsByPurpose } from "@tutelage/platform/campaignledger";
import { pairedGain } from "@tutelage/platform/choosing";
import { claims, compare } from "@tutelage/platform/comparisons";
import { gradePrediction } from "@tutelage/platform/gradedprediction";
import { proportion } from "@tutelage/platform/interval";
import { thinned } from "@tutelage/platform/losscurve";
import { metricsOf } from "@tutelage/platform/metrics";
import { selects } from "@tutelage/platform/rowfile";
import { identify, VersionDigest } from "@tutelage/platform/rowidentity";
import { signedPoints } from "@tutelage/platform/signedpoints";
import {
  ArmResult,
  Campaign,
  Candidate,
  Disputes,
  Iteration,
  LedgerTotal,
  Outcome,
  Report,
  SeedRow,
  SeedRowState,
  Step,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { Version } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationRun, GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TrainStep } from "@tutelage/proto/student/v1/student";
import { Row, RowOrigin, RowSource, Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { Call, GenerationRun, Result, Usage } from "@tutelage/proto/teacher/v1/teacher";
import { TrainingRun } from "@tutelage/proto/training/v1/training";

export type Lists = Record<string, Record<string, unknown>[]>;

let ids = 0;
const uuid = () => {
  ids += 1;
  return `00000000-0000-4000-8000-${String(ids).padStart(12, "0")}`;
};
const at = new Date("2026-01-01T00:00:00Z");
const succeeded = (id: string) => ({ id, status: RunStatus.SUCCEEDED });

export const task = Task.fromPartial({
  name: "tiny",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "{input}",
  labels: [{ name: "NUM" }, { name: "LOC" }],
});

const seed = (input: string, output: string, split: Split) =>
  Row.fromPartial({ input, output, split, origin: RowOrigin.SEED });
const seeds = [
  seed("how many legs", "NUM", Split.TRAIN),
  seed("which city", "LOC", Split.TRAIN),
  seed("count them", "NUM", Split.TRAIN),
  seed("where is it", "LOC", Split.TRAIN),
  seed("how many towns", "NUM", Split.DEV),
  seed("which river", "LOC", Split.DEV),
  seed("how many days", "NUM", Split.TEST),
  seed("which hill", "LOC", Split.TEST),
  seed("which tower", "LOC", Split.TEST),
].map((row) => identify(row).row);

/** All lists of a bundle that passes, and its two documents as lists of one. */
export function evidenceLists(): Lists {
  ids = 0;
  const lists: Lists = {
    ancestors: [],
    "student-profiles": [],
    "teacher-profiles": [],
  };
  const put = (list: string, ...documents: unknown[]) => {
    lists[list] = [...(lists[list] ?? []), ...(documents as Record<string, unknown>[])];
  };
  const campaignId = uuid();
  const step = (name: string, run: Partial<Step> = {}) =>
    put("steps", Step.toJSON(Step.fromPartial({ name, seconds: 1, finishedAt: at, ...run })));

  const version = (rows: Row[], parent?: Version): Version => {
    const digest = new VersionDigest();
    const artifact = createHash("sha256");
    for (const row of rows) {
      digest.add(row.id);
      artifact.update(identify(row).line);
    }
    const count = (split: Split) => rows.filter((row) => row.split === split).length;
    const made = Version.fromPartial({
      id: uuid(),
      parentVersionId: parent?.id ?? "",
      digest: digest.finish(),
      rowCount: rows.length,
      addedRowCount: rows.length - (parent?.rowCount ?? 0),
      splits: { train: count(Split.TRAIN), dev: count(Split.DEV), test: count(Split.TEST) },
      artifactSha256: artifact.digest("hex"),
    });
    put("versions", Version.toJSON(made));
    put("rows", ...rows.slice(parent?.rowCount ?? 0).map((row) => JSON.parse(identify(row).line)));
    return made;
  };

  const train = (name: string, { artifactSha256, splits }: Version): TrainingRun => {
    const id = uuid();
    const checkpoint = {
      uri: `default/runs/${id}/1/checkpoint`,
      sha256: createHash("sha256").update(id).digest("hex"),
    };
    const steps = [0.9, 0.4, 0.1].map((loss, index) => TrainStep.fromPartial({ step: index + 1, totalSteps: 3, loss }));
    const run = TrainingRun.fromPartial({
      run: succeeded(id),
      request: { rows: { sha256: artifactSha256, split: Split.TRAIN }, seed: 7 },
      checkpoint,
      rows: splits?.train ?? 0,
      lastStep: steps.at(-1) ?? TrainStep.fromPartial({}),
      chargedSeconds: 2.5,
    });
    put("training-runs", TrainingRun.toJSON(run));
    put("training-steps", ...steps.map((one) => ({ runId: id, ...(TrainStep.toJSON(one) as object) })));
    step(name, { trainingRunId: id });
    return run;
  };

  /** @param wrong inputs that are answered with the other label */
  const evaluate = (
    name: string,
    { checkpoint }: TrainingRun,
    of: Version,
    rows: Row[],
    source: Partial<RowSource>,
    wrong: string[],
  ) => {
    const id = uuid();
    const selected = rows.filter(selects(RowSource.fromPartial(source)));
    const graded = selected.map(({ id: rowId, input, output }) => {
      const text = wrong.includes(input) ? (output === "NUM" ? "LOC" : "NUM") : output;
      const labelScores = task.labels.map(({ name: label }) => ({
        label,
        logProbability: Math.log(label === text ? 0.8 : 0.2),
      }));
      return gradePrediction({ rowId, text, logProbability: -0.2, labelScores, tooLong: false }, output, task);
    });
    const metrics = metricsOf(
      graded.map(({ grade }) => grade),
      task,
    );
    const request = { checkpointUri: checkpoint?.uri ?? "", rows: { sha256: of.artifactSha256, ...source } };
    put("evaluation-runs", EvaluationRun.toJSON(EvaluationRun.fromPartial({ run: succeeded(id), request, metrics })));
    put(
      "predictions",
      ...graded.map(({ graded: one }) => ({ runId: id, ...(GradedPrediction.toJSON(one) as object) })),
    );
    step(name, { evaluationRunId: id });
    return { id, metrics, graded: graded.map(({ graded: one }) => one) };
  };

  const first = version(seeds);
  const [fold0, fold1] = [seeds.slice(0, 2), seeds.slice(2, 4)].map((rows) => rows.map(({ id }) => id));
  const cross = [fold0, fold1].map((rowIds = [], fold) => {
    const student = train(`iteration/0/cross_fit/${fold}/train`, first);
    return evaluate(`iteration/0/cross_fit/${fold}/evaluate`, student, first, seeds, { rowIds }, ["count them"]);
  });
  const firstStudent = train("iteration/0/train", first);
  const firstDev = evaluate("iteration/0/dev", firstStudent, first, seeds, { split: Split.DEV }, ["which river"]);
  step("iteration/0/grades");

  const missed = seeds[2] as Row;
  const written = { input: "how many towers", output: "NUM", messages: [] };
  const runId = uuid();
  const prompt = JSON.stringify([
    {
      role: "user",
      content: `The model got this example wrong:\n{"input":${JSON.stringify(missed.input)},"output":"NUM"}`,
    },
  ]);
  const calls = [JSON.stringify({ input: written.input, output: "NUM" }), "no idea"].map((content, index) =>
    Call.fromPartial({
      id: uuid(),
      status: "answered",
      prompt,
      rawReply: JSON.stringify({ choices: [{ message: { content } }] }),
      promptTokens: 100,
      completionTokens: 10,
      costMicroUsd: 120,
      durationMs: 500,
      finishedAt: new Date(at.getTime() + index * 100),
    }),
  );
  put("calls", ...calls.map((call) => ({ runId, ...(Call.toJSON(call) as object) })));
  const results = calls.map(({ id: callId }, attempt) =>
    Result.fromPartial({
      rowId: missed.id,
      callId,
      attempt,
      teacherProfile: "t",
      outcome:
        attempt === 0 ? { $case: "candidate", value: written } : { $case: "rejection", value: { code: "unparseable" } },
    }),
  );
  put("results", ...results.map((result) => ({ runId, ...(Result.toJSON(result) as object) })));
  const usage = Usage.fromPartial({
    calls: 2,
    promptTokens: 200,
    completionTokens: 20,
    costMicroUsd: 240,
    teacherSeconds: 0.6,
  });
  const runKey = `${campaignId}/iteration/0/generate`;
  put("generation-runs", {
    runKey,
    ...(GenerationRun.toJSON(GenerationRun.fromPartial({ run: succeeded(runId), usage, results: 2 })) as object),
  });
  put(
    "ledger-totals",
    ...totalsByPurpose([{ runKey, usage, failedCalls: 0 }]).map((total) => LedgerTotal.toJSON(total)),
  );
  step("iteration/0/generate", { generationRunId: runId });

  const { row } = identify(
    Row.fromPartial({
      ...written,
      split: Split.TRAIN,
      origin: RowOrigin.SYNTHETIC,
      rootRowId: missed.id,
      parentRowId: missed.id,
      iteration: 1,
    }),
  );
  const rows = [...seeds, row];
  const second = version(rows, first);
  const shared = { iteration: 0, seedRowId: missed.id, wrongAnswer: "LOC", teacherProfile: "t" };
  const candidates = [
    { ...shared, number: 0, callId: calls[0]?.id ?? "", ...written, accepted: true, probability: 0.9, rowId: row.id },
    { ...shared, number: 1, callId: calls[1]?.id ?? "", rejection: "unparseable", probability: 1 },
  ].map((one) => Candidate.fromPartial(one));
  put("candidates", ...candidates.map((one) => Candidate.toJSON(one)));
  step("iteration/0/commit");

  const lastStudent = train("iteration/1/train", second);
  const lastDev = evaluate("iteration/1/dev", lastStudent, second, rows, { split: Split.DEV }, []);
  const onTest = (student: TrainingRun, wrong: string[]) =>
    evaluate(`test/${student.run?.id}`, student, first, seeds, { split: Split.TEST }, wrong);
  const plainTest = onTest(firstStudent, ["which hill", "which tower"]);
  const finalTest = onTest(lastStudent, []);
  step("test/iteration/0");
  step("test/iteration/1");

  const iterations = [
    {
      number: 0,
      datasetVersionId: first.id,
      datasetDigest: first.digest,
      trainRows: 4,
      trainingRunId: firstStudent.run?.id ?? "",
      checkpoint: firstStudent.checkpoint,
      crossFitAccuracy: proportion(3, 4),
      devAccuracy: firstDev.metrics.accuracy,
      testAccuracy: plainTest.metrics.accuracy,
      mined: true,
      errors: 1,
      candidates: 2,
      accepted: 1,
      rejected: { unparseable: 1 },
      seconds: 5,
      phaseSeconds: { cross_fit: 4, train: 1 },
    },
    {
      number: 1,
      datasetVersionId: second.id,
      datasetDigest: second.digest,
      trainRows: 5,
      trainingRunId: lastStudent.run?.id ?? "",
      checkpoint: lastStudent.checkpoint,
      devAccuracy: lastDev.metrics.accuracy,
      testAccuracy: finalTest.metrics.accuracy,
    },
  ].map((one) => Iteration.fromPartial(one as Partial<Iteration>));
  put("iterations", ...iterations.map((one) => Iteration.toJSON(one)));

  const answers = cross.flatMap(({ graded }) => graded);
  put(
    "seed-rows",
    ...seeds.slice(0, 4).map(({ id }) => {
      const { correct = false, answer = "" } = answers.find(({ rowId }) => rowId === id) ?? {};
      const mined = id === missed.id;
      return SeedRow.toJSON(
        SeedRow.fromPartial({
          row: { id },
          grades: [{ iteration: 0, correct, answer, expectedProbability: correct ? 0.8 : 0.2 }],
          candidates: mined ? 2 : 0,
          accepted: mined ? 1 : 0,
          state: correct ? SeedRowState.KNOWN : SeedRowState.STUBBORN,
        }),
      );
    }),
  );

  const arm = (name: string, student: TrainingRun, dev: typeof firstDev, tested: typeof plainTest, tries: boolean) =>
    ArmResult.fromPartial({
      name,
      checkpoint: student.checkpoint ?? {},
      trainingRunId: student.run?.id ?? "",
      trainRows: student.rows,
      steps: 3,
      tries: 1,
      choosingScore: dev.metrics.accuracy ?? {},
      testAccuracy: tested.metrics.accuracy ?? {},
      testEvaluationRunId: tested.id,
      triesTestAccuracy: tries && tested.metrics.accuracy !== undefined ? [tested.metrics.accuracy] : [],
      triesTestEvaluationRunIds: tries ? [tested.id] : [],
    });
  const gain = pairedGain(finalTest.graded, plainTest.graded);
  const outcome = {
    stopReason: "iterations",
    chosenIteration: 1,
    summary:
      "The student of iteration 1 is returned: 100.0 % of 3 test rows right, plain fine-tuning 33.3 % " +
      `(${signedPoints(gain.gain)} points, 95 % interval ${signedPoints(gain.ci95Low)} to ${signedPoints(gain.ci95High)}).`,
    baseline: arm("plain", firstStudent, firstDev, plainTest, true),
    final: arm("campaign", lastStudent, lastDev, finalTest, false),
    gain,
    datasetVersionId: second.id,
    wallSeconds: 20,
  };
  const settings = { iterations: 1, acceptProbability: 0.5, disputes: Disputes.ASIDE };
  put(
    "campaign.json",
    Campaign.toJSON(
      Campaign.fromPartial({
        run: succeeded(campaignId),
        request: { name: "tiny", datasetVersionId: first.id, task, settings },
        outcome,
        usage,
        trainingSeconds: 10,
      }),
    ),
  );
  const comparisons = compare([{ arm: "plain", gain }]);
  const curve = (name: string) => thinned(name, [0.9, 0.4, 0.1]);
  put(
    "report.json",
    Report.toJSON(
      Report.fromPartial({
        iterations,
        candidateCount: 2,
        baselineMetrics: plainTest.metrics,
        finalMetrics: finalTest.metrics,
        lossCurves: [curve("plain"), curve("campaign")],
        comparisons,
        claims: claims(Outcome.fromPartial(outcome), comparisons),
        advice: ["Give more rows."],
      }),
    ),
  );
  return lists;
}
