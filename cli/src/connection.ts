/** Why a server was not reached, or not to the end, for a person. Pure. */
import { exitCodes, Stop } from "./exit.js";

/** Says what became of a call that has no answer, and what to do. */
export function connectionStop(error: unknown, url: string, timeoutMs: number): Stop {
  const cause = causeOf(error);
  if (cause instanceof Stop) return cause;
  const code = (cause as { code?: string } | undefined)?.code ?? "";
  if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT") {
    return new Stop(
      `${url} took the request, but has not answered for ${timeoutMs / 1_000} s. It may be busy, or hang: ` +
        'see "tutelage doctor", then try again.',
      exitCodes.unavailable,
      { reason: "timed_out", title: "The server does not answer in time" },
    );
  }
  if (["ECONNRESET", "EPIPE", "UND_ERR_SOCKET", "UND_ERR_RES_CONTENT_LENGTH_MISMATCH"].includes(code)) {
    return new Stop(
      `The connection to ${url} broke before the answer was whole. Look whether the server still runs ("tutelage ` +
        'doctor"), then try again.',
      exitCodes.unavailable,
      { reason: "connection_broken", title: "The connection broke" },
    );
  }
  if (code === "ERR_INVALID_URL" || !/^https?:\/\//.test(url)) {
    return new Stop(`"${url}" is not an address; write --url http://HOST:PORT.`, exitCodes.usage);
  }
  return new Stop(
    `Nobody answers at ${url}. Start the server with "tutelage up", or name another with --url or TUTELAGE_URL.`,
    exitCodes.unavailable,
    { reason: "nobody_answers" },
  );
}

/** The innermost cause; fetch wraps what happened. */
function causeOf(error: unknown): unknown {
  const cause = (error as { cause?: unknown } | undefined)?.cause;
  return cause === undefined ? error : causeOf(cause);
}
