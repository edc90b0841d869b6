/** gRPC servers and clients as every service uses them: health, reflection, deadlines, one error model. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import {
  type CallContext,
  type Client,
  type CompatServiceDefinition,
  createChannel,
  createClientFactory,
  createServer,
  type ServiceImplementation,
  Status,
} from "nice-grpc";
import { type DeadlineOptions, deadlineMiddleware } from "nice-grpc-client-middleware-deadline";
import { ClientError, type ClientMiddlewareCall, Metadata, type ServerMiddlewareCall } from "nice-grpc-common";
import {
  BadRequest,
  ErrorInfo,
  errorDetailsClientMiddleware,
  errorDetailsServerMiddleware,
  RichClientError,
  RichServerError,
} from "nice-grpc-error-details";
import { HealthDefinition, HealthServiceImpl, HealthState } from "nice-grpc-server-health";
import { ServerReflection, ServerReflectionService } from "nice-grpc-server-reflection";
import { channelOptions, clientOptions, targetOf } from "./channel.js";
import { isDatabaseAway, refuseInTransaction } from "./database.js";
import { Drain } from "./drain.js";
import { asTutelageError, type ErrorCode, TutelageError } from "./errors.js";
import type { Logger } from "./log.js";
import { isLoopback } from "./loopback.js";
import { watchReadiness } from "./readiness.js";
import { authorization, authorizes, sharedToken } from "./token.js";

/** Deadline of a call that names none. */
const defaultDeadlineMs = 30_000;
/** Deadline of a stream that lasts as long as a run: three days. */
export const watchDeadlineMs = 259_200_000;
/** What a call that is cut short has to tell its client so. */
const tellMs = 300;

const codeToStatus: Record<ErrorCode, Status> = {
  invalid_argument: Status.INVALID_ARGUMENT,
  not_found: Status.NOT_FOUND,
  already_exists: Status.ALREADY_EXISTS,
  failed_precondition: Status.FAILED_PRECONDITION,
  unauthenticated: Status.UNAUTHENTICATED,
  resource_exhausted: Status.RESOURCE_EXHAUSTED,
  aborted: Status.ABORTED,
  cancelled: Status.CANCELLED,
  deadline_exceeded: Status.DEADLINE_EXCEEDED,
  unavailable: Status.UNAVAILABLE,
  data_loss: Status.DATA_LOSS,
  unimplemented: Status.UNIMPLEMENTED,
  internal: Status.INTERNAL,
};
const statusToCode = new Map(Object.entries(codeToStatus).map(([code, status]) => [status, code as ErrorCode]));

/** A service on its way to a server: its generated definition and our implementation. */
export interface Served<Definition extends CompatServiceDefinition = CompatServiceDefinition> {
  definition: Definition;
  implementation: ServiceImplementation<Definition>;
}

/** Pairs a definition with its implementation, checked by the compiler. */
export function served<Definition extends CompatServiceDefinition>(
  definition: Definition,
  implementation: ServiceImplementation<Definition>,
): Served {
  return { definition, implementation } as unknown as Served;
}

export interface RunningServer {
  /** host:port it listens on; the port that the system chose when 0 was asked for. */
  address: string;
  /**
   * Answers health checks with NOT_SERVING, ends Watch streams at once and other
   * calls after graceMs, each with the reason service_stopping, and closes.
   * With 0 connections are cut, as those of a process that is killed.
   */
  stop(graceMs?: number): Promise<void>;
}

/**
 * Serves gRPC with health and reflection. Beyond loopback only with the shared
 * token, which then every call but a health check must carry.
 */
export async function serve(options: {
  listen: string;
  services: Served[];
  log: Logger;
  /** Throws while what the service rests on does not answer: health checks say NOT_SERVING then. */
  isReady?: () => Promise<unknown>;
}): Promise<RunningServer> {
  const token = sharedToken();
  if (token === undefined) requireLoopback(options.listen);
  const health = HealthState();
  const drain = new Drain();
  const server = createServer(channelOptions)
    .use(errorDetailsServerMiddleware)
    .use(errorMiddleware(options.log))
    .use(tokenMiddleware(token))
    .use(drain.middleware());
  for (const { definition, implementation } of options.services) server.add(definition, implementation);
  server.add(HealthDefinition, HealthServiceImpl(health));
  const descriptors = await readFile(fileURLToPath(import.meta.resolve("@tutelage/proto/descriptors.binpb")));
  server.add(
    ServerReflectionService,
    ServerReflection(
      descriptors,
      options.services.map(({ definition }) => (definition as { fullName: string }).fullName),
    ),
  );
  const port = await server.listen(options.listen);
  const stopping = new AbortController();
  if (options.isReady !== undefined) {
    const tell = (ready: boolean) => health.setStatus(ready ? "healthy" : "unhealthy");
    void watchReadiness(options.isReady, tell, options.log, stopping.signal);
  }
  const address = `${options.listen.slice(0, options.listen.lastIndexOf(":"))}:${port}`;
  return {
    address,
    stop: async (graceMs = 2_000) => {
      stopping.abort();
      health.setStatus("unhealthy");
      drain.begin();
      const graceful = server.shutdown();
      const timers = [
        setTimeout(() => drain.end(), graceMs),
        // A client that does not read what it asked for is not told why.
        setTimeout(() => server.forceShutdown(), graceMs === 0 ? 0 : graceMs + tellMs),
      ];
      await graceful;
      for (const timer of timers) clearTimeout(timer);
    },
  };
}

/**
 * A client with deadlines and our errors; of a service with several replicas, its calls take turns (channel.ts).
 * Close it to let the process end.
 */
export function connect<Definition extends CompatServiceDefinition>(
  definition: Definition,
  address: string,
): Client<Definition, DeadlineOptions> & { close(): void } {
  const channel = createChannel(targetOf(address), undefined, clientOptions(definition));
  // The first is the innermost: ours sees what the others made, details and deadlines included.
  const client = createClientFactory()
    .use(errorDetailsClientMiddleware)
    .use(deadlineMiddleware)
    .use(clientErrorMiddleware)
    .create(definition, channel, { "*": { deadline: defaultDeadlineMs, ...credentials() } } as never);
  return Object.assign(client, { close: () => channel.close() }) as never;
}

/** What every call of a client carries. */
function credentials(): { metadata?: Metadata } {
  const token = sharedToken();
  return token === undefined ? {} : { metadata: new Metadata({ authorization: authorization(token) }) };
}

/** Refuses calls without the token; whoever only asks for the health needs none. */
function tokenMiddleware(token: string | undefined) {
  return async function* <Request, Response>(call: ServerMiddlewareCall<Request, Response>, context: CallContext) {
    const isOpen = token === undefined || call.method.path.startsWith(`/${HealthDefinition.fullName}/`);
    if (!isOpen && !authorizes(context.metadata.get("authorization"), token)) {
      throw new TutelageError(
        "unauthenticated",
        "The shared token is missing or wrong: send the metadata authorization: Bearer TOKEN.",
      );
    }
    return yield* call.next(call.request, context);
  };
}

/** Turns whatever a handler throws into a status with details; logs what was not foreseen. */
function errorMiddleware(log: Logger) {
  return async function* <Request, Response>(call: ServerMiddlewareCall<Request, Response>, context: CallContext) {
    try {
      return yield* call.next(call.request, context);
    } catch (thrown) {
      // Nobody is there to be told, whatever it was.
      context.signal.throwIfAborted();
      // A Postgres that restarts is a reason to come back, not a fault: callers try again on "unavailable".
      const error = isDatabaseAway(thrown)
        ? new TutelageError("unavailable", "The database does not answer now; try again.", {
            reason: "database_away",
            cause: thrown,
          })
        : asTutelageError(thrown);
      // What nobody foresaw, and a disk that cannot be written: the operator learns the rest.
      if (error.code === "internal" || error.reason.startsWith("disk_"))
        log.error({ err: error.cause ?? error, path: call.method.path }, "call failed");
      const details = [ErrorInfo.fromPartial({ reason: error.reason, domain: "tutelage" })];
      throw new RichServerError(codeToStatus[error.code], error.message, [
        ...details,
        ...(error.fields.length === 0 ? [] : [BadRequest.fromPartial({ fieldViolations: [...error.fields] })]),
      ]);
    }
  };
}

/** Turns a status from the other side back into a TutelageError. */
async function* clientErrorMiddleware<Request, Response, Options extends object>(
  call: ClientMiddlewareCall<Request, Response>,
  options: Options,
) {
  refuseInTransaction(`A call of ${call.method.path}`);
  try {
    return yield* call.next(call.request, options);
  } catch (thrown) {
    throw fromClientError(thrown);
  }
}

function fromClientError(thrown: unknown): unknown {
  if (!(thrown instanceof ClientError)) return thrown;
  const extra = thrown instanceof RichClientError ? thrown.extra : [];
  const info = extra.find((detail) => detail.$type === "google.rpc.ErrorInfo") as ErrorInfo | undefined;
  const badRequest = extra.find((detail) => detail.$type === "google.rpc.BadRequest") as BadRequest | undefined;
  if (thrown.code === Status.UNAUTHENTICATED) {
    // Between services that is the operator's to mend; whoever asked us has shown his own token.
    return new TutelageError(
      "unavailable",
      `A service refuses our token (${thrown.path}): set the same TUTELAGE_TOKEN for every process.`,
      { reason: "service_token_refused", cause: thrown },
    );
  }
  // A connection that is reset under a call is lost, as one that is closed is; grpc-js calls only the latter so.
  if (thrown.code === Status.INTERNAL && /RST_STREAM|ECONNRESET/.test(thrown.details)) {
    return new TutelageError("unavailable", "The connection was lost; try again.", {
      reason: "connection_lost",
      cause: thrown,
    });
  }
  const code = statusToCode.get(thrown.code) ?? "internal";
  return new TutelageError(code, thrown.details, {
    ...(info === undefined ? {} : { reason: info.reason }),
    fields: (badRequest?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
    cause: thrown,
  });
}

/** Throws unless host:port is on loopback. */
export function requireLoopback(listen: string): void {
  if (isLoopback(listen.slice(0, listen.lastIndexOf(":")))) return;
  throw new TutelageError(
    "failed_precondition",
    `Refusing to listen on ${listen}: without a token only loopback addresses are allowed, e.g. 127.0.0.1:50051. Set TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE to listen beyond.`,
    { reason: "not_loopback" },
  );
}
