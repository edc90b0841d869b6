/** Sets up what is missing, then runs a program in this process: node tools/run.mjs PROGRAM [ARGUMENTS]. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./children.mjs";
import { failSetup, setUp } from "./setup.mjs";

const [name, ...args] = process.argv.slice(2);
if (name === undefined) {
  process.stderr.write("Which program? For example: npm run bench -- rouge-l\n");
  process.exit(64);
}
const started = performance.now();
await setUp().catch(failSetup);
// The demo reports it.
process.env.TUTELAGE_SETUP_SECONDS = ((performance.now() - started) / 1000).toFixed(1);
for (const signal of ["SIGINT", "SIGTERM"]) process.removeAllListeners(signal);

const program = resolve(root, name);
if (!existsSync(program)) {
  process.stderr.write(`There is no ${name}.\n`);
  process.exit(66);
}
process.argv.splice(1, process.argv.length, program, ...args);
await import(pathToFileURL(program).href);
