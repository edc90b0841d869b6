/** The gateway's settings, and the gateway put together. */
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { hostPort, replicas, serviceSettings } from "@tutelage/platform/config";
import { requireLoopback } from "@tutelage/platform/grpc";
import type { Logger } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { sharedToken } from "@tutelage/platform/token";
import { z } from "zod";
import { buildApp } from "./app.js";
import { connectBackends } from "./backends.js";
import { sweepProfileTests } from "./profiletestsweep.js";

export const gatewaySettings = {
  TUTELAGE_HOME: serviceSettings.TUTELAGE_HOME,
  LOG_LEVEL: serviceSettings.LOG_LEVEL,
  TUTELAGE_TOKEN: serviceSettings.TUTELAGE_TOKEN,
  TUTELAGE_TOKEN_FILE: serviceSettings.TUTELAGE_TOKEN_FILE,
  GATEWAY_LISTEN: hostPort.default("127.0.0.1:8080"),
  DATASETS_ADDRESS: replicas.default("127.0.0.1:50051"),
  TRAINING_ADDRESS: replicas.default("127.0.0.1:50052"),
  EVALUATION_ADDRESS: replicas.default("127.0.0.1:50053"),
  TEACHER_ADDRESS: replicas.default("127.0.0.1:50054"),
  CAMPAIGNS_ADDRESS: replicas.default("127.0.0.1:50055"),
  /** Only asked for its health; training and evaluation speak to it. */
  STUDENT_ADDRESS: replicas.optional(),
  /** Where checkpoints are read from; TUTELAGE_HOME/artifacts when unset. */
  ARTIFACT_ROOT: z.string().optional(),
  /** Largest file that may be imported, in bytes. */
  GATEWAY_MAX_IMPORT_BYTES: z.coerce
    .number()
    .int()
    .min(1)
    .default(1024 ** 3),
  /** Silence on an event stream after which a comment is sent. */
  GATEWAY_HEARTBEAT_MS: z.coerce.number().int().min(10).default(15_000),
  /** Longest that the test of a profile may take: the retries of a usual one, and a first load of an embedded model. */
  GATEWAY_PROFILE_TEST_MS: z.coerce.number().int().min(100).max(3_600_000).default(180_000),
};

/** How long requests under way have to end when the gateway stops. */
const requestGraceMs = 1_500;

export type GatewayConfig = Readonly<z.output<z.ZodObject<typeof gatewaySettings>>>;

export async function start(config: GatewayConfig, log: Logger): Promise<RunningService> {
  const token = sharedToken();
  if (token === undefined) requireLoopback(config.GATEWAY_LISTEN);
  const backends = connectBackends({
    datasets: config.DATASETS_ADDRESS,
    training: config.TRAINING_ADDRESS,
    evaluation: config.EVALUATION_ADDRESS,
    teacher: config.TEACHER_ADDRESS,
    campaigns: config.CAMPAIGNS_ADDRESS,
    student: config.STUDENT_ADDRESS,
  });
  const app = await buildApp({
    backends,
    artifacts: new FileArtifactStore(config.ARTIFACT_ROOT ?? join(config.TUTELAGE_HOME, "artifacts")),
    maxImportBytes: config.GATEWAY_MAX_IMPORT_BYTES,
    heartbeatMs: config.GATEWAY_HEARTBEAT_MS,
    profileTestMs: config.GATEWAY_PROFILE_TEST_MS,
    log,
    token,
  });
  const stopSweeping = sweepProfileTests(backends, config.GATEWAY_PROFILE_TEST_MS, log);
  const colon = config.GATEWAY_LISTEN.lastIndexOf(":");
  const host = config.GATEWAY_LISTEN.slice(0, colon);
  await app.listen({ host: host.replace(/^\[|\]$/g, ""), port: Number(config.GATEWAY_LISTEN.slice(colon + 1)) });
  const { port } = app.server.address() as { port: number };
  return {
    name: "gateway",
    address: `${host}:${port}`,
    stop: async () => {
      await stopSweeping();
      // An upload, or an answer that nobody reads, may last for minutes; its client sees it broken off.
      const cut = setTimeout(() => app.server.closeAllConnections(), requestGraceMs);
      await app.close();
      clearTimeout(cut);
      backends.close();
    },
  };
}
