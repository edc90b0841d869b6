/**
 * Folders below runs/<run>/<fence>/ that no training run and no export refers
 * to. Of a run that is not over nothing is touched, whichever attempt wrote it.
 */
import type { ArtifactStore, Entry } from "@tutelage/platform/artifacts";
import type { Database } from "@tutelage/platform/database";
import { GarbageCollector } from "@tutelage/platform/garbage";
import { isUuid } from "@tutelage/platform/runs";
import type { CollectGarbageRequest, GarbageCollection } from "@tutelage/proto/run/v1/garbage";
import { type RunFiles, runFiles } from "./store.js";

interface Dependencies {
  database: Database;
  exports: { database: Database };
  artifacts: ArtifactStore;
}

/** Where the exports of a checkpoint lie, beside it. */
const exportsFolder = "exports";

export async function collectGarbage(
  { database, exports, artifacts }: Dependencies,
  request: CollectGarbageRequest,
  signal: AbortSignal,
): Promise<GarbageCollection> {
  const collector = new GarbageCollector(artifacts, request, signal);
  const { projectId } = request;
  const ofExport = (id: string) => runFiles(exports.database, projectId, id);

  for (const run of await collector.in("runs")) {
    if (!isUuid(run.name)) continue;
    // A run's row is older than its files: without one it was deleted. Read after what is looked at was listed.
    for (const fence of await foldersIn(artifacts, run.uri, /^\d+$/)) {
      for (const part of await foldersIn(artifacts, fence.uri)) {
        const found = () => runFiles(database, projectId, run.name);
        if (part.name === exportsFolder && (await found()) !== undefined) {
          await collectExports(collector, part, ofExport);
        } else {
          await collector.consider(part.uri, async () => whyGarbage(await found(), part.uri, "run_gone"));
        }
      }
      if (isOver(await runFiles(database, projectId, run.name))) await collector.prune(fence.uri);
    }
    if (isOver(await runFiles(database, projectId, run.name))) await collector.prune(run.uri);
  }
  return collector.result;
}

async function collectExports(
  collector: GarbageCollector,
  folder: Entry,
  find: (id: string) => Promise<RunFiles | undefined>,
): Promise<void> {
  for (const run of await foldersIn(collector.artifacts, folder.uri)) {
    if (!isUuid(run.name)) continue;
    for (const attempt of await foldersIn(collector.artifacts, run.uri, /^\d+$/)) {
      await collector.consider(attempt.uri, async () => whyGarbage(await find(run.name), attempt.uri, "export_gone"));
    }
    if (isOver(await find(run.name))) await collector.prune(run.uri);
  }
}

function isOver(files: RunFiles | undefined): boolean {
  return files === undefined || files.isFinal;
}

/** Why nothing refers to a folder: the run is gone, or it is over and says nothing of it. Undefined where one may. */
function whyGarbage(files: RunFiles | undefined, uri: string, gone: string): string | undefined {
  if (files === undefined) return gone;
  if (!files.isFinal) return undefined;
  if (files.checkpointRemoved) return "checkpoint_removed";
  return files.state.includes(uri) ? undefined : "attempt_lost";
}

async function foldersIn(artifacts: Pick<ArtifactStore, "entries">, uri: string, name = /^[^.]/): Promise<Entry[]> {
  return (await artifacts.entries(uri)).filter((entry) => entry.isFolder && name.test(entry.name));
}
