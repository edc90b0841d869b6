/** Training and evaluation against the real student: what it learns shows, and its death costs nothing but time. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { settings as evaluationSettings, start as startEvaluation } from "@tutelage/evaluation/start";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { readConfig } from "@tutelage/platform/config";
import { connect } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { rowToLine } from "@tutelage/platform/rowfile";
import {
  type EvaluationRun,
  EvaluationServiceDefinition,
  PredictRequest,
  StartEvaluationRunRequest,
} from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { Row, RowOrigin, RowSource, Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import {
  StartTrainingRunRequest,
  type TrainingRun,
  TrainingServiceDefinition,
} from "@tutelage/proto/training/v1/training";
import { start as startTraining, settings as trainingSettings } from "@tutelage/training/start";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../support/database.js";
import { type RealStudent, startRealStudent, writeTinyModel } from "../support/realstudent.js";
import { until } from "../support/waiting.js";

const projectId = "default";
let home: string;
let model: string;
let student: RealStudent;
let services: RunningService[];
let training: ReturnType<typeof connect<TrainingServiceDefinition>>;
let evaluation: ReturnType<typeof connect<EvaluationServiceDefinition>>;
let artifacts: FileArtifactStore;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-finetuning-"));
  model = await writeTinyModel(join(home, "model"));
  student = await startRealStudent(home);
  artifacts = new FileArtifactStore(join(home, "artifacts"));
  await writeFile(
    join(home, "profiles.yaml"),
    `profiles:
  tiny:
    model: ${model}
    recipe: {method: lora, lora_rank: 8, lora_alpha: 16, exact_steps: 40, batch_rows: 16, micro_batch_tokens: 1024,
      learning_rate: 0.02, warmup_share: 0.1, weight_decay: 0, max_grad_norm: 1}
`,
  );
  const environment = {
    DATABASE_URL: await testDatabaseUrl(),
    TUTELAGE_HOME: home,
    LOG_LEVEL: "fatal",
    STUDENT_ADDRESS: student.address,
    STUDENT_PROFILES: join(home, "profiles.yaml"),
    TRAINING_LISTEN: "127.0.0.1:0",
    EVALUATION_LISTEN: "127.0.0.1:0",
  };
  services = [
    await startTraining(readConfig(trainingSettings, environment)),
    await startEvaluation(readConfig(evaluationSettings, environment)),
  ];
  training = connect(TrainingServiceDefinition, services[0].address);
  evaluation = connect(EvaluationServiceDefinition, services[1].address);
  // Python with PyTorch starts in a few seconds, or ten times that on a busy machine.
}, 240_000);
afterAll(async () => {
  training.close();
  evaluation.close();
  for (const service of services) await service.stop();
  await student.stop();
  await rm(home, { recursive: true, force: true });
});

const task = Task.fromPartial({
  name: "films",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "Text: {input}\nSentiment:",
  labels: [{ name: "negative" }, { name: "positive" }],
});

/** Sentences whose label a single word decides. */
function makeRows(count: number, split: Split): Row[] {
  const subjects = ["film", "plot", "cast", "long novel", "tall tower"];
  const fillers = ["", "the film and ", "where is ", "who wrote "];
  const words = { negative: ["bad", "awful", "bad and awful"], positive: ["good", "great", "good and great"] };
  return Array.from({ length: count }, (_, index) => {
    const output = index % 2 === 0 ? "negative" : "positive";
    const input = `${fillers[Math.floor(index / 6) % 4]}the ${subjects[index % 5]} was ${words[output][Math.floor(index / 2) % 3]}`;
    return Row.fromPartial({ id: `${split}-${index}`, input, output, split, origin: RowOrigin.SEED });
  });
}

async function publish(): Promise<RowSource> {
  const rows = [...makeRows(64, Split.TRAIN), ...makeRows(30, Split.TEST)];
  const { uri, sha256 } = await artifacts.put("default/versions/films.jsonl", rows.map(rowToLine));
  return RowSource.fromPartial({ uri, sha256 });
}

async function trained(request: StartTrainingRunRequest): Promise<TrainingRun> {
  const { run } = await training.startTrainingRun(request);
  let last: TrainingRun | undefined;
  for await (const now of training.watchTrainingRun({ projectId, id: run?.id ?? "" })) last = now;
  return last as TrainingRun;
}

async function evaluated(request: StartEvaluationRunRequest): Promise<EvaluationRun> {
  const { run } = await evaluation.startEvaluationRun(request);
  let last: EvaluationRun | undefined;
  for await (const now of evaluation.watchEvaluationRun({ projectId, id: run?.id ?? "" })) last = now;
  return last as EvaluationRun;
}

test("a student learns its rows, and the evaluation says so", async () => {
  const source = await publish();
  const test = { ...source, split: Split.TEST };
  const ask = (checkpointUri: string) =>
    evaluated(StartEvaluationRunRequest.fromPartial({ projectId, model, checkpointUri, rows: test, task }));
  const before = await ask("");
  const run = await trained(
    StartTrainingRunRequest.fromPartial({
      projectId,
      studentProfile: "tiny",
      rows: { ...source, split: Split.TRAIN },
      task,
      seed: 7,
    }),
  );
  expect(run).toMatchObject({ run: { status: RunStatus.SUCCEEDED }, rows: 64, lastStep: { step: 40, totalSteps: 40 } });
  expect(run.checkpoint).toMatchObject({ model, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  expect((await artifacts.list(run.checkpoint?.uri ?? "")).map(({ name }) => name)).toContain(
    "adapter_model.safetensors",
  );
  const after = await ask(run.checkpoint?.uri ?? "");
  expect(after.run?.failure).toBeUndefined();
  expect(after.metrics?.accuracy).toMatchObject({ n: 30 });
  expect(after.metrics?.accuracy?.value).toBeGreaterThan(0.9);
  expect(before.metrics?.accuracy?.value).toBeLessThan(0.8);
  const { predictions } = await evaluation.predict(
    PredictRequest.fromPartial({
      projectId,
      model,
      checkpointUri: run.checkpoint?.uri ?? "",
      task,
      rows: [{ input: "the cast was great" }, { input: "the plot was awful" }],
    }),
  );
  expect(predictions.map(({ text }) => text)).toEqual(["positive", "negative"]);
}, 180_000);

/** A training that goes on until it is stopped. */
async function longTraining(exactSteps: number) {
  const recipe = Recipe.fromPartial({
    method: TuningMethod.LORA,
    loraRank: 8,
    loraAlpha: 16,
    exactSteps,
    batchRows: 16,
    microBatchTokens: 1_024,
    learningRate: 0.001,
    maxGradNorm: 1,
  });
  const rows = { ...(await publish()), split: Split.TRAIN };
  const started = await training.startTrainingRun(
    StartTrainingRunRequest.fromPartial({ projectId, studentProfile: "tiny", recipe, rows, task }),
  );
  const id = started.run?.id ?? "";
  const get = () => training.getTrainingRun({ projectId, id });
  await until(async () => ((await get()).lastStep?.step ?? 0) > 0);
  return { id, get };
}

test("an evaluation waits for a training, a prediction does not, and cancelling the training frees the student", async () => {
  const { id, get } = await longTraining(1_000_000);
  const rows = { ...(await publish()), split: Split.TEST };
  const { run } = await evaluation.startEvaluationRun(
    StartEvaluationRunRequest.fromPartial({ projectId, model, rows, task }),
  );
  const evaluationId = run?.id ?? "";
  const getEvaluation = () => evaluation.getEvaluationRun({ projectId, id: evaluationId });
  await until(async () => (await getEvaluation()).run?.progress?.message.includes("another job holds it") ?? false);
  const { predictions } = await evaluation.predict(
    PredictRequest.fromPartial({ projectId, model, task, rows: [{ input: "the cast was great" }] }),
  );
  expect(predictions).toHaveLength(1);
  await training.cancelTrainingRun({ projectId, id });
  await until(async () => (await get()).run?.status === RunStatus.CANCELLED);
  await until(async () => (await getEvaluation()).run?.status === RunStatus.SUCCEEDED);
}, 180_000);

test("a student that is killed in the middle of a training is waited for and trains the run again", async () => {
  const { get } = await longTraining(100);
  await student.kill();
  await until(async () => /went away|does not answer/.test((await get()).run?.progress?.message ?? ""));
  student = await startRealStudent(home, student.address);
  await until(async () => (await get()).run?.status === RunStatus.SUCCEEDED, 60_000);
  const done = await get();
  expect(done.run?.fence).toBeGreaterThan(1);
  expect(done.checkpoint?.uri).toContain(`/${done.run?.id}/${done.run?.fence}/checkpoint`);
}, 180_000);
