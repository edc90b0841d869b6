import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";

/** An address to listen on or to call: host:port. */
export const hostPort = z.string().regex(/^[\w.:[\]-]+:\d{1,5}$/, 'must be "host:port", e.g. 127.0.0.1:50051');

/** Where a service's replicas are called: host:port, whose name may have several addresses, or their IPv4 addresses. */
export const replicas = z
  .string()
  .regex(
    /^([\w.:[\]-]+:\d{1,5}|\d{1,3}(\.\d{1,3}){3}:\d{1,5}(,\d{1,3}(\.\d{1,3}){3}:\d{1,5})+)$/,
    'must be "host:port", or the "IPv4:port" of several replicas with commas between: 10.0.0.1:50051,10.0.0.2:50051',
  );

/** Settings that every service has. */
export const serviceSettings = {
  TUTELAGE_HOME: z
    .string()
    .default(join(homedir(), ".tutelage"))
    .transform((path) => resolve(path)),
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, "must be a postgres:// URL, e.g. postgres://user:password@127.0.0.1:5432/tutelage"),
  /** Shared by every process that listens beyond loopback; token.ts reads and checks it. */
  TUTELAGE_TOKEN: z.string().optional(),
  /** A file that holds it, instead. */
  TUTELAGE_TOKEN_FILE: z.string().optional(),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "trace"]).default("info"),
};

/**
 * Reads settings from the environment, once, at start.
 * Ends the process with one line for each wrong variable when any is wrong.
 */
export function readConfig<Shape extends z.ZodRawShape>(
  shape: Shape,
  environment: NodeJS.ProcessEnv = process.env,
): Readonly<z.output<z.ZodObject<Shape>>> {
  const parsed = parseConfig(shape, environment);
  if ("problems" in parsed) {
    process.stderr.write(`Cannot start: ${parsed.problems.length} environment variable(s) are wrong.\n`);
    for (const problem of parsed.problems) process.stderr.write(`  ${problem}\n`);
    process.exit(78); // EX_CONFIG
  }
  return parsed.config;
}

/** The pure part of readConfig: the settings, or one sentence for each wrong variable. */
export function parseConfig<Shape extends z.ZodRawShape>(
  shape: Shape,
  environment: NodeJS.ProcessEnv,
): { config: Readonly<z.output<z.ZodObject<Shape>>> } | { problems: string[] } {
  // An empty variable is an unset one: that is what `X= command` means to its writer.
  const set = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ""));
  const result = z.object(shape).safeParse(set);
  if (result.success) return { config: Object.freeze(result.data) };
  return {
    problems: result.error.issues.map((issue) => {
      const name = issue.path.join(".");
      const said = set[name] === undefined ? "is not set" : `is ${JSON.stringify(shownValue(name, set[name]))}`;
      return `${name} ${said}: ${issue.message}`;
    }),
  };
}

/** Values of variables that may hold a secret are not repeated. */
function shownValue(name: string, value: string): string {
  return /KEY|TOKEN|SECRET|PASSWORD|URL/.test(name) ? "…" : value;
}
