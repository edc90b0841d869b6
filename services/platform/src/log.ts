import { DrizzleQueryError } from "drizzle-orm";
import { pino, stdSerializers } from "pino";

export type { Logger } from "pino";

/**
 * JSON lines on standard error, so that standard output stays free for results.
 * Row texts, prompts and replies are never logged; keys of settings that hold
 * secrets are redacted should one slip in.
 */
export function createLog(service: string, level: string) {
  return pino(
    {
      name: service,
      level,
      serializers: { err: withoutValues },
      redact: {
        paths: ["*.apiKey", "*.authorization", "*.password", "headers.authorization", "DATABASE_URL", "*.DATABASE_URL"],
        censor: "[redacted]",
      },
    },
    pino.destination({ dest: 2, sync: false }),
  );
}

/** An error as it is logged. A failed query quotes all that it was given, row texts among it: its cause says why. */
export function withoutValues(error: unknown): unknown {
  let shown = error;
  while (shown instanceof DrizzleQueryError) shown = shown.cause ?? new Error("a query failed");
  if (!(shown instanceof Error)) return shown;
  // Postgres puts the row at fault into "detail".
  const { detail: _, where: __, ...rest } = stdSerializers.err(shown) as unknown as Record<string, unknown>;
  return rest;
}
