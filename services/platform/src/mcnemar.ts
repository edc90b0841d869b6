/** McNemar's test: whether two students differ on the same rows. Pure. */

/** From this many rows on that only one of the two got right, the mid-p value is taken. */
const midPFrom = 25;

/**
 * Two-sided p-value of McNemar's test (Psychometrika 12 (1947) 153-157). Below
 * 25 discordant rows it is the exact binomial test, which never errs more often
 * than it says. From there on it is its mid-p value: the exact test less the
 * probability of just what was seen. That kept its level in all cases of
 * Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13 (2013) 91, and finds
 * more than the exact test does. 1 where no row is discordant.
 * @param onlyFirst, onlySecond rows that only the one or only the other got right
 */
export function mcnemar(onlyFirst: number, onlySecond: number): number {
  const discordant = onlyFirst + onlySecond;
  const fewer = Math.min(onlyFirst, onlySecond);
  const exact = 2 * headsAtMost(fewer, discordant);
  return Math.min(1, discordant < midPFrom ? exact : exact - Math.exp(logHeads(fewer, discordant)));
}

/** P(at most `heads` of `throws` fair coins). */
export function headsAtMost(heads: number, throws: number): number {
  if (heads < 0) return 0;
  if (heads >= throws) return 1;
  // From the greatest term down: the lower half's terms fall, the upper half is one less the lower.
  if (2 * heads >= throws) return 1 - headsAtMost(throws - heads - 1, throws);
  let term = Math.exp(logHeads(heads, throws));
  let sum = 0;
  for (let k = heads; k >= 0; k -= 1) {
    sum += term;
    term *= k / (throws - k + 1);
  }
  return sum;
}

/** ln P(exactly `heads` of `throws`): 0.5 to the power of 1,100 throws would be 0. */
function logHeads(heads: number, throws: number): number {
  let log = -throws * Math.LN2;
  for (let k = 1; k <= heads; k += 1) log += Math.log((throws - heads + k) / k);
  return log;
}
