/**
 * npm run chaos -- [--campaigns 40] [--iterations 2] [--kills 200] [--stops 22] [--cuts 28] [--seed 1] [--gap-ms 1500] [--json]
 * Campaigns while processes die: tests/recovery/chaos.test.ts at any size. With --json the last line is the report.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root, run } from "./children.mjs";
import { failSetup, setUp } from "./setup.mjs";

const number = (value) => ({ type: "string", default: String(value) });
const { values } = parseArgs({
  options: {
    campaigns: number(40),
    iterations: number(2),
    kills: number(200),
    stops: number(22),
    cuts: number(28),
    seed: number(1),
    "gap-ms": number(1_500),
    json: { type: "boolean", default: false },
  },
});
const { json, "gap-ms": meanGapMs, ...counts } = values;
const options = Object.fromEntries(
  Object.entries({ ...counts, meanGapMs }).map(([name, value]) => {
    if (!/^\d+$/.test(value)) {
      process.stderr.write(`--${name} is "${value}": a whole number is needed.\n`);
      process.exit(64);
    }
    return [name, Number(value)];
  }),
);
await setUp({ say: (line) => process.stderr.write(`${line}\n`) }).catch(failSetup);

const folder = mkdtempSync(join(tmpdir(), "tutelage-chaos-report-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const reportFile = join(folder, "report.json");
const test = ["run", "tests/recovery/chaos.test.ts"];
process.exitCode = await run(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), ...test], {
  env: { CHAOS: JSON.stringify(options), CHAOS_REPORT: reportFile },
});
if (!existsSync(reportFile)) process.exit(1); // The test has said why.
const report = JSON.parse(readFileSync(reportFile, "utf8"));
if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
else
  for (const [name, value] of Object.entries(report))
    process.stdout.write(`${name.padEnd(26)} ${typeof value === "object" ? JSON.stringify(value) : value}\n`);
