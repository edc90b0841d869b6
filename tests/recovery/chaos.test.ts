/**
 * Campaigns survive anything. Small here; `npm run chaos` sets CHAOS to the
 * options of a larger run, and reads the report.
 */
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { type ChaosOptions, chaos } from "./chaos.js";
import { broken } from "./verdict.js";

const small: ChaosOptions = { seed: 1, campaigns: 3, iterations: 1, kills: 10, stops: 1, cuts: 3, meanGapMs: 1_500 };
const options: ChaosOptions = process.env.CHAOS === undefined ? small : JSON.parse(process.env.CHAOS);
const reportFile = process.env.CHAOS_REPORT;
const hours = 3_600_000;

test(
  `${options.campaigns} campaigns live through ${options.kills} kills, ${options.stops} stops and ${options.cuts} cuts`,
  async () => {
    const report = await chaos(options, (line) => {
      if (reportFile !== undefined) process.stderr.write(`${new Date().toISOString()} ${line}\n`);
    });
    if (reportFile !== undefined) await writeFile(reportFile, JSON.stringify(report));
    const { kills, stops, cuts } = options;
    // A short run is over before all of them meet something.
    const least =
      options === small
        ? { kills, killsHoldingLease: 3, stopped: stops, cuts: 1 }
        : { kills, killsHoldingLease: kills / 2, stopped: stops, cuts: Math.floor(cuts * 0.8) };
    expect(broken(report, least), JSON.stringify(report)).toEqual([]);
  },
  4 * hours,
);
