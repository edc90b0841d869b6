/** A service that has long work: its server and its worker start together, and stop in order. */
import { type Served, serve } from "./grpc.js";
import type { RunningService } from "./process.js";
import type { Runs } from "./runs.js";
import { type Handler, type WorkOptions, work } from "./worker.js";

export interface RunService<Request, State extends object> {
  name: string;
  /** host:port. */
  listen: string;
  served: Served | Served[];
  runs: Runs<Request, State>;
  handler: Handler<Request, State>;
  worker: Omit<WorkOptions<Request, State>, "signal">;
  /** Aborted when the service stops; given where more than its server and its worker ends then. */
  stopping?: AbortController;
  /** Closes what the handler uses, once nothing uses it any more. */
  close(): Promise<void> | void;
}

/** Listens, then works. What was opened is closed when it cannot listen. */
export async function startRunService<Request, State extends object>(
  service: RunService<Request, State>,
): Promise<RunningService> {
  const { runs, stopping = new AbortController() } = service;
  const { database, log, signals } = runs;
  const close = async () => {
    await service.close();
    await database.close();
  };
  const server = await serve({
    listen: service.listen,
    services: [service.served].flat(),
    log,
    isReady: () => database.ping(),
  }).catch(async (error: unknown) => {
    await close();
    throw error;
  });
  const listening = signals.listen();
  const working = work(runs, service.handler, { ...service.worker, signal: stopping.signal });
  return {
    name: service.name,
    address: server.address,
    stop: async () => {
      stopping.abort();
      await Promise.all([server.stop(), working]);
      await signals.close();
      await listening;
      await close();
    },
  };
}
