/** Intervals over replicates and rows. */

/** A mean with its 95 % interval. */
export interface Estimate {
  mean: number;
  ci95: [low: number, high: number];
}

const resamples = 10_000;

/**
 * Mean of a table of differences (replicate by row) with a percentile
 * bootstrap interval. Replicates and rows are both drawn with replacement, as
 * both are samples: another training seed or draw, and other test rows
 * (Efron & Tibshirani 1993, ch. 13; crossed resampling as in Owen 2007,
 * Ann. Appl. Stat. 1, 386-411, which errs on the wide side).
 * @param differences final minus baseline, one array a replicate, all over the same rows
 */
export function crossedBootstrap(differences: readonly (readonly number[])[], seed = 1): Estimate {
  const replicates = differences.length;
  const rows = differences[0]?.length ?? 0;
  if (replicates === 0 || rows === 0) throw new Error("There is nothing to take a mean of.");
  const random = generator(seed);
  const means = new Float64Array(resamples);
  const weights = new Uint32Array(rows);
  for (let resample = 0; resample < resamples; resample += 1) {
    weights.fill(0);
    for (let draw = 0; draw < rows; draw += 1) {
      const row = Math.floor(random() * rows);
      weights[row] = (weights[row] ?? 0) + 1;
    }
    let sum = 0;
    for (let draw = 0; draw < replicates; draw += 1) {
      const replicate = differences[Math.floor(random() * replicates)] ?? [];
      for (let row = 0; row < rows; row += 1) sum += (weights[row] ?? 0) * (replicate[row] ?? 0);
    }
    means[resample] = sum / (replicates * rows);
  }
  means.sort();
  const at = (share: number) => means[Math.round(share * (resamples - 1))] ?? 0;
  return { mean: mean(differences.map(mean)), ci95: [at(0.025), at(0.975)] };
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
