/** npm start: everything on this machine, until Ctrl-C. */
import { parseConfig, serviceSettings } from "@tutelage/platform/config";
import { requireLoopback } from "@tutelage/platform/grpc";
import { sharedToken } from "@tutelage/platform/token";
import { z } from "zod";
import { HomeInUse } from "./homelock.js";
import { gemmaNotice } from "./notice.js";
import { type Stack, startStack } from "./stack.js";

const settings = {
  TUTELAGE_HOME: serviceSettings.TUTELAGE_HOME,
  TUTELAGE_PORT: z.coerce.number({ error: "must be a port number, e.g. 8080" }).int().min(0).max(65_535).default(8080),
  /** Address that HTTP is served on. Beyond loopback (0.0.0.0 in a container) TUTELAGE_TOKEN must be set. */
  TUTELAGE_HOST: z.enum(["127.0.0.1", "0.0.0.0"]).default("127.0.0.1"),
  /** A Postgres of the operator's own; embedded when unset. */
  DATABASE_URL: serviceSettings.DATABASE_URL.optional(),
};

const parsed = parseConfig(settings, process.env);
if ("problems" in parsed) {
  say(`Cannot start: ${parsed.problems.join("\n  ")}`);
  process.exit(78);
}
const { config } = parsed;

const interrupted = new AbortController();
let stack: Stack | undefined;
let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    say("Stopping …");
    interrupted.abort();
    // While it still starts, the start itself takes down what is there.
    void stack?.stop().then(() => {
      say("Stopped.");
      process.exit(0);
    });
  });
}

say(`Starting on ${config.TUTELAGE_HOME} …`);
try {
  if (sharedToken() === undefined) requireLoopback(`${config.TUTELAGE_HOST}:${config.TUTELAGE_PORT}`);
  stack = await startStack({
    home: config.TUTELAGE_HOME,
    httpPort: config.TUTELAGE_PORT,
    httpHost: config.TUTELAGE_HOST,
    ...(config.DATABASE_URL === undefined ? {} : { databaseUrl: config.DATABASE_URL }),
    // Process ids are in the logs; what starts and stops on request is no news.
    onEvent: (line, { type }) => {
      if (type !== "started" && type !== "stopped" && !stopping) say(`  ${line}`);
    },
    signal: interrupted.signal,
  });
} catch (error) {
  if (interrupted.signal.aborted) say("Stopped.");
  else say(error instanceof HomeInUse ? error.message : `Cannot start: ${(error as Error).message}`);
  process.exit(interrupted.signal.aborted ? 0 : 1);
}
if (stopping) await stack.stop();
else {
  process.stdout.write(`
Tutelage is ready.
  API    ${stack.url}/v1
  docs   ${stack.url}/docs
  gRPC   datasets ${stack.addresses.datasets}, campaigns ${stack.addresses.campaigns}
  data   ${stack.home}
  logs   ${stack.logDirectory}

${gemmaNotice}

Ctrl-C stops it.
`);
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
