/**
 * Runs every shell command of README.md and docs/*.md against a real server: npm run test:docs [-- --json].
 * With --json the last line of standard output is one JSON value, and everything else is on standard error.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./children.mjs";
import { failSetup, setUp } from "./setup.mjs";

const json = process.argv.includes("--json");
const folder = mkdtempSync(join(tmpdir(), "tutelage-docs-report-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const report = join(folder, "report.json");

await setUp({ say: (line) => process.stderr.write(`${line}\n`) }).catch(failSetup);
const child = spawn(
  process.execPath,
  [
    join(root, "node_modules/vitest/vitest.mjs"),
    ...["run", "tests/docs/commands.test.ts", "--reporter=verbose", "--reporter=json", `--outputFile.json=${report}`],
  ],
  // Vitest's own report goes where people look, and not between the lines of who reads JSON.
  { cwd: root, stdio: ["ignore", json ? 2 : "inherit", "inherit"] },
);
const [code] = await once(child, "exit");
const { testResults } = existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : { testResults: [] };
const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
const having = (status) => tests.filter((test) => test.status === status);
const failures = having("failed").map(({ title, failureMessages }) => ({
  command: title,
  // Without the stack, which only leads to the runner.
  output: failureMessages.join("\n").split(/\n\s+at /)[0],
}));
// A server that does not start fails no test of its own.
for (const { message, assertionResults } of testResults) {
  if (message && !assertionResults.some(({ status }) => status === "failed"))
    failures.push({ command: "", output: message });
}
if (failures.length === 0 && (code !== 0 || tests.length === 0))
  failures.push({ command: "", output: "The runner ended without a report." });
const counts = {
  commands: having("passed").length + having("failed").length,
  not_run: tests.filter(({ status }) => status !== "passed" && status !== "failed").length,
  failed: failures.length,
};
process.stdout.write(
  json
    ? `${JSON.stringify({ ...counts, failures })}\n`
    : `\ncommands ${counts.commands}, not run ${counts.not_run}, failed ${counts.failed}\n`,
);
process.exitCode = failures.length === 0 ? 0 : 1;
