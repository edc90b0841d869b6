/** The wall of a run: what its tries may still use, whichever of its workers makes them. Pure but for waiting. */
import { type BudgetLine, endOfMonth, type MonthBudgetMet } from "@tutelage/platform/monthbudget";
import type { GenerationBudget } from "@tutelage/proto/teacher/v1/teacher";

export interface Spending {
  calls: number;
  /** Sent and received. */
  tokens: number;
  costMicroUsd: number;
}

const quantities = ["calls", "tokens", "costMicroUsd"] as const satisfies (keyof Spending)[];
/** Under which name each is known outside of this service. */
const names = { calls: "teacher_calls", tokens: "teacher_tokens", costMicroUsd: "cost_micro_usd" };

/** The wall that let no other try through. */
export interface WallMet {
  scope: "run" | "project";
  line: BudgetLine;
  /** When a project's next month begins. */
  until?: Date;
}

/**
 * One holder's account of a run. Only the holder of the newest fence can set
 * anything aside in the database, and it knows all that was spent before it,
 * so that the decision needs no lock.
 */
export class Budget {
  private readonly most: Spending;
  private inFlight: Spending = { calls: 0, tokens: 0, costMicroUsd: 0 };
  private readonly spent: Spending;
  private readonly waiting = new Set<() => void>();
  private wall: WallMet | undefined;

  constructor(limits: GenerationBudget | undefined, spent: Spending) {
    const { calls = Number.POSITIVE_INFINITY, tokens = Number.POSITIVE_INFINITY } = limits ?? {};
    this.most = { calls, tokens, costMicroUsd: limits?.costMicroUsd ?? Number.POSITIVE_INFINITY };
    this.spent = { ...spent };
  }

  /** Set when a try was refused: there was not enough left for it, and no other try will be let through. */
  get met(): WallMet | undefined {
    return this.wall;
  }

  get exhausted(): boolean {
    return this.wall !== undefined;
  }

  /**
   * Sets aside the most that one try can use. Waits while tries under way may
   * turn out cheaper than what is set aside for them. False when it does not
   * fit although nothing is under way; from then on always.
   */
  async reserve(most: Spending, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      signal.throwIfAborted();
      if (this.exhausted) return false;
      const tight = quantities.find((name) => this.spent[name] + this.inFlight[name] + most[name] > this.most[name]);
      if (tight === undefined) {
        this.inFlight = sum(this.inFlight, most, 1);
        return true;
      }
      if (this.inFlight.calls === 0) {
        this.close({
          scope: "run",
          line: { name: names[tight], used: this.spent[tight], cap: this.most[tight] },
        });
        return false;
      }
      await this.change(signal);
    }
  }

  /** What a try for which so much was set aside came to; undefined when it was not sent. */
  settle(reserved: Spending, used: Spending | undefined): void {
    this.inFlight = sum(this.inFlight, reserved, -1);
    if (used !== undefined) Object.assign(this.spent, sum(this.spent, used, 1));
    this.wake();
  }

  /** The project's month has not enough left for a try, and nothing of it is under way that could come back. */
  monthMet({ line, month }: MonthBudgetMet): void {
    this.close({ scope: "project", line, until: endOfMonth(month) });
  }

  private close(wall: WallMet): void {
    this.wall ??= wall;
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

function sum(a: Spending, b: Spending, sign: 1 | -1): Spending {
  return {
    calls: a.calls + sign * b.calls,
    tokens: a.tokens + sign * b.tokens,
    costMicroUsd: a.costMicroUsd + sign * b.costMicroUsd,
  };
}
