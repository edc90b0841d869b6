/**
 * How many calls one process has under way to a provider: additive increase,
 * multiplicative decrease, as TCP does it (Chiu and Jain 1989). Processes that
 * share a provider come to equal shares by it without knowing of each other.
 * Pure.
 */

/** A refusal halves it, slowness takes a quarter; calls that were under way together count once. */
const afterRefusal = 0.5;
const afterSlowness = 0.75;
/** A round of replies is slow when half of them took this many times as long as the quickest round before. */
const slowFactor = 3;
/** The median of fewer replies says little. */
const fewestInRound = 8;
/** What is usual is forgotten slowly: a provider that has become slower for good is not held down for ever. */
const forgetting = 1.02;

export class Concurrency {
  private value: number;
  private cutAtMs = Number.NEGATIVE_INFINITY;
  /** Milliseconds that a kind of call usually takes. */
  private readonly usualMs = new Map<string, number>();
  private round: { kind: string; latencyMs: number }[] = [];

  constructor(private readonly most: number) {
    this.value = most;
  }

  /** Calls that may be under way. */
  get limit(): number {
    return Math.max(1, Math.floor(this.value));
  }

  /** A reply came. One more is allowed for every round of them. */
  answered(kind: string, latencyMs: number): void {
    this.value = Math.min(this.most, this.value + 1 / this.value);
    this.round.push({ kind, latencyMs });
    if (this.round.length < Math.max(fewestInRound, this.limit)) return;
    if (this.roundWasSlow()) this.value = Math.max(1, this.value * afterSlowness);
    this.round = [];
  }

  /** The provider said that it has enough, or did not answer in time. */
  refused(beganAtMs: number, nowMs: number): void {
    if (beganAtMs < this.cutAtMs) return;
    this.cutAtMs = nowMs;
    this.value = Math.max(1, this.value * afterRefusal);
    this.round = [];
  }

  /** The provider answers again after it was away: it is loaded slowly. */
  restart(): void {
    this.value = 1;
    this.round = [];
  }

  private roundWasSlow(): boolean {
    const ratios: number[] = [];
    for (const kind of new Set(this.round.map((reply) => reply.kind))) {
      const replies = this.round.filter((reply) => reply.kind === kind);
      const latencies = replies.map(({ latencyMs }) => Math.max(1, latencyMs));
      const usual = this.usualMs.get(kind);
      if (usual !== undefined) ratios.push(...latencies.map((latency) => latency / usual));
      this.usualMs.set(kind, Math.min((usual ?? Number.POSITIVE_INFINITY) * forgetting, median(latencies)));
    }
    return ratios.length >= fewestInRound && median(ratios) > slowFactor;
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}
