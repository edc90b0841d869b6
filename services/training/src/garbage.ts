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
          await collector.consider(part.uri, reasonOf(await found()), async () => isGarbage(await found(), part.uri));
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
      const files = await find(run.name);
      const reason = files === undefined ? "export_gone" : "attempt_lost";
      await collector.consider(attempt.uri, reason, async () => isGarbage(await find(run.name), attempt.uri));
    }
    if (isOver(await find(run.name))) await collector.prune(run.uri);
  }
}

function reasonOf(files: RunFiles | undefined): string {
  if (files === undefined) return "run_gone";
  return files.checkpointRemoved ? "checkpoint_removed" : "attempt_lost";
}

function isOver(files: RunFiles | undefined): boolean {
  return files === undefined || files.isFinal;
}

/** Whether nothing refers to a folder: the run is over, and says nothing of it. */
function isGarbage(files: RunFiles | undefined, uri: string): boolean {
  if (files === undefined) return true;
  if (!files.isFinal) return false;
  return files.checkpointRemoved || !files.state.includes(uri);
}

async function foldersIn(artifacts: Pick<ArtifactStore, "entries">, uri: string, name = /^[^.]/): Promise<Entry[]> {
  return (await artifacts.entries(uri)).filter((entry) => entry.isFolder && name.test(entry.name));
}
