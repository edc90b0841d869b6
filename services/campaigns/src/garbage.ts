/** Files of candidates and answers below runs/<campaign>/<fence>/ that no campaign's step refers to. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { GarbageCollector } from "@tutelage/platform/garbage";
import { isUuid } from "@tutelage/platform/runs";
import type { CollectGarbageRequest, GarbageCollection } from "@tutelage/proto/run/v1/garbage";
import type { CampaignStore } from "./store.js";

export async function collectGarbage(
  { store, artifacts }: { store: CampaignStore; artifacts: ArtifactStore },
  request: CollectGarbageRequest,
  signal: AbortSignal,
): Promise<GarbageCollection> {
  const collector = new GarbageCollector(artifacts, request, signal);
  for (const run of await collector.in("runs")) {
    if (!isUuid(run.name)) continue;
    const key = { projectId: request.projectId, campaignId: run.name };
    for (const fence of await artifacts.entries(run.uri)) {
      if (!fence.isFolder) continue;
      for (const file of await artifacts.entries(fence.uri)) {
        if (file.isFolder || !/^(?:candidates|answers)-[\w-]+\.jsonl/.test(file.name)) continue;
        const reason = collector.isUnfinished(file.name) ? "unfinished_write" : "attempt_lost";
        await collector.consider(file.uri, async () => ((await isGarbage(store, key, file.uri)) ? reason : undefined));
      }
    }
  }
  return collector.result;
}

/** Of a campaign that is not over nothing is touched, whichever attempt wrote it. */
async function isGarbage(
  store: CampaignStore,
  key: { projectId: string; campaignId: string },
  uri: string,
): Promise<boolean> {
  return !(await store.isAtWork(key)) && !(await store.isNamedByAStep(key.projectId, uri));
}
