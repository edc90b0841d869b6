/** tutelage up: the whole server on this machine, in the foreground. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { exitCodes, Stop } from "./exit.js";

const repository = fileURLToPath(new URL("../../", import.meta.url));

/** Sets up what is missing, then runs until Ctrl-C. Returns its exit code. */
export async function up(options: { port?: string; home?: string }): Promise<number> {
  const program = `${repository}tools/run.mjs`;
  if (!existsSync(program))
    throw new Stop(`There is no ${program}: run this from a clone of Tutelage.`, exitCodes.noInput);
  const child = spawn(process.execPath, [program, "services/standalone/dist/main.js"], {
    cwd: repository,
    stdio: "inherit",
    env: {
      ...process.env,
      ...(options.port === undefined ? {} : { TUTELAGE_PORT: options.port }),
      ...(options.home === undefined ? {} : { TUTELAGE_HOME: options.home }),
    },
  });
  // Ctrl-C reaches the whole group; the server decides when it has stopped.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  const [code, signal] = (await once(child, "exit")) as [number | null, string | null];
  return code ?? (signal === "SIGINT" ? exitCodes.interrupted : exitCodes.failed);
}
