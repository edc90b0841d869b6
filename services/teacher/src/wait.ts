/** A run's wait for a teacher that is away, over the claims that it takes. */
import { TutelageError } from "@tutelage/platform/errors";
import { TryLater } from "@tutelage/platform/runs";
import type { GenerationLease } from "./store.js";
import type { TeacherAway } from "./weather.js";
import type { StoredWait } from "./work.js";

/** How long a run waits for a provider that is away, unless it was asked otherwise: a night and a working day. */
const patienceSeconds = 86_400;
/** A run that waits is claimed again no sooner. */
const leastWaitMs = 250;

export class Wait {
  private stored: StoredWait | null;

  constructor(private readonly lease: GenerationLease) {
    this.stored = lease.run.state.waiting ?? null;
  }

  /** The teacher answers again. */
  async end(): Promise<void> {
    if (this.stored === null) return;
    this.stored = null;
    await this.lease.report({ message: "" }, { waiting: null });
  }

  /** What queues the run until the teacher may be tried; the failure of a run that has waited long enough. */
  async later(away: TeacherAway): Promise<TryLater | TutelageError> {
    const { profile, breaker, retryInMs } = away;
    const since = this.stored?.since ?? new Date().toISOString();
    const delayMs = Math.max(leastWaitMs, retryInMs);
    const patienceMs = (this.lease.run.request.patienceSeconds || patienceSeconds) * 1_000;
    // What would be waited for in vain is not waited for.
    if (Date.now() + delayMs > Date.parse(since) + patienceMs) {
      // Tried again, it may wait as long again.
      await this.lease.report({}, { waiting: null });
      const waitedSeconds = Math.round((Date.now() - Date.parse(since)) / 1_000);
      return new TutelageError(
        "failed_precondition",
        `Teacher profile "${profile}" did not answer; the run waited ${waitedSeconds} of at most ${patienceMs / 1_000} ` +
          `seconds. ${breaker.reason}`,
        { reason: breaker.code },
      );
    }
    const waiting = {
      profile,
      code: breaker.code,
      message: breaker.reason,
      since,
      until: new Date(Date.now() + delayMs).toISOString(),
    };
    await this.lease.report({ message: `waiting for teacher "${profile}": ${breaker.reason}` }, { waiting });
    return new TryLater(delayMs, away.message);
  }
}
