/** What is made of versions' rows and kept in memory, as far as there is room. */
import type { VersionRecord } from "./store.js";

export class VersionCache<Made> {
  /** By project and digest; the least recently used first. */
  private readonly made = new Map<string, Promise<Made>>();
  private readonly sizes = new Map<string, number>();
  private size = 0;

  /** @param maxSize of all that is kept, in the unit of sizeOf */
  constructor(
    private readonly make: (version: VersionRecord) => Promise<Made>,
    private readonly sizeOf: (made: Made) => number,
    private readonly maxSize: number,
  ) {}

  async get(version: VersionRecord): Promise<Made> {
    const key = `${version.projectId}/${version.digest}`;
    const cached = this.made.get(key);
    if (cached !== undefined) {
      this.made.delete(key);
      this.made.set(key, cached);
      return await cached;
    }
    const making = this.make(version);
    this.made.set(key, making);
    try {
      const made = await making;
      const size = this.sizeOf(made);
      this.sizes.set(key, size);
      this.size += size;
      this.evict();
      return made;
    } catch (error) {
      this.made.delete(key);
      throw error;
    }
  }

  /** What is too large for the bound is dropped too, once it has been used. */
  private evict(): void {
    for (const key of this.made.keys()) {
      if (this.size <= this.maxSize) return;
      const size = this.sizes.get(key);
      if (size === undefined) continue; // still being made
      this.made.delete(key);
      this.sizes.delete(key);
      this.size -= size;
    }
  }
}
