/** When calls to a provider that does not answer stop, and when it is tried again. Pure. */

/** How calls to a teacher profile stand. "half_open": one call is under way to see whether it answers again. */
export type BreakerState = "closed" | "open" | "half_open";

export interface Breaker {
  state: BreakerState;
  /** Code of the failure that opened it; empty while it is closed. */
  code: string;
  /** What that failure said, for a person. */
  reason: string;
  /** Since when it is not closed. */
  openedAt: Date | undefined;
  /** When the next call may be made to try the provider. */
  probeAt: Date | undefined;
  /** Such calls that failed since it opened. */
  failedProbes: number;
}

export const closedBreaker: Breaker = {
  state: "closed",
  code: "",
  reason: "",
  openedAt: undefined,
  probeAt: undefined,
  failedProbes: 0,
};

export interface BreakerSettings {
  /** Failures in a row that open it. */
  failures: number;
  /** From its opening to the first probe; each later one waits twice as long. */
  first_probe_ms: number;
  longest_probe_ms: number;
}

/** A provider that asks for more is tried again after this all the same. */
export const longestRetryAfterMs = 3_600_000;

/** Milliseconds until the provider is tried again, no sooner than it asked for. */
export function probeDelayMs(settings: BreakerSettings, failedProbes: number, retryAfterMs = 0): number {
  const doubled = Math.min(settings.longest_probe_ms, settings.first_probe_ms * 2 ** Math.min(failedProbes, 30));
  return Math.max(doubled, Math.min(retryAfterMs, longestRetryAfterMs));
}

/**
 * Counts failures with no answer between. Calls that are under way together
 * fail together: of those that began before a failure was counted none counts
 * again, or one cut cable would look like as many failures as there were calls.
 */
export class Strikes {
  private count = 0;
  private countedAtMs = Number.NEGATIVE_INFINITY;

  constructor(private readonly most: number) {}

  answered(): void {
    this.count = 0;
  }

  /** True when there are now as many as it takes. */
  failed(beganAtMs: number, nowMs: number): boolean {
    if (beganAtMs < this.countedAtMs) return false;
    this.countedAtMs = nowMs;
    this.count += 1;
    return this.count >= this.most;
  }
}
