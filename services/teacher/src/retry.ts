/** When to make a failed call again. */

const baseMs = 500;
const capMs = 30_000;
/** A provider that asks for more is asked again after this all the same: calls may pass, and retries are bounded. */
export const maxRetryAfterMs = 60_000;

/**
 * Milliseconds to wait before try number `retry` (from 1): full jitter over an
 * exponential bound, so that many callers do not come back together, and no
 * sooner than the provider asked, up to maxRetryAfterMs.
 */
export function retryDelayMs(retry: number, retryAfterMs: number | undefined, random: () => number): number {
  const bound = Math.min(capMs, baseMs * 2 ** (retry - 1));
  const jittered = Math.round(random() * bound);
  if (retryAfterMs === undefined) return jittered;
  return Math.min(retryAfterMs, maxRetryAfterMs) + Math.round(random() * baseMs);
}

/** HTTP statuses after which the same request may succeed. */
export function isRetryableStatus(status: number): boolean {
  return status === 408 || status === 409 || status === 429 || status >= 500;
}
