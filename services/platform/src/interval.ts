/** Confidence intervals of shares. */
import type { Proportion } from "@tutelage/proto/evaluation/v1/evaluation";

/** 97.5 % quantile of the standard normal distribution. */
const z95 = 1.959963984540054;

/**
 * `successes` of `n` with the 95 % Wilson score interval, without continuity
 * correction: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n).
 * Source: E. B. Wilson, "Probable inference, the law of succession, and
 * statistical inference", JASA 22 (1927) 209–212; recommended for small n by
 * Brown, Cai and DasGupta, Statistical Science 16 (2001) 101–133.
 * Nothing is known when n is 0: the value is 0, the interval 0 to 1.
 */
export function proportion(successes: number, n: number): Proportion {
  if (n === 0) return { successes, n, value: 0, ci95Low: 0, ci95High: 1 };
  const value = successes / n;
  const square = z95 * z95;
  const centre = value + square / (2 * n);
  const half = z95 * Math.sqrt((value * (1 - value)) / n + square / (4 * n * n));
  const scale = 1 + square / n;
  // Exact at the ends, where rounding would leave 1e-17 or 1 - 1e-16.
  const ci95Low = successes === 0 ? 0 : (centre - half) / scale;
  const ci95High = successes === n ? 1 : (centre + half) / scale;
  return { successes, n, value, ci95Low, ci95High };
}
