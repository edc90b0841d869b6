/** npm run bench -- NAME: sets up what is missing, then runs benchmarks/NAME.mjs. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "./children.mjs";

const name = process.argv[2] ?? "";
const names = readdirSync(join(root, "benchmarks"))
  .filter((file) => file.endsWith(".mjs"))
  .map((file) => file.slice(0, -".mjs".length));
if (!names.includes(name)) {
  process.stderr.write(`Which benchmark? npm run bench -- ${names.join(" | ")}\n`);
  process.exit(64);
}
process.argv[2] = `benchmarks/${name}.mjs`;
await import("./run.mjs");
