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
  const starting = start();
  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ why }, "stopping");
    setTimeout(() => process.exit(1), 9_000).unref();
    // Told so while it starts, it stops once it has: its worker may hold a run already.
    await starting
      .then((service) => service.stop())
      .catch((error: unknown) => log.error({ err: error }, "did not stop cleanly"));
    process.exit(0);
  };
  process.on("SIGTERM", () => void stop("SIGTERM"));
  process.on("SIGINT", () => void stop("SIGINT"));
  // An orphan must not live on: the channel closes when the parent is gone.
  process.on("disconnect", () => void stop("parent gone"));
  const service = await starting.catch((error: unknown) => {
    log.fatal({ err: error }, "cannot start");
    process.exit(1);
  });
  if (stopping) return;
  log.info({ address: service.address }, "listening");
  // The parent (standalone) reads this to know that the service is up.
  process.send?.({ type: "listening", address: service.address });
}
