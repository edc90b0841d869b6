/** A training service and a student, anew for each test of a file. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { TaskKind } from "@tutelage/proto/task/v1/task";
import type { StartTrainingRunRequest, TrainingRun } from "@tutelage/proto/training/v1/training";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { type Client, startService } from "./service.fixture.js";

export let home: string;
export let database: Database;
export let student: TestStudent;
export let client: Client;
let url: string;
let service: RunningService;

export function startForEachTest(): void {
  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), "tutelage-training-"));
    url = await testDatabaseUrl();
    database = await openDatabase({ url, schema: "training", log: createLog("test", "fatal"), hasRuns: true });
  });
  afterAll(async () => {
    await database.close();
    await rm(home, { recursive: true, force: true });
  });
  beforeEach(async () => {
    student = await startTestStudent();
    await startAnew();
  });
  afterEach(async () => {
    await stopService();
    await student.stop();
    await database.pool.query("truncate runs cascade");
  });
}

export async function stopService(): Promise<void> {
  client.close();
  await service.stop();
}

/** Starts the service after it was stopped. */
export async function startAnew(use: { address: string } = student, more: NodeJS.ProcessEnv = {}): Promise<void> {
  ({ service, client } = await startService(url, home, use, more));
}

/** Starts a student in the place of the one that was stopped. */
export async function startStudentAnew(): Promise<void> {
  student = await startTestStudent(student.address);
}

export function request(changes: Partial<StartTrainingRunRequest> = {}): StartTrainingRunRequest {
  return {
    projectId: "default",
    idempotencyKey: "",
    studentProfile: "smollm2-135m",
    recipe: undefined,
    rows: {
      uri: "file:///rows.jsonl",
      sha256: "a".repeat(64),
      split: "SPLIT_UNSPECIFIED" as never,
      rowIds: [],
      excludeRootRowIds: [],
    },
    task: {
      name: "t",
      kind: TaskKind.TEXT,
      promptTemplate: "Q: {input}\nA:",
      labels: [],
      grader: "GRADER_UNSPECIFIED" as never,
      teacherInstructions: "",
      maxAnswerTokens: 0,
      rowNoun: "",
      fields: [],
      rougeLThreshold: 0,
      workedExample: undefined,
    },
    seed: 7,
    startCheckpointUri: "",
    owner: undefined,
    ...changes,
  };
}

export const idOf = (run: TrainingRun) => run.run?.id ?? "";

export async function untilFinal(id: string): Promise<TrainingRun> {
  let last: TrainingRun | undefined;
  for await (const run of client.watchTrainingRun({ projectId: "default", id })) last = run;
  return last as TrainingRun;
}

export async function stepsOf(id: string) {
  const steps: { step: number; loss: number }[] = [];
  for await (const batch of client.listTrainingSteps({ projectId: "default", id })) steps.push(...batch.steps);
  return steps;
}
