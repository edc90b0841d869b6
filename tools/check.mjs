/** Every linter, formatter and type checker: node tools/check.mjs [--fix]. */
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { root, run } from "./children.mjs";
import { venvPython } from "./setup.mjs";

const student = join(root, "services/student");
const proto = join(root, "proto");
const checks = [
  { name: "biome", command: "biome", args: ["check", "--error-on-warnings"], fix: ["check", "--write"] },
  { name: "types of tests", command: "tsc", args: ["-p", "tests"] },
  { name: "buf lint", command: "buf", args: ["lint"], cwd: proto },
  { name: "buf format", command: "buf", args: ["format", "--diff", "--exit-code"], fix: ["format", "-w"], cwd: proto },
  { name: "ruff check", command: "ruff", args: ["check", "."], fix: ["check", "--fix", "."], cwd: student },
  { name: "ruff format", command: "ruff", args: ["format", "--check", "."], fix: ["format", "."], cwd: student },
  // What it checks is in its settings.
  { name: "mypy", command: "mypy", args: [], cwd: student },
];

/** Runs them one after the other; says of each whether it passed, and why not. Gives the counts. */
export async function check({ fix = false, say = (line) => process.stdout.write(`${line}\n`) } = {}) {
  const path = [join(root, "node_modules/.bin"), dirname(venvPython), process.env.PATH].join(delimiter);
  let passed = 0;
  let failed = 0;
  for (const { name, command, args, fix: fixArgs, cwd = root } of checks) {
    const started = performance.now();
    const logFile = join(root, ".setup", `check-${name.replaceAll(" ", "-")}.log`);
    const code = await run(command, fix && fixArgs ? fixArgs : args, { cwd, env: { PATH: path }, logFile }).catch(
      () => 127,
    );
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (code === 0) passed++;
    else {
      failed++;
      // The summary of each tool is at its end.
      say(readFileSync(logFile, "utf8").trimEnd().split("\n").slice(-120).join("\n"));
      if (code === 127) say(`${command} is not installed; run "npm run setup" first.`);
    }
    say(`${code === 0 ? "passed" : "FAILED"}  ${name} (${seconds} s)`);
  }
  return { passed, failed };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { failed } = await check({ fix: process.argv.includes("--fix") });
  process.exit(failed === 0 ? 0 : 1);
}
