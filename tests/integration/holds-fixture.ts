/**
 * The real campaigns and datasets services, and stand-ins of the others that
 * fail when a test wants it.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { settings as campaignsSettings, start as startCampaigns } from "@tutelage/campaigns/start";
import { settings as datasetsSettings, start as startDatasets } from "@tutelage/datasets/start";
import { TutelageError } from "@tutelage/platform/errors";
import { connect, type RunningServer, serve, served } from "@tutelage/platform/grpc";
import type { RunningService } from "@tutelage/platform/process";
import { CampaignsServiceDefinition, StartCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import { DatasetsServiceDefinition, FileFormat, ImportHeader } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import type { StopOwnedRunsRequest } from "@tutelage/proto/run/v1/owner";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { type DeleteTrainingRunsRequest, TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import type { CompatServiceDefinition } from "nice-grpc";
import pg from "pg";
import { afterAll, afterEach, beforeAll } from "vitest";
import { config } from "../support/config.js";
import { testDatabaseUrl } from "../support/database.js";
import { until } from "../support/waiting.js";
import { log } from "./gateway-fixture.js";

export const projectId = "default";
// An interruption must be longer than a deletion takes on a busy machine, or the sweeper lends a hand.
export const sweepTiming = { pauseMs: 100, interruptedMs: 1_500 };
const recipe = Recipe.fromPartial({ method: TuningMethod.LORA, epochs: 1, batchRows: 8, learningRate: 0.001 });

export let home: string;
let databaseUrl: string;
export let admin: pg.Client;
let datasets: RunningService;
let campaigns: RunningService;
let standIns: RunningServer[];
export let addresses: Record<string, string | undefined>;
export let client: ReturnType<typeof connect<CampaignsServiceDefinition>>;
export let datasetsClient: ReturnType<typeof connect<DatasetsServiceDefinition>>;

/** What the training service was asked to remove. */
export const removed: DeleteTrainingRunsRequest[] = [];
/** What the stand-ins do; a test replaces it. */
export const others: {
  whileTeaching: (signal: AbortSignal) => Promise<never>;
  whileDeleting: () => Promise<void>;
  whileStopping: (request: StopOwnedRunsRequest) => Promise<{ stopping: number }>;
} = {
  whileTeaching: fails,
  whileDeleting: async () => {},
  whileStopping: async () => ({ stopping: 0 }),
};
const usual = { ...others };

function standIn<Definition extends CompatServiceDefinition>(definition: Definition, some: object) {
  const refused = Object.keys(definition.methods).map((name) => [name, fails]);
  return served(definition, { ...Object.fromEntries(refused), ...some } as never);
}

export function startForAllTests(): void {
  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), "tutelage-holds-"));
    databaseUrl = await testDatabaseUrl();
    const shared = { TUTELAGE_HOME: home, LOG_LEVEL: "fatal", DATABASE_URL: databaseUrl };
    datasets = await startDatasets(config(datasetsSettings, { ...shared, DATASETS_LISTEN: "127.0.0.1:0" }));
    const nothing = { counts: {}, artifactBytes: 0 };
    standIns = await Promise.all(
      [
        standIn(TrainingServiceDefinition, {
          listStudentProfiles: async () => ({ profiles: [{ name: "s", model: "file:/m", recipe }] }),
          deleteTrainingRuns: async (request: DeleteTrainingRunsRequest) => {
            removed.push(request);
            await others.whileDeleting();
            return { counts: { training_runs: 3 }, artifactBytes: 1_000 };
          },
        }),
        standIn(EvaluationServiceDefinition, { deleteEvaluationRuns: async () => nothing }),
        standIn(TeacherServiceDefinition, {
          listTeacherProfiles: async () => ({ profiles: [{ name: "t" }] }),
          startGenerationRun: (_: unknown, { signal }: { signal: AbortSignal }) => others.whileTeaching(signal),
          stopOwnedRuns: async (request: StopOwnedRunsRequest) => await others.whileStopping(request),
          deleteGenerationRuns: async () => nothing,
        }),
      ].map((service) => serve({ listen: "127.0.0.1:0", services: [service], log })),
    );
    addresses = {
      ...shared,
      DATASETS_ADDRESS: datasets.address,
      TRAINING_ADDRESS: standIns[0]?.address,
      EVALUATION_ADDRESS: standIns[1]?.address,
      TEACHER_ADDRESS: standIns[2]?.address,
      CAMPAIGNS_LISTEN: "127.0.0.1:0",
    };
    datasetsClient = connect(DatasetsServiceDefinition, datasets.address ?? "");
    admin = new pg.Client({ connectionString: databaseUrl });
    await admin.connect();
    await startService();
  });
  afterEach(() => {
    Object.assign(others, usual);
    removed.length = 0;
  });
  afterAll(async () => {
    await stopService();
    datasetsClient?.close();
    await Promise.all((standIns ?? []).map((server) => server.stop(100)));
    await datasets?.stop();
    await admin?.end();
    await rm(home, { recursive: true, force: true });
  });
}

export async function startService(environment: NodeJS.ProcessEnv = {}) {
  campaigns = await startCampaigns(config(campaignsSettings, { ...addresses, ...environment }), { sweepTiming });
  client = connect(CampaignsServiceDefinition, campaigns.address ?? "");
}
export async function stopService() {
  client?.close();
  await campaigns?.stop();
}

let made = 0;
/** A dataset with one version. */
export async function dataset(): Promise<{ id: string; versionId: string }> {
  made += 1;
  const { id } = await datasetsClient.createDataset({ projectId, name: `data-${made}` });
  const header = { projectId, datasetId: id, format: FileFormat.JSONL, defaultSplit: Split.TRAIN };
  const rows = Array.from({ length: 6 }, (_, index) => ({
    input: `${made} text ${index}`,
    output: index % 2 ? "a" : "b",
  }));
  const chunk = Buffer.from(rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { version } = await datasetsClient.importRows(
    (async function* () {
      yield { part: { $case: "header" as const, value: ImportHeader.fromPartial(header) } };
      yield { part: { $case: "chunk" as const, value: chunk } };
      yield { part: { $case: "end" as const, value: { sizeBytes: chunk.byteLength } } };
    })(),
  );
  return { id, versionId: version?.id ?? "" };
}

const asked = (datasetId: string, idempotencyKey = "") =>
  StartCampaignRequest.fromPartial({
    projectId,
    idempotencyKey,
    name: "held",
    datasetId,
    studentProfile: "s",
    teacherProfile: "t",
    task: Task.fromPartial({
      name: "t",
      kind: TaskKind.CLASSIFICATION,
      promptTemplate: "{input} =>",
      labels: [{ name: "a" }, { name: "b" }],
    }),
  });

export const start = async (datasetId: string, key?: string) =>
  (await client.startCampaign(asked(datasetId, key))).run?.id ?? "";
export const statusOf = async (id: string) => (await client.getCampaign({ projectId, id })).run?.status;
export const failed = (id: string) => until(async () => (await statusOf(id)) === RunStatus.FAILED);
/** Holds of a version: who, and whether the hold ends by itself. */
export const holds = async (versionId: string) =>
  (
    await admin.query("select holder, expires_at is not null as ends from datasets.holds where version_id = $1", [
      versionId,
    ])
  ).rows;
export const exists = async (id: string) =>
  (await admin.query("select 1 from campaigns.runs where id = $1", [id])).rowCount === 1;

async function fails(): Promise<never> {
  throw new TutelageError("failed_precondition", "The teacher is not for this test.", { reason: "no_teacher" });
}
