/**
 * Every check and test. Ends with one line, "N passed, N failed", that adds up
 * all of them; each static check counts as one.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "./check.mjs";
import { root, run } from "./children.mjs";
import { checkRoutes } from "./routes.mjs";
import { failSetup, setUp, venvPython } from "./setup.mjs";

const reports = mkdtempSync(join(tmpdir(), "tutelage-reports-"));
const routeRecords = join(reports, "routes");
mkdirSync(routeRecords);
process.on("exit", () => rmSync(reports, { recursive: true, force: true }));

/** A runner that ran nothing, or ended without a report, has failed. */
function atLeastOne({ passed, failed }, name) {
  if (passed + failed > 0) return { passed, failed };
  process.stdout.write(`${name} ran no test\n`);
  return { passed: 0, failed: 1 };
}

async function vitest() {
  const report = join(reports, "vitest.json");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const code = await run(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), "run", ...reporters], {
    env: { TUTELAGE_ROUTE_RECORDS: routeRecords },
  });
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const { numPassedTests: passed, numFailedTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
  // A file that cannot be loaded, or whose set-up fails, has no failed test of its own.
  const brokenFiles = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  ).length;
  const failed = numFailedTests + brokenFiles;
  // Errors outside any test (an unhandled rejection) show only in the exit code.
  return { passed, failed: failed === 0 && code !== 0 ? 1 : failed };
}

/** After vitest: its tests note the routes that they call. */
const routes = () => checkRoutes(routeRecords);

async function pytest() {
  const report = join(reports, "pytest.xml");
  const args = ["-m", "pytest", "-q", "--durations=5", `--junitxml=${report}`];
  const code = await run(venvPython, args, { cwd: join(root, "services/student") });
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const suite = readFileSync(report, "utf8").match(/<testsuite [^>]*>/)?.[0] ?? "";
  const count = (name) => Number(suite.match(new RegExp(`\\b${name}="(\\d+)"`))?.[1] ?? 0);
  const failed = count("failures") + count("errors");
  return {
    passed: Math.max(0, count("tests") - failed - count("skipped")),
    failed: failed === 0 && code !== 0 ? 1 : failed,
  };
}

await setUp({ say: (line) => process.stdout.write(`${line}\n`) }).catch((error) => {
  process.on("exit", () => process.stdout.write("0 passed, 1 failed\n"));
  failSetup(error);
});
const total = { passed: 0, failed: 0 };
for (const [name, runner] of Object.entries({ check, vitest, routes, pytest })) {
  process.stdout.write(`\n── ${name}\n`);
  const { passed, failed } = atLeastOne(await runner(), name);
  process.stdout.write(`── ${name}: ${passed} passed, ${failed} failed\n`);
  total.passed += passed;
  total.failed += failed;
}
process.stdout.write(`\n${total.passed} passed, ${total.failed} failed\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
