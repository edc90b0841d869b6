/** How long the steps of a campaign take: those that run side by side share the time. */

export class StepClock {
  /** Seconds of each step that runs now, so far. */
  private readonly running = new Map<symbol, number>();
  private lookedAt: number;

  /** @param now seconds of any clock */
  constructor(private readonly now: () => number = () => performance.now() / 1_000) {
    this.lookedAt = now();
  }

  /** A step begins; the function ends it and gives its seconds. All steps' seconds add up to the time that passed. */
  begin(): () => number {
    const step = Symbol();
    this.share();
    this.running.set(step, 0);
    return () => {
      this.share();
      const seconds = this.running.get(step) ?? 0;
      this.running.delete(step);
      return seconds;
    };
  }

  /** Gives each running step its part of the time since the last look. */
  private share(): void {
    const now = this.now();
    const part = (now - this.lookedAt) / this.running.size;
    this.lookedAt = now;
    for (const [step, seconds] of this.running) this.running.set(step, seconds + part);
  }
}
