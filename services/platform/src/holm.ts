/** Holm's correction. Pure. */

/**
 * p-values as they count among each other: the chance that any of them is below
 * its bound where nothing differs stays what it is for one. The k-th smallest
 * of m counts (m − k + 1) times, and no less than those below it. Source:
 * S. Holm, Scand. J. Statist. 6 (1979) 65-70.
 */
export function holm(pValues: readonly number[]): number[] {
  const ranked = pValues.map((p, index) => ({ p, index })).sort((a, b) => a.p - b.p);
  const adjusted = pValues.map(() => 0);
  let greatest = 0;
  for (const [rank, { p, index }] of ranked.entries()) {
    greatest = Math.max(greatest, Math.min(1, p * (pValues.length - rank)));
    adjusted[index] = greatest;
  }
  return adjusted;
}
