/** The accelerator's one slot, held while an embedded teacher works, so that it and the student do not share cores. */
import { setTimeout as sleep } from "node:timers/promises";
import { TutelageError } from "@tutelage/platform/errors";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { TryLater } from "@tutelage/platform/runs";
import { StudentServiceDefinition } from "@tutelage/proto/student/v1/student";

/** A slot is mostly free within seconds; waiting here keeps the run's place and spares it a claim. */
const patienceMs = 10_000;
const lookMs = 250;

export type SlotClient = ReturnType<typeof connectSlot>;

export function connectSlot(address: string) {
  return connect(StudentServiceDefinition, address);
}

/** Holds the slot for one run, from the first time that it is needed until release(). */
export class Slot {
  private held: Promise<void> | undefined;
  private readonly released = new AbortController();
  /** Aborts when the student dropped us: the accelerator may be somebody else's now. */
  readonly lost = new AbortController();

  constructor(
    private readonly client: SlotClient | undefined,
    private readonly projectId: string,
    private readonly holder: string,
  ) {}

  /** Resolves when the slot is ours. Throws TryLater while somebody else holds it. */
  async hold(signal: AbortSignal): Promise<void> {
    if (this.client === undefined) return;
    this.held ??= this.acquire(this.client, signal);
    await this.held;
  }

  release(): void {
    this.released.abort();
  }

  private async acquire(client: SlotClient, signal: AbortSignal): Promise<void> {
    const until = Date.now() + patienceMs;
    for (;;) {
      signal.throwIfAborted();
      try {
        await this.open(client);
        return;
      } catch (error) {
        const busy = error instanceof TutelageError && error.code === "resource_exhausted";
        const away = error instanceof TutelageError && error.code === "unavailable";
        if (!busy && !away) throw error;
        if (Date.now() > until) throw new TryLater(500, busy ? "the student's slot is taken" : "the student is away");
      }
      await sleep(lookMs, undefined, { signal });
    }
  }

  /** Resolves with the first message; the stream stays open until release(). */
  private async open(client: SlotClient): Promise<void> {
    const stream = client
      .holdSlot(
        { projectId: this.projectId, holder: this.holder },
        { signal: this.released.signal, deadline: watchDeadlineMs },
      )
      [Symbol.asyncIterator]();
    const first = await stream.next();
    if (first.done) throw new TutelageError("unavailable", "The student closed the slot at once.");
    void (async () => {
      try {
        while (!(await stream.next()).done);
      } catch {
        // Ended by release(), or the student went away: told apart below.
      }
      if (!this.released.signal.aborted) this.lost.abort();
    })();
  }
}
