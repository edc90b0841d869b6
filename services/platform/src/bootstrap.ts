/** Intervals over replicates and test rows. Pure: the same numbers give the same interval. */

/** A mean with its 95 % interval. */
export interface Estimate {
  mean: number;
  ci95: [low: number, high: number];
}

/** Values of one arm: one array a replicate, all over the same test rows. */
export type Table = readonly (readonly number[])[];

const resamples = 10_000;

/**
 * Means of several arms in each of 10,000 resamples, of a two-level bootstrap:
 * replicates are drawn with replacement, as each is another draw of seed rows
 * and another training seed, and test rows are, as others could have been
 * asked. A resample's rows are the same for all its replicates and arms: these
 * were tested on the same rows, and rows drawn anew in each replicate would
 * make the interval too narrow. (Efron and Tibshirani 1993, ch. 13; crossed
 * resampling as in Owen 2007, Ann. Appl. Stat. 1, 386-411, which errs on the
 * wide side.)
 * @param arms tables of the same replicates, in the same order
 */
export function resampledMeans(arms: readonly Table[], seed = 1): Float64Array[] {
  const replicates = arms[0]?.length ?? 0;
  const rows = arms[0]?.[0]?.length ?? 0;
  if (replicates === 0 || rows === 0) throw new Error("There is nothing to take a mean of.");
  if (arms.some((table) => table.length !== replicates || table.some((one) => one.length !== rows))) {
    throw new Error("Arms are compared on the same replicates and rows.");
  }
  const random = generator(seed);
  const means = arms.map(() => new Float64Array(resamples));
  const weights = new Uint32Array(rows);
  const drawn = new Uint32Array(replicates);
  for (let resample = 0; resample < resamples; resample += 1) {
    weights.fill(0);
    drawn.fill(0);
    for (let draw = 0; draw < rows; draw += 1) {
      const row = Math.floor(random() * rows);
      weights[row] = (weights[row] ?? 0) + 1;
    }
    for (let draw = 0; draw < replicates; draw += 1) {
      const replicate = Math.floor(random() * replicates);
      drawn[replicate] = (drawn[replicate] ?? 0) + 1;
    }
    for (const [arm, table] of arms.entries()) {
      let sum = 0;
      for (let replicate = 0; replicate < replicates; replicate += 1) {
        const times = drawn[replicate] ?? 0;
        if (times > 0) sum += times * weighted(table[replicate] ?? [], weights);
      }
      (means[arm] as Float64Array)[resample] = sum / (replicates * rows);
    }
  }
  return means;
}

function weighted(values: readonly number[], weights: Uint32Array): number {
  let sum = 0;
  for (let row = 0; row < weights.length; row += 1) sum += (weights[row] ?? 0) * (values[row] ?? 0);
  return sum;
}

/** Mean of a table, often of paired differences, with the percentile interval of {@link resampledMeans}. */
export function crossedBootstrap(table: Table, seed = 1): Estimate {
  const [means] = resampledMeans([table], seed);
  return { mean: mean(table.map(mean)), ci95: interval95(means ?? new Float64Array()) };
}

/** The 2.5 % and 97.5 % quantiles. */
export function interval95(values: Float64Array): [low: number, high: number] {
  const sorted = values.toSorted();
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  return [at(0.025), at(0.975)];
}

/**
 * Two-sided p-value of "the mean is 0": twice the share of resamples on the
 * rarer side of 0, so that it is below 5 % where the percentile interval leaves
 * 0 out. One is added to both counts, as the data itself is a resample (Davison
 * and Hinkley 1997, ch. 4): never below 2 / 10,001.
 */
export function bootstrapP(means: Float64Array): number {
  const notAbove = means.filter((value) => value <= 0).length;
  const notBelow = means.filter((value) => value >= 0).length;
  return Math.min(1, (2 * (1 + Math.min(notAbove, notBelow))) / (means.length + 1));
}

export function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Sample standard deviation (n - 1); 0 of fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const center = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1));
}

/** Mulberry32: numbers from 0 to 1, the same for the same seed. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
