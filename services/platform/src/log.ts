import { pino } from "pino";

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
      redact: {
        paths: ["*.apiKey", "*.authorization", "*.password", "headers.authorization", "DATABASE_URL", "*.DATABASE_URL"],
        censor: "[redacted]",
      },
    },
    pino.destination({ dest: 2, sync: false }),
  );
}
