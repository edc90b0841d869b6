/** Bounds the calls to one teacher that are under way at once, over all runs of this process. */
export class Gate {
  private running = 0;
  private readonly waiting: (() => void)[] = [];
  private pausedUntilMs = 0;

  /** @param limit how many at once; asked anew each time */
  constructor(private readonly limit: () => number) {}

  /** Calls that are under way. */
  get underWay(): number {
    return this.running;
  }

  /** Runs the work when there is room. Rejects with the signal's reason when it aborts first. */
  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.enter(signal);
    try {
      return await work();
    } finally {
      this.running -= 1;
      this.wake();
    }
  }

  /** Lets nobody in for a while: the provider said that it has enough. */
  pause(milliseconds: number): void {
    this.pausedUntilMs = Math.max(this.pausedUntilMs, Date.now() + milliseconds);
  }

  private async enter(signal: AbortSignal): Promise<void> {
    for (;;) {
      if (signal.aborted) {
        // The turn that this one may have been given goes to the next.
        this.wake();
        throw signal.reason;
      }
      const pauseMs = this.pausedUntilMs - Date.now();
      if (this.running < this.limit() && pauseMs <= 0) {
        this.running += 1;
        return;
      }
      await this.turn(signal, pauseMs > 0 ? pauseMs : undefined);
    }
  }

  private turn(signal: AbortSignal, timeoutMs: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        const place = this.waiting.indexOf(done);
        if (place !== -1) this.waiting.splice(place, 1);
        resolve();
      };
      const timer = timeoutMs === undefined ? undefined : setTimeout(done, timeoutMs);
      signal.addEventListener("abort", done, { once: true });
      this.waiting.push(done);
    });
  }

  /** As many as there may be room for: the limit may have risen. Who finds none waits again, behind the others. */
  private wake(): void {
    for (const done of this.waiting.slice(0, Math.max(1, this.limit() - this.running))) done();
  }
}
