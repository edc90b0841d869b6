/** The life of a service process: start, serve, stop in order. */
import type { Logger } from "./log.js";

/** What a service's start() gives back, to main.ts or to standalone. */
export interface RunningService {
  name: string;
  /** host:port of its gRPC or HTTP server. */
  address: string;
  /** Stops taking work, hands leases back, ends streams, closes connections. */
  stop(): Promise<void>;
}

/**
 * Runs one service as a process of its own: stops it cleanly on SIGTERM and
 * SIGINT, and ends the process when anything goes wrong that nobody handled.
 */
export async function runProcess(log: Logger, start: () => Promise<RunningService>): Promise<void> {
  process.on("unhandledRejection", (error) => {
    log.fatal({ err: error }, "unhandled rejection");
    process.exit(1);
  });
  let service: RunningService;
  try {
    service = await start();
  } catch (error) {
    log.fatal({ err: error }, "cannot start");
    process.exit(1);
  }
  log.info({ address: service.address }, "listening");
  // The parent (standalone) reads this to know that the service is up.
  process.send?.({ type: "listening", address: service.address });
  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ why }, "stopping");
    setTimeout(() => process.exit(1), 9_000).unref();
    await service.stop().catch((error: unknown) => log.error({ err: error }, "did not stop cleanly"));
    process.exit(0);
  };
  process.on("SIGTERM", () => void stop("SIGTERM"));
  process.on("SIGINT", () => void stop("SIGINT"));
  // An orphan must not live on: the channel closes when the parent is gone.
  process.on("disconnect", () => void stop("parent gone"));
}
