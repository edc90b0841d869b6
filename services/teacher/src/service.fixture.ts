/** A running teacher service with a database of its own and a fake endpoint, for the tests beside it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { createLog, type Logger } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Grader, type Row, RowOrigin, Split, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import {
  type Call,
  type GenerationRun,
  type Result,
  type StartGenerationRunRequest,
  TeacherServiceDefinition,
  type WriteOrder,
  WriteStyle,
} from "@tutelage/proto/teacher/v1/teacher";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { start } from "./start.js";
import { type NewCall, Store } from "./store.js";

export const task: Task = {
  name: "trips",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "Message: {input}\nIntent:",
  labels: [
    { name: "book_flight", description: "wants to book a flight" },
    { name: "cancel", description: "wants to cancel something" },
    { name: "weather", description: "asks about the weather" },
  ],
  grader: Grader.UNSPECIFIED,
  teacherInstructions: "Customers write to a travel agency.",
  maxAnswerTokens: 0,
  rowNoun: "messages",
  fields: [],
  rougeLThreshold: 0,
  workedExample: undefined,
};

export function row(id: string, input: string, output: string): Row {
  return {
    id,
    input,
    messages: [],
    output,
    split: Split.TRAIN,
    origin: RowOrigin.SEED,
    rootRowId: "",
    parentRowId: "",
    iteration: 0,
    metadata: {},
  };
}

export const seedRows = [
  row("f1", "I need a plane to Lisbon on Monday", "book_flight"),
  row("f2", "two seats to Oslo in May please", "book_flight"),
  row("f3", "fly me to Rome for the weekend", "book_flight"),
  row("c1", "cancel my trip to Paris at once", "cancel"),
  row("c2", "I will not travel, drop the booking", "cancel"),
  row("w1", "will it rain in Athens tomorrow", "weather"),
  row("w2", "how hot is Cairo in June", "weather"),
];

export function order(seedRow: Row, more: Partial<WriteOrder> = {}): WriteOrder {
  const exampleRows = seedRows.filter(({ id, output }) => id !== seedRow.id && output === seedRow.output);
  return {
    seedRow,
    wrongAnswer: "cancel",
    exampleRows,
    openingTexts: [],
    count: 1,
    maxAttempts: 3,
    firstAttempt: 0,
    ...more,
  };
}

export function writeRequest(teacherProfile: string, orders: WriteOrder[]): StartGenerationRunRequest {
  return {
    projectId: "p",
    idempotencyKey: "",
    teacherProfile,
    task,
    work: { $case: "write", value: { orders, style: WriteStyle.VARY } },
    replicateSeed: 0,
    budget: undefined,
    replyScope: "",
    patienceSeconds: 0,
    tryNow: false,
    owner: undefined,
  };
}

export function labelRequest(teacherProfile: string, rows: Row[]): StartGenerationRunRequest {
  return {
    ...writeRequest(teacherProfile, []),
    work: { $case: "label", value: { rows, exampleRows: seedRows, attempt: 0 } },
  };
}

/** A profile of the fake endpoint as YAML; `more` are further lines. */
export function profileYaml(name: string, url: string, more: string[] = []): string {
  return [
    `  - name: ${name}`,
    "provider: openai-compatible",
    `base_url: ${url}`,
    ...(more.some((line) => line.startsWith("model:")) ? [] : ["model: test-model"]),
    "prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }",
    ...more,
  ].join("\n    ");
}

export interface Fixture {
  service: RunningService;
  client: ReturnType<typeof connect<typeof TeacherServiceDefinition>>;
  databaseUrl: string;
  /** Waits until a run is final. */
  ended(run: GenerationRun): Promise<GenerationRun>;
  /** Starts a run and waits until it is final. */
  run(request: StartGenerationRunRequest): Promise<GenerationRun>;
  /** Waits until a run waits for its teacher. */
  waiting(run: GenerationRun): Promise<GenerationRun>;
  results(run: GenerationRun): Promise<Result[]>;
  calls(run: GenerationRun): Promise<Call[]>;
  stop(): Promise<void>;
}

/** A call that failed and cost nothing, unless said otherwise. */
export function newCall(more: Partial<NewCall>): NewCall {
  return {
    id: crypto.randomUUID(),
    projectId: "p",
    runId: crypto.randomUUID(),
    requestDigest: "digest",
    teacherProfile: "chat",
    model: "test-model",
    status: "failed",
    prompt: "a prompt",
    rawReply: "",
    promptTokens: 0,
    completionTokens: 0,
    costMicroUsd: 0,
    durationMs: 5,
    finishedAt: new Date(),
    ...more,
  };
}

/** The service's own store, on a connection of its own. */
export async function openStore({ databaseUrl: url }: Fixture): Promise<{ database: Database; store: Store }> {
  const database = await openDatabase({ url, schema: "teacher", log: createLog("test", "fatal"), hasRuns: true });
  return { database, store: new Store(database) };
}

export async function startFixture(
  profiles: string[],
  options: { databaseUrl?: string; home?: string; log?: Logger; studentAddress?: string } = {},
): Promise<Fixture> {
  const directory = await mkdtemp(join(tmpdir(), "tutelage-teacher-"));
  const path = join(directory, "profiles.yaml");
  await writeFile(path, `profiles:\n${profiles.join("\n")}\n`);
  const databaseUrl = options.databaseUrl ?? (await testDatabaseUrl());
  const service = await start(
    {
      TUTELAGE_HOME: options.home ?? directory,
      DATABASE_URL: databaseUrl,
      LOG_LEVEL: "fatal",
      TEACHER_LISTEN: "127.0.0.1:0",
      STUDENT_ADDRESS: options.studentAddress,
      TEACHER_PROFILES: path,
      TUTELAGE_PYTHON: new URL("../../../.venv/bin/python", import.meta.url).pathname,
    },
    { log: options.log ?? createLog("test", "fatal"), timing: { leaseMs: 2_000, heartbeatMs: 300, pollMs: 50 } },
  );
  const client = connect(TeacherServiceDefinition, service.address);
  const ended = async (run: GenerationRun) => {
    let last = run;
    const request = { projectId: run.run?.projectId ?? "", id: run.run?.id ?? "" };
    for await (const now of client.watchGenerationRun(request, { deadline: watchDeadlineMs })) last = now;
    return last;
  };
  return {
    service,
    client,
    databaseUrl,
    ended,
    waiting: async (run) => {
      const request = { projectId: run.run?.projectId ?? "", id: run.run?.id ?? "" };
      for await (const now of client.watchGenerationRun(request, { deadline: watchDeadlineMs })) {
        if (now.waiting !== undefined && now.run?.status === RunStatus.QUEUED) return now;
      }
      throw new Error("The run ended without having waited.");
    },
    run: async (request) => await ended(await client.startGenerationRun(request)),
    results: async ({ run }) => {
      const all: Result[] = [];
      const request = { projectId: run?.projectId ?? "", id: run?.id ?? "" };
      for await (const { results } of client.listResults(request)) all.push(...results);
      return all;
    },
    calls: async ({ run }) => {
      const all: Call[] = [];
      const request = { projectId: run?.projectId ?? "", id: run?.id ?? "" };
      for await (const { calls } of client.listCalls(request)) all.push(...calls);
      return all;
    },
    stop: async () => {
      client.close();
      await service.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
