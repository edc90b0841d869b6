/** Wires the training service. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { hostPort, serviceSettings } from "@tutelage/platform/config";
import { openDatabase } from "@tutelage/platform/database";
import { served } from "@tutelage/platform/grpc";
import { createLog, type Logger } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { Runs } from "@tutelage/platform/runs";
import { startRunService } from "@tutelage/platform/runservice";
import { connectStudents, studentSettings } from "@tutelage/platform/students";
import { work } from "@tutelage/platform/worker";
import { TrainingServiceDefinition } from "@tutelage/proto/training/v1/training";
import { z } from "zod";
import type { CheckedExport, ExportState } from "./exportrun.js";
import { exportStudent } from "./exports.js";
import { loadProfiles } from "./profiles.js";
import { train } from "./runs.js";
import { trainingService } from "./service.js";
import type { CheckedRequest, TrainingState } from "./trainingrun.js";

export const settings = {
  ...serviceSettings,
  TRAINING_LISTEN: hostPort.default("127.0.0.1:50052"),
  ...studentSettings,
  ARTIFACT_ROOT: z.string().optional(),
  /** A student that says nothing for longer is left; one on a slow machine speaks every few seconds. */
  TRAINING_STALL_SECONDS: z.coerce.number().positive().default(600),
  STUDENT_PROFILES: z.string().default(fileURLToPath(new URL("../profiles.yaml", import.meta.url))),
};

type Config = z.output<z.ZodObject<typeof settings>>;

export async function start(config: Readonly<Config>): Promise<RunningService> {
  const log = createLog("training", config.LOG_LEVEL);
  const profiles = await loadProfiles(config.STUDENT_PROFILES);
  const database = await openDatabase({ url: config.DATABASE_URL, schema: "training", log, hasRuns: true });
  const runs = new Runs<CheckedRequest, TrainingState>(database, log);
  const exports = await openExports(config, log).catch(async (error: unknown) => {
    await database.close();
    throw error;
  });
  const artifacts = new FileArtifactStore(config.ARTIFACT_ROOT ?? join(config.TUTELAGE_HOME, "artifacts"));
  const students = connectStudents(config);
  // Each student has one slot: another claim would only be refused.
  const concurrency = students.count;
  const stopping = new AbortController();
  const service = trainingService({ database, runs, exports, profiles, artifacts });
  const listening = exports.signals.listen();
  const exporting = work(exports, (lease) => exportStudent(lease, { students, artifacts }), {
    concurrency,
    signal: stopping.signal,
  });
  return await startRunService({
    name: "training",
    listen: config.TRAINING_LISTEN,
    served: served(TrainingServiceDefinition, service),
    runs,
    handler: (lease) => train(lease, { students, artifacts, silenceMs: config.TRAINING_STALL_SECONDS * 1_000 }),
    worker: { concurrency },
    stopping,
    close: async () => {
      // Where the service could not listen, this is where its second worker learns of it.
      stopping.abort();
      await exporting;
      await exports.signals.close();
      await listening;
      await exports.database.close();
      students.client.close();
    },
  });
}

/** Exports have a schema of their own, so that no worker takes the other kind's runs. */
async function openExports(config: Readonly<Config>, log: Logger): Promise<Runs<CheckedExport, ExportState>> {
  const database = await openDatabase({
    url: config.DATABASE_URL,
    schema: "exports",
    log,
    hasRuns: true,
    maxConnections: 4,
  });
  return new Runs<CheckedExport, ExportState>(database, log);
}
