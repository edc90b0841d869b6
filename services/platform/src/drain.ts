/** How a server's calls end when it stops: Watch streams at once, everything else after a grace, all with a reason. */
import type { CallContext } from "nice-grpc";
import type { ServerMiddlewareCall } from "nice-grpc-common";
import { TutelageError } from "./errors.js";

/** Why a call ended that the stop of its server cut short; its caller comes back, to whoever serves then. */
export class ServiceStopping extends TutelageError {
  constructor() {
    super("unavailable", "The service is stopping; call again in a moment.", { reason: "service_stopping" });
  }
}

export class Drain {
  /** Aborts when the stop begins: what would last as long as a run ends now. */
  private readonly begun = new AbortController();
  /** Aborts when the grace is over: what is left ends, too. */
  private readonly over = new AbortController();

  begin(): void {
    this.begun.abort();
  }

  end(): void {
    this.begun.abort();
    this.over.abort();
  }

  /** Ends calls as this says. Their handlers see it by their signal; one that does not look is not waited for. */
  middleware() {
    const { begun, over } = this;
    return async function* <Request, Response>(call: ServerMiddlewareCall<Request, Response>, context: CallContext) {
      const lastsAsARun = /\/Watch[^/]*$/.test(call.method.path);
      const { signal } = lastsAsARun ? begun : over;
      const responses = call.next(call.request, { ...context, signal: AbortSignal.any([context.signal, signal]) });
      try {
        for (;;) {
          const next: Promise<IteratorResult<Response, unknown>> = responses.next();
          const response = await unlessAborted(signal, next);
          if (!response.done) {
            yield response.value;
            continue;
          }
          // A watch that its signal ended did not come to the run's end.
          if (lastsAsARun && signal.aborted) throw new ServiceStopping();
          return response.value as never;
        }
      } finally {
        // Not waited for: a handler that hangs would hold the stop up.
        responses.return(undefined as never).catch(() => {});
      }
    };
  }
}

/** A promise's result; ServiceStopping when the signal aborts before. Leaves nothing on the signal: streams are long. */
function unlessAborted<Result>(signal: AbortSignal, promise: Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const end = () => reject(new ServiceStopping());
    if (signal.aborted) end();
    signal.addEventListener("abort", end, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", end));
  });
}
