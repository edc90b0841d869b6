/** Wires the teacher service and declares its settings. */
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { hostPort, replicas, serviceSettings } from "@tutelage/platform/config";
import { openDatabase } from "@tutelage/platform/database";
import { served } from "@tutelage/platform/grpc";
import { createLog, type Logger } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { type LeaseTiming, Runs } from "@tutelage/platform/runs";
import { startRunService } from "@tutelage/platform/runservice";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { z } from "zod";
import { Ledger } from "./ledger.js";
import { readProfiles } from "./profile.js";
import { settleLeftOver } from "./reservations.js";
import { generate, shutdownGraceMs } from "./runs.js";
import { teacherService } from "./service.js";
import { connectSlots } from "./slot.js";
import { forgetWait, Store } from "./store.js";
import { Teachers } from "./teachers.js";
import { WeatherStore } from "./weatherstore.js";
import type { GenerationRequest, GenerationState } from "./work.js";

const repository = fileURLToPath(new URL("../../../", import.meta.url));

export const settings = {
  ...serviceSettings,
  TEACHER_LISTEN: hostPort.default("127.0.0.1:50054"),
  /** Students whose slots embedded teachers hold, as they share their cores; unset, they wait for none. */
  STUDENT_ADDRESS: replicas.optional(),
  TEACHER_PROFILES: z
    .string()
    .default(`${repository}services/teacher/profiles.yaml`)
    .transform((path) => resolve(path)),
  /** The Python whose packages bring the embedded models. */
  TUTELAGE_PYTHON: z.string().default(`${repository}.venv/bin/python`),
};

export type TeacherConfig = Readonly<z.output<z.ZodObject<typeof settings>>>;

/** Runs worked on at once; each profile bounds its own calls. */
const concurrentRuns = 4;

export async function start(
  config: TeacherConfig,
  options: { log?: Logger; timing?: LeaseTiming } = {},
): Promise<RunningService> {
  const log = options.log ?? createLog("teacher", config.LOG_LEVEL);
  const profiles = await readProfiles(config.TEACHER_PROFILES);
  const database = await openDatabase({ url: config.DATABASE_URL, schema: "teacher", log, hasRuns: true });
  const runs = new Runs<GenerationRequest, GenerationState>(
    database,
    log,
    options.timing,
    async (transaction, { kind }, { projectId, id }) => {
      // A dead holder's tries, where the run ends before another one begins.
      if (kind === "failed" || kind === "cancelled") await settleLeftOver(transaction, projectId, id);
      if (kind === "resumed" || kind === "retried") await forgetWait(transaction, projectId, id);
    },
  );
  const store = new Store(database);
  const weather = new WeatherStore(database);
  const place = { home: config.TUTELAGE_HOME, python: config.TUTELAGE_PYTHON };
  const teachers = new Teachers(profiles, place, weather, log);
  const slotClients = config.STUDENT_ADDRESS === undefined ? [] : connectSlots(config.STUDENT_ADDRESS);
  const stopping = new AbortController();
  return await startRunService({
    name: "teacher",
    listen: config.TEACHER_LISTEN,
    served: served(
      TeacherServiceDefinition,
      teacherService({ runs, store, ledger: new Ledger(database, store), teachers, weather, database }),
    ),
    runs,
    handler: (lease) => generate(lease, { database, store, teachers, log, slotClients, shutdown: stopping.signal }),
    worker: {
      concurrency: concurrentRuns,
      // Handed over any sooner, calls under way would be made again by the next holder.
      drainMs: shutdownGraceMs + 1_000,
    },
    stopping,
    close: async () => {
      await teachers.close();
      for (const client of slotClients) client.close();
    },
  });
}
