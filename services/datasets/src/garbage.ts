/** Files of versions that no version has, and of writes that died. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { GarbageCollector } from "@tutelage/platform/garbage";
import type { CollectGarbageRequest, GarbageCollection } from "@tutelage/proto/run/v1/garbage";
import type { DatasetStore } from "./store.js";

export async function collectGarbage(
  { store, artifacts }: { store: DatasetStore; artifacts: ArtifactStore },
  request: CollectGarbageRequest,
  signal: AbortSignal,
): Promise<GarbageCollection> {
  const collector = new GarbageCollector(artifacts, request, signal);
  const { projectId } = request;
  for (const { name, uri } of await collector.in("versions")) {
    const [, digest] = /^([0-9a-f]{64})\.jsonl$/.exec(name) ?? [];
    if (digest !== undefined) {
      const which = { projectId, digest };
      await collector.consider(
        uri,
        async () => ((await store.hasVersion(which)) ? undefined : "version_gone"),
        // Under the lock of commits: one that has just come to need the file keeps it.
        () => store.discardArtifact(which, () => artifacts.remove(uri)),
      );
    } else if (collector.isUnfinished(name)) {
      await collector.consider(uri, () => "unfinished_write");
    }
  }
  return collector.result;
}
