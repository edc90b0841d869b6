/** Wilson, McNemar, Holm, the smallest detectable difference and the bootstrap against statsmodels, scipy and numpy. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { bootstrapP, crossedBootstrap, resampledMeans, standardDeviation } from "./bootstrap.js";
import { smallestDetectable } from "./detectable.js";
import { holm } from "./holm.js";
import { proportion } from "./interval.js";
import { headsAtMost, mcnemar } from "./mcnemar.js";

const python = fileURLToPath(new URL("../../../.venv/bin/python", import.meta.url));

/** One process answers all cases: importing statsmodels takes seconds. */
const program = `
import gc, json, sys
import numpy as np
from scipy.stats import binom, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

# multipletests collects garbage at each call; over these modules that takes 20 ms.
gc.freeze()
cases = json.load(sys.stdin)

def one_mcnemar(first, second):
    if first + second == 0:
        return 1.0
    exact = mcnemar([[0, first], [second, 0]], exact=True).pvalue
    if first + second < 25:
        return exact
    fewer, all = min(first, second), first + second
    return min(1.0, 2 * binom.cdf(fewer, all, 0.5) - binom.pmf(fewer, all, 0.5))

def one_level(values):
    rng = np.random.default_rng(7)
    found = bootstrap((np.array(values),), np.mean, method="percentile", n_resamples=10_000, rng=rng)
    return [found.confidence_interval.low, found.confidence_interval.high]

def two_level(table):
    table, rng = np.array(table), np.random.default_rng(8)
    drawn, asked = (rng.multinomial(n, [1 / n] * n, 10_000) / n for n in table.shape)
    means = ((drawn @ table) * asked).sum(axis=1)
    return np.quantile(means, [0.025, 0.975]).tolist()

wilson = [proportion_confint(right, n, method="wilson") for right, n in cases["wilson"]]
power = NormalIndPower()
print(json.dumps({
    "wilson": wilson,
    "heads": [binom.cdf(heads, throws, 0.5) for heads, throws in cases["heads"]],
    "mcnemar": [one_mcnemar(*one) for one in cases["mcnemar"]],
    "holm": [multipletests(one, method="holm")[1].tolist() for one in cases["holm"]],
    "detectable": [power.solve_power(nobs1=n, alpha=0.05, power=0.8, ratio=0) for n in cases["detectable"]],
    "one_level": [one_level(one) for one in cases["one_level"]],
    "two_level": [two_level(one) for one in cases["two_level"]],
}))`;

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}
const random = randomNumbers(2024);
const upTo = (most: number) => Math.floor(random() * (most + 1));
const times = <One>(count: number, make: () => One): One[] => Array.from({ length: count }, make);

/** Differences of two students on the same rows, as they are: −1, 0 or 1. */
const differences = (rows: number) => times(rows, () => Math.sign(Math.round(random() * 3 - 1.3)));

const cases = {
  wilson: times(4_000, (): [number, number] => {
    const n = 1 + upTo(random() < 0.5 ? 30 : 2_000);
    return [upTo(n), n];
  }),
  heads: times(3_000, (): [number, number] => {
    const throws = 1 + upTo(random() < 0.8 ? 80 : 5_000);
    return [Math.min(throws, Math.max(0, Math.round(throws / 2 + (random() - 0.5) * throws ** 0.6 * 3))), throws];
  }),
  mcnemar: times(4_000, (): [number, number] => {
    const most = random() < 0.5 ? 15 : 400;
    const first = upTo(most);
    return [first, random() < 0.2 ? first : upTo(most)];
  }),
  holm: times(2_000, () => times(1 + upTo(14), () => (random() < 0.1 ? 0.05 : random() ** 3))),
  detectable: times(100, () => 10 + upTo(3_000)),
  one_level: times(60, () => differences(20 + upTo(100))),
  two_level: times(40, () => {
    const rows = 20 + upTo(60);
    return times(2 + upTo(6), () => differences(rows));
  }),
};
type Reference = Record<"heads" | "mcnemar" | "detectable", number[]> &
  Record<"holm", number[][]> &
  Record<"wilson" | "one_level" | "two_level", [number, number][]>;
let reference: Reference;

beforeAll(() => {
  const options = { input: JSON.stringify(cases), maxBuffer: 64 * 1024 * 1024 };
  reference = JSON.parse(execFileSync(python, ["-c", program], options).toString()) as Reference;
}, 120_000);

/** Equal to a relative 1e-9, or both next to nothing. */
function agrees(ours: number, theirs: number | undefined): boolean {
  return theirs !== undefined && Math.abs(ours - theirs) <= 1e-9 * Math.abs(theirs) + 1e-15;
}

test("Wilson's interval is statsmodels'", () => {
  const odd = cases.wilson.filter(([right, n], index) => {
    const { ci95Low, ci95High } = proportion(right, n);
    const [low = 0, high = 1] = reference.wilson[index] ?? [];
    return Math.abs(ci95Low - low) > 1e-12 || Math.abs(ci95High - high) > 1e-12;
  });
  expect(odd).toEqual([]);
});

test("tails of fair coins are scipy's, also where 0.5 to the power of the throws is 0", () => {
  expect(
    cases.heads.filter(([heads, throws], index) => !agrees(headsAtMost(heads, throws), reference.heads[index])),
  ).toEqual([]);
  expect(0.5 ** 1_100).toBe(0);
  expect(headsAtMost(550, 1_100)).toBeCloseTo(0.512, 3);
});

test("McNemar's p is statsmodels' exact one below 25 discordant rows, scipy's mid-p from there on", () => {
  const small = cases.mcnemar.filter(([first, second]) => first + second < 25).length;
  expect(small).toBeGreaterThan(500);
  expect(cases.mcnemar.length - small).toBeGreaterThan(500);
  expect(
    cases.mcnemar.filter(([first, second], index) => !agrees(mcnemar(first, second), reference.mcnemar[index])),
  ).toEqual([]);
  // By hand: 2 · (1 + 10) / 2^10.
  expect(mcnemar(1, 9)).toBeCloseTo(22 / 1_024, 12);
  expect(mcnemar(0, 0)).toBe(1);
});

test("Holm's correction is statsmodels'", () => {
  const odd = cases.holm.filter((one, index) => holm(one).some((p, at) => !agrees(p, reference.holm[index]?.[at])));
  expect(odd).toEqual([]);
  expect(holm([])).toEqual([]);
});

test("the smallest detectable difference has 80 % power by statsmodels", () => {
  for (const [index, n] of cases.detectable.entries()) {
    // Theirs is in standard deviations of one difference.
    expect(smallestDetectable(1 / Math.sqrt(n)) / (reference.detectable[index] ?? 0)).toBeCloseTo(1, 4);
  }
});

/** Two bootstraps of 10,000 resamples: each end is good to about 0.03 standard errors. */
function farApart(table: readonly (readonly number[])[], theirs: readonly [number, number] | undefined): boolean {
  const { ci95 } = crossedBootstrap(table);
  const [means = new Float64Array()] = resampledMeans([table]);
  const tolerance = 0.2 * standardDeviation([...means]) + 1 / (table.length * (table[0]?.length ?? 1));
  return ci95.some((end, at) => Math.abs(end - (theirs?.[at] ?? Number.NaN)) > tolerance);
}

test("with one replicate the bootstrap is scipy's percentile bootstrap", () => {
  expect(cases.one_level.filter((rows, index) => farApart([rows], reference.one_level[index]))).toEqual([]);
});

test("over replicates and rows it is what numpy's draws give", () => {
  expect(cases.two_level.filter((table, index) => farApart(table, reference.two_level[index]))).toEqual([]);
});

test("arms are resampled together: the difference of an arm and its shifted copy never varies", () => {
  const table = times(3, () => differences(50));
  const [ours = new Float64Array(), theirs = []] = resampledMeans([
    table,
    table.map((rows) => rows.map((one) => one + 0.25)),
  ]);
  for (const [resample, one] of ours.entries()) expect((theirs[resample] ?? 0) - one).toBeCloseTo(0.25, 9);
  expect(() => resampledMeans([table, [[1, 2]]])).toThrow("same replicates and rows");
});

test("a bootstrap's p is below 5 % just where its interval leaves 0 out, and 1 where nothing differs", () => {
  for (const rows of cases.one_level) {
    const [means = new Float64Array()] = resampledMeans([[rows]]);
    const { ci95 } = crossedBootstrap([rows]);
    const p = bootstrapP(means);
    // At the very edge one resample decides.
    if (Math.abs(p - 0.05) > 0.002) expect(p < 0.05).toBe(ci95[0] > 0 || ci95[1] < 0);
  }
  expect(bootstrapP(new Float64Array(100))).toBe(1);
  expect(bootstrapP(new Float64Array(9_999).fill(0.1))).toBeCloseTo(2 / 10_000, 12);
});
