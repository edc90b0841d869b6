import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { hostPort, serviceSettings } from "@tutelage/platform/config";
import { openDatabase } from "@tutelage/platform/database";
import { serve, served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { DatasetsServiceDefinition } from "@tutelage/proto/datasets/v1/datasets";
import { z } from "zod";
import { resumeDeletions } from "./deletion.js";
import { DeletionStore } from "./deletionstore.js";
import { NoveltyMeter } from "./novelty.js";
import { OverlapMeter } from "./overlapmeter.js";
import { RowStore } from "./rowstore.js";
import { datasetsService } from "./service.js";
import { DatasetStore } from "./store.js";

export const settings = {
  ...serviceSettings,
  DATASETS_LISTEN: hostPort.default("127.0.0.1:50051"),
  /** Folder of the artifacts; by default "artifacts" in TUTELAGE_HOME. */
  ARTIFACT_ROOT: z.string().optional(),
};

export type Config = z.output<z.ZodObject<typeof settings>>;

/** How often deletions that were interrupted, by a lost connection say, are looked for. */
const lookForDeletionsMs = 60_000;

/** Brings the schema up to date and serves. */
export async function start(config: Readonly<Config>): Promise<RunningService> {
  const log = createLog("datasets", config.LOG_LEVEL);
  const database = await openDatabase({ url: config.DATABASE_URL, schema: "datasets", log });
  try {
    const artifacts = new FileArtifactStore(config.ARTIFACT_ROOT ?? join(config.TUTELAGE_HOME, "artifacts"));
    const deletions = new DeletionStore(database);
    const implementation = datasetsService({
      deletions,
      store: new DatasetStore(database),
      rowStore: new RowStore(database),
      artifacts,
      spoolDirectory: join(config.TUTELAGE_HOME, "spool"),
      novelty: new NoveltyMeter(artifacts),
      overlaps: new OverlapMeter(artifacts),
    });
    const server = await serve({
      listen: config.DATASETS_LISTEN,
      services: [served(DatasetsServiceDefinition, implementation)],
      log,
      isReady: () => database.ping(),
    });
    const stopping = new AbortController();
    const resuming = (async () => {
      while (!stopping.signal.aborted) {
        await resumeDeletions({ deletions, artifacts }, log).catch((error: unknown) =>
          log.warn({ err: error }, "could not look for interrupted deletions"),
        );
        await sleep(lookForDeletionsMs, undefined, { signal: stopping.signal }).catch(() => {});
      }
    })();
    return {
      name: "datasets",
      address: server.address,
      stop: async () => {
        stopping.abort();
        await server.stop();
        await resuming;
        await database.close();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}
