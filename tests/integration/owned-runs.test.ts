/**
 * Training, evaluation and teacher on the real wire: what a campaign's holder asks of each, and what is refused to one
 * that was stopped for longer than its lease and comes back.
 */
import { createHash, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { settings as evaluationSettings, start as startEvaluation } from "@tutelage/evaluation/start";
import { connect } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { type Owner, StopKind } from "@tutelage/proto/run/v1/owner";
import { type Run, RunStatus } from "@tutelage/proto/run/v1/run";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { start as startTeacher, settings as teacherSettings } from "@tutelage/teacher/start";
import { start as startTraining, settings as trainingSettings } from "@tutelage/training/start";
import { afterAll, beforeAll, expect, test } from "vitest";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { until } from "../support/waiting.js";

const projectId = "default";
/** Nobody listens there: runs wait for their student and their teacher. */
const nowhere = "127.0.0.1:9";
const task = Task.fromPartial({
  name: "t",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "{input} =>",
  labels: [{ name: "a" }, { name: "b" }],
});
const closers: (() => unknown)[] = [];
const calls: Record<string, Calls> = {};

/** The same of every service. */
interface Calls {
  start(owner: Owner, step: string): Promise<{ run?: Run | undefined }>;
  resume(owner: Owner, id: string): Promise<{ run?: Run | undefined }>;
  get(id: string): Promise<{ run?: Run | undefined }>;
  stop(owner: Owner, kind: StopKind): Promise<{ stopping: number }>;
}

beforeAll(async () => {
  const home = await mkdtemp(join(tmpdir(), "tutelage-owned-"));
  closers.push(() => rm(home, { recursive: true, force: true }));
  const profiles = join(home, "profiles.yaml");
  await writeFile(
    profiles,
    `profiles:
  - { name: t, provider: openai-compatible, model: m, base_url: "http://${nowhere}/v1", api: chat, prompt_form: chat,
      prices: { prompt_micro_usd_per_million_tokens: 1, completion_micro_usd_per_million_tokens: 1 } }
`,
  );
  const text = `${JSON.stringify({ id: "r", input: "one", output: "a", split: "SPLIT_TRAIN" })}\n`;
  await mkdir(join(home, "artifacts"));
  await writeFile(join(home, "artifacts", "rows.jsonl"), text);
  const rows = {
    uri: pathToFileURL(join(home, "artifacts", "rows.jsonl")).href,
    sha256: createHash("sha256").update(text).digest("hex"),
  };
  const environment = {
    TUTELAGE_HOME: home,
    LOG_LEVEL: "fatal",
    DATABASE_URL: await testDatabaseUrl(),
    STUDENT_ADDRESS: nowhere,
    TEACHER_PROFILES: profiles,
    TRAINING_LISTEN: "127.0.0.1:0",
    EVALUATION_LISTEN: "127.0.0.1:0",
    TEACHER_LISTEN: "127.0.0.1:0",
  };
  const opened = async (starting: Promise<RunningService>) => {
    const service = await starting;
    closers.push(() => service.stop());
    return service.address ?? "";
  };
  const training = connect(
    TrainingServiceDefinition,
    await opened(startTraining(config(trainingSettings, environment))),
  );
  const evaluation = connect(
    EvaluationServiceDefinition,
    await opened(startEvaluation(config(evaluationSettings, environment))),
  );
  const teacher = connect(TeacherServiceDefinition, await opened(startTeacher(config(teacherSettings, environment))));
  for (const client of [training, evaluation, teacher]) closers.push(() => client.close());
  const [studentProfile] = (await training.listStudentProfiles({ projectId })).profiles;
  const asked = (owner: Owner, step: string) => ({ projectId, idempotencyKey: `${owner.id}/${step}`, task, owner });
  calls.training = {
    start: (owner, step) =>
      training.startTrainingRun({ ...asked(owner, step), studentProfile: studentProfile?.name ?? "", rows }),
    resume: (owner, id) => training.resumeTrainingRun({ projectId, id, owner }),
    get: (id) => training.getTrainingRun({ projectId, id }),
    stop: (owner, kind) => training.stopOwnedRuns({ projectId, owner, kind }),
  };
  calls.evaluation = {
    start: (owner, step) => evaluation.startEvaluationRun({ ...asked(owner, step), model: "file:/m", rows }),
    resume: (owner, id) => evaluation.resumeEvaluationRun({ projectId, id, owner }),
    get: (id) => evaluation.getEvaluationRun({ projectId, id }),
    stop: (owner, kind) => evaluation.stopOwnedRuns({ projectId, owner, kind }),
  };
  const labelled = { id: "r", input: "one", output: "a" };
  const work = { $case: "label" as const, value: { rows: [labelled], exampleRows: [labelled] } };
  calls.teacher = {
    start: (owner, step) => teacher.startGenerationRun({ ...asked(owner, step), teacherProfile: "t", work }),
    resume: (owner, id) => teacher.resumeGenerationRun({ projectId, id, owner }),
    get: (id) => teacher.getGenerationRun({ projectId, id }),
    stop: (owner, kind) => teacher.stopOwnedRuns({ projectId, owner, kind }),
  };
}, 60_000);
afterAll(async () => {
  for (const close of closers.reverse()) await close();
});

test.each(["training", "evaluation", "teacher"])(
  "%s hears the newest holder of a campaign only, and finds what it started by its key",
  async (service) => {
    const { start, resume, get, stop } = calls[service] as Calls;
    const id = randomUUID();
    const under = (fence: number) => ({ id, fence });
    const outdated = { code: "aborted", reason: "fence_outdated" };
    const statusOf = async (runId: string) => (await get(runId)).run?.status;
    const runId = (await start(under(1), "step")).run?.id ?? "";
    // Taken over: the same step, and the same run.
    expect((await start(under(2), "step")).run?.id).toBe(runId);
    await expect(start(under(1), "another")).rejects.toMatchObject(outdated);

    const stopAll = (fence: number, kind: StopKind) =>
      until(async () => (await stop(under(fence), kind)).stopping === 0, 20_000);
    await stopAll(2, StopKind.PAUSE);
    expect(await statusOf(runId)).toBe(RunStatus.PAUSED);
    for (const fence of [1, 2]) await expect(resume(under(fence), runId)).rejects.toMatchObject(outdated);
    expect(await statusOf(runId)).toBe(RunStatus.PAUSED);
    expect((await resume(under(3), runId)).run?.status).not.toBe(RunStatus.PAUSED);

    await stopAll(3, StopKind.CANCEL);
    expect(await statusOf(runId)).toBe(RunStatus.CANCELLED);
    for (const fence of [1, 2, 3])
      await expect(start(under(fence), "after the cancel")).rejects.toMatchObject(outdated);
    await expect(start({ ...under(4), id: randomUUID() }, "step")).resolves.toBeDefined();
  },
  60_000,
);
