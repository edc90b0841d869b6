/** The wall of a run: what its tries may still cost, whichever of its workers makes them. Pure but for waiting. */
import type { GenerationBudget } from "@tutelage/proto/teacher/v1/teacher";

export interface Spending {
  calls: number;
  costMicroUsd: number;
}

/**
 * One holder's account of a run. Only the holder of the newest fence can set
 * anything aside in the database, and it knows all that was spent before it,
 * so that the decision needs no lock.
 */
export class Budget {
  private readonly mostCalls: number;
  private readonly mostCostMicroUsd: number;
  private inFlight: Spending = { calls: 0, costMicroUsd: 0 };
  private readonly waiting = new Set<() => void>();
  private usedUp = false;

  constructor(
    limits: GenerationBudget | undefined,
    private readonly spent: Spending,
  ) {
    this.mostCalls = limits?.calls ?? Number.POSITIVE_INFINITY;
    this.mostCostMicroUsd = limits?.costMicroUsd ?? Number.POSITIVE_INFINITY;
  }

  /** A try was refused: there was not enough left for it, and no other try will be let through. */
  get exhausted(): boolean {
    return this.usedUp;
  }

  /**
   * Sets aside the most that one try can cost. Waits while tries under way may
   * turn out cheaper than what is set aside for them. False when it does not
   * fit although nothing is under way; from then on always.
   */
  async reserve(costMicroUsd: number, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      signal.throwIfAborted();
      if (this.usedUp) return false;
      const { calls, costMicroUsd: money } = this.inFlight;
      const callsFit = this.spent.calls + calls + 1 <= this.mostCalls;
      if (callsFit && this.spent.costMicroUsd + money + costMicroUsd <= this.mostCostMicroUsd) {
        this.inFlight = { calls: calls + 1, costMicroUsd: money + costMicroUsd };
        return true;
      }
      if (calls === 0) {
        this.usedUp = true;
        this.wake();
        return false;
      }
      await this.change(signal);
    }
  }

  /** What a try for which so much was set aside came to; undefined when it was not sent. */
  settle(reservedMicroUsd: number, costMicroUsd: number | undefined): void {
    this.inFlight = {
      calls: this.inFlight.calls - 1,
      costMicroUsd: this.inFlight.costMicroUsd - reservedMicroUsd,
    };
    if (costMicroUsd !== undefined) {
      this.spent.calls += 1;
      this.spent.costMicroUsd += costMicroUsd;
    }
    this.wake();
  }

  private change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        this.waiting.delete(done);
        resolve();
      };
      signal.addEventListener("abort", done, { once: true });
      this.waiting.add(done);
    });
  }

  private wake(): void {
    for (const done of [...this.waiting]) done();
  }
}
