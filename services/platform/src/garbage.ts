/** Collecting files that nothing refers to; each service decides about its own, by these rules. */
import type { CollectGarbageRequest, Garbage, GarbageCollection } from "@tutelage/proto/run/v1/garbage";
import type { ArtifactStore, Entry } from "./artifacts.js";
import { invalidField } from "./errors.js";
import { requireProject } from "./project.js";

/** What a writer has under way is younger than this, however slow it is between two files. */
const leastAgeSeconds = 3_600;
const mostNamed = 1_000;
/** How ArtifactStore.put names what it writes until it is whole. */
const temporaryName = /\.[0-9a-f-]{36}\.tmp$/;

export class GarbageCollector {
  readonly result: GarbageCollection = { garbage: [], count: 0, bytes: 0 };

  /** Throws invalid_argument that names the field. */
  constructor(
    readonly artifacts: Pick<ArtifactStore, "uri" | "entries" | "lastWritten" | "size" | "remove" | "prune">,
    readonly request: CollectGarbageRequest,
    private readonly signal: AbortSignal,
  ) {
    requireProject(request.projectId);
    if (request.minAgeSeconds < leastAgeSeconds) {
      throw invalidField(
        "min_age_seconds",
        `is ${request.minAgeSeconds}; give at least ${leastAgeSeconds}: what is younger may be about to be committed.`,
      );
    }
  }

  /** What lies in a folder of the project; nothing where there is no such folder. */
  async in(folder: string): Promise<Entry[]> {
    this.signal.throwIfAborted();
    return await this.artifacts.entries(this.artifacts.uri(`${this.request.projectId}/${folder}`));
  }

  /** Whether a name is one that a file has only while it is being written. */
  isUnfinished(name: string): boolean {
    return temporaryName.test(name);
  }

  /**
   * Removes a file or folder that is old enough, or only notes it.
   * @param whyGarbage asked last, when it is known to be old: the reason; undefined keeps it
   * @param remove gives the bytes that went; undefined where it turned out to be needed
   */
  async consider(
    uri: string,
    whyGarbage: () => Promise<string | undefined> | string,
    remove: () => Promise<number | undefined> = () => this.artifacts.remove(uri),
  ): Promise<void> {
    this.signal.throwIfAborted();
    const lastWrittenAt = await this.artifacts.lastWritten(uri);
    if (lastWrittenAt === undefined || !this.isOld(lastWrittenAt)) return;
    const reason = await whyGarbage();
    if (reason === undefined) return;
    const bytes = this.request.dryRun ? await this.artifacts.size(uri) : await remove();
    if (bytes === undefined) return;
    this.note({ uri, bytes, lastWrittenAt, reason });
  }

  /** Removes a folder in which nothing is left, unless somebody has just made it. */
  async prune(uri: string): Promise<void> {
    if (this.request.dryRun) return;
    const lastWrittenAt = await this.artifacts.lastWritten(uri);
    // What has just been removed from it counts as writing; an empty folder costs nothing until the next collection.
    if (lastWrittenAt !== undefined && this.isOld(lastWrittenAt)) await this.artifacts.prune(uri);
  }

  private isOld(lastWrittenAt: Date): boolean {
    return Date.now() - lastWrittenAt.getTime() >= this.request.minAgeSeconds * 1_000;
  }

  private note(garbage: Garbage): void {
    this.result.count += 1;
    this.result.bytes += garbage.bytes;
    if (this.result.garbage.length < mostNamed) this.result.garbage.push(garbage);
  }
}
