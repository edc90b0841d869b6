/** tutelage up: the whole server on this machine, in the foreground. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { exitCodes, Stop } from "./exit.js";

const repository = fileURLToPath(new URL("../../", import.meta.url));

/**
 * Sets up what is missing, then becomes the server, as `npm start` does. In
 * this process and no other: whoever signals it, a terminal or a supervisor,
 * signals the server, which decides when it has stopped and with which code.
 */
export async function up(options: { port?: string; home?: string }): Promise<void> {
  const program = `${repository}tools/run.mjs`;
  if (!existsSync(program))
    throw new Stop(`There is no ${program}: run this from a clone of Tutelage.`, exitCodes.noInput);
  if (options.port !== undefined) process.env.TUTELAGE_PORT = options.port;
  // As typed from where the user is; everything else is as seen from the clone.
  if (options.home !== undefined) process.env.TUTELAGE_HOME = resolve(options.home);
  process.chdir(repository);
  process.argv.splice(1, process.argv.length, program, "services/standalone/dist/main.js");
  await import(pathToFileURL(program).href);
}
