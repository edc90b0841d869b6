/** Answers that are streamed: started before they are sent, ended when the client goes. */
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { asTutelageError, TutelageError } from "@tutelage/platform/errors";
import type { FastifyReply } from "fastify";

/** Aborts when the client has gone or the server shuts down. */
export function clientGone(reply: FastifyReply, shutdown: AbortSignal): AbortSignal {
  const gone = new AbortController();
  reply.raw.on("close", () => gone.abort());
  return AbortSignal.any([gone.signal, shutdown]);
}

/**
 * A stream that has begun: its first item is here, so that an error which
 * comes instead of it still becomes a problem document with its own status.
 */
export async function started<T>(source: AsyncIterable<T>): Promise<{ empty: boolean; items: AsyncGenerator<T> }> {
  const iterator = source[Symbol.asyncIterator]();
  const first = await iterator.next();
  async function* items() {
    try {
      for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { empty: first.done === true, items: items() };
}

/** Bytes or text as a stream that holds one piece at a time. */
export function byteStream(chunks: AsyncIterable<Uint8Array | string>): Readable {
  return Readable.from(chunks, { objectMode: false });
}

/** One server-sent event; an event without an id does not move the client's Last-Event-ID. */
export function sseEvent(event: { id?: number; type: string; data: unknown }): string {
  const id = event.id === undefined ? "" : `id: ${event.id}\n`;
  return `${id}event: ${event.type}\ndata: ${JSON.stringify(event.data)}\n\n`;
}

/** An event stream that ends before its time says why; the client comes back with Last-Event-ID, and misses nothing. */
export async function* closedWithReason(
  texts: AsyncGenerator<string>,
  shutdown: AbortSignal,
  onError: (error: TutelageError) => void,
): AsyncGenerator<string> {
  let why: TutelageError | undefined;
  try {
    yield* texts;
  } catch (error) {
    why = asTutelageError(error);
  }
  if (shutdown.aborted) why = serverStopping;
  if (why === undefined) return;
  if (why.code !== "unavailable") onError(why);
  yield sseEvent({ type: "stream.closing", data: { reason: why.reason, message: why.message } });
}

const serverStopping = new TutelageError("unavailable", "The server is stopping; connect again in a moment.", {
  reason: "server_stopping",
});

/** The texts as they come, and a comment whenever none came for a while: proxies and clients drop silent streams. */
export async function* withHeartbeat(
  texts: AsyncGenerator<string>,
  heartbeatMs: number,
  signal: AbortSignal,
): AsyncGenerator<string> {
  let next = texts.next();
  try {
    while (!signal.aborted) {
      const timer = new AbortController();
      const silence = sleep(heartbeatMs, "silence" as const, { signal: AbortSignal.any([timer.signal, signal]) }).catch(
        () => "aborted" as const,
      );
      const result = await Promise.race([next, silence]);
      timer.abort();
      if (result === "aborted") return;
      if (result === "silence") yield ": still here\n\n";
      else if (result.done === true) return;
      else {
        yield result.value;
        next = texts.next();
      }
    }
  } finally {
    // The call behind it ends with its own signal; what it then throws is of no interest.
    next.catch(() => {});
    texts.return(undefined).catch(() => {});
  }
}
