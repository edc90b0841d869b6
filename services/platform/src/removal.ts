/** Counts what a deletion removes. */
import type { Removal } from "@tutelage/proto/run/v1/removal";

export class RemovalCount {
  private readonly counts = new Map<string, number>();
  artifactBytes = 0;

  /** Adds things of a kind; a kind of which nothing was removed is not named. */
  add(kind: string, count: number | null): void {
    if (count === null || count === 0) return;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + count);
  }

  /** Adds what another service removed. */
  merge({ counts, artifactBytes }: Removal): void {
    for (const [kind, count] of Object.entries(counts)) this.add(kind, count);
    this.artifactBytes += artifactBytes;
  }

  get removal(): Removal {
    return { counts: Object.fromEntries(this.counts), artifactBytes: this.artifactBytes };
  }
}
