/**
 * A copy of a home whose server is stopped: the embedded Postgres, shut down
 * cleanly, and the artifacts, with a digest of every file. Models and logs are
 * not in it: they are made again.
 */
import { randomUUID } from "node:crypto";
import { access, chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { syncDirectory } from "@tutelage/platform/artifacts";
import { productVersion } from "@tutelage/platform/migrations";
import { HomeInUse, type HomeLock, lockHome } from "./homelock.js";
import { clusterPlace, postgresOwner, startPostgres } from "./postgres.js";
import { type CopiedTree, copyTree, firstDifference, shapeLike } from "./treecopy.js";

const format = "tutelage-backup-1";
const manifestName = "manifest.json";

export interface ColdCopyManifest {
  format: typeof format;
  /** Of the code that made it. */
  version: string;
  made_at: string;
  /** Where the artifacts lay: the database knows them by it. */
  artifact_root: string;
  postgres: CopiedTree;
  artifacts: CopiedTree;
}

export interface ColdCopyPlaces {
  home: string;
  artifactRoot: string;
}

/** A copy that cannot be made or put back now; the message says why and what to do. */
export class ColdCopyRefused extends Error {}

/** Makes a copy in a folder that is not there yet. Throws ColdCopyRefused. */
export async function backup({ home, artifactRoot }: ColdCopyPlaces, target: string): Promise<ColdCopyManifest> {
  if (await isThere(target)) throw new ColdCopyRefused(`${target} is there already; name a folder that is not.`);
  const place = (await isThere(home)) ? await clusterPlace(home) : undefined;
  if (place === undefined || !(await isThere(join(place.directory, "data", "PG_VERSION")))) {
    throw new ColdCopyRefused(`There is no embedded Postgres of ${home}; name the home with --home or TUTELAGE_HOME.`);
  }
  return await alone(home, async () => {
    // Whatever state it was left in: started, it recovers; stopped, all of it is in its files.
    await (await startPostgres(home)).stop();
    const fresh = `${target}.${randomUUID()}.tmp`;
    try {
      await mkdir(fresh, { recursive: true, mode: 0o700 });
      const leaveOut = (path: string) => /^(native|postgres\.log|data\/postmaster\.pid)$/.test(path);
      const postgres = await copyTree(place.directory, join(fresh, "postgres"), { leaveOut });
      await mkdir(artifactRoot, { recursive: true });
      const artifacts = await copyTree(artifactRoot, join(fresh, "artifacts"));
      const manifest: ColdCopyManifest = {
        format,
        version: productVersion,
        made_at: new Date().toISOString(),
        artifact_root: resolve(artifactRoot),
        postgres,
        artifacts,
      };
      // Last, as it vouches for the rest.
      await writeFile(join(fresh, manifestName), JSON.stringify(manifest), { mode: 0o600, flush: true });
      await syncDirectory(fresh);
      await rename(fresh, target);
      await syncDirectory(dirname(resolve(target)));
      return manifest;
    } finally {
      await rm(fresh, { recursive: true, force: true });
    }
  });
}

/** Puts a copy back into a home that has nothing yet, and checks what then lies there. Throws ColdCopyRefused. */
export async function restore(source: string, { home, artifactRoot }: ColdCopyPlaces): Promise<ColdCopyManifest> {
  const manifest = await readManifest(source);
  if (resolve(artifactRoot) !== manifest.artifact_root) {
    throw new ColdCopyRefused(
      `The database knows its files by where they lay, ${manifest.artifact_root}: restore to the home that they were in` +
        " (--home or TUTELAGE_HOME; ARTIFACT_ROOT where that was set), on this machine or another.",
    );
  }
  await mkdir(home, { recursive: true });
  return await alone(home, async () => {
    const place = await clusterPlace(home);
    for (const folder of [join(place.directory, "data"), artifactRoot]) {
      if ((await readdir(folder).catch(() => [])).length > 0) {
        throw new ColdCopyRefused(`${folder} has something in it already; move it away, then restore.`);
      }
    }
    const fresh = {
      postgres: `${place.directory}.${randomUUID()}.tmp`,
      artifacts: `${artifactRoot}.${randomUUID()}.tmp`,
    };
    try {
      const owner = postgresOwner();
      const giveToPostgres = async (path: string) => {
        if (owner !== undefined) await chown(path, owner.uid, owner.gid);
      };
      for (const [kind, to] of Object.entries(fresh) as [keyof typeof fresh, string][]) {
        await mkdir(dirname(to), { recursive: true });
        const onMade = kind === "postgres" ? giveToPostgres : async () => {};
        await copyTree(join(source, kind), to, { onMade });
        const difference = await firstDifference(to, manifest[kind]);
        if (difference !== undefined) {
          throw new ColdCopyRefused(`The backup is damaged: ${difference}. Nothing was restored.`);
        }
        await shapeLike(to, manifest[kind], onMade);
      }
      // Postgres's folder may hold binaries that were copied there: only what is ours is replaced.
      for (const name of await readdir(fresh.postgres)) {
        await rm(join(place.directory, name), { recursive: true, force: true });
        await rename(join(fresh.postgres, name), join(place.directory, name));
      }
      await rm(artifactRoot, { recursive: true, force: true });
      await rename(fresh.artifacts, artifactRoot);
      for (const folder of [place.directory, dirname(artifactRoot)]) await syncDirectory(folder);
    } finally {
      for (const folder of Object.values(fresh)) await rm(folder, { recursive: true, force: true });
    }
    await (await startPostgres(home)).stop();
    return manifest;
  });
}

async function readManifest(source: string): Promise<ColdCopyManifest> {
  const text = await readFile(join(source, manifestName), "utf8").catch(() => {
    throw new ColdCopyRefused(`${source} is no backup: it has no ${manifestName}.`);
  });
  try {
    const manifest = JSON.parse(text) as ColdCopyManifest;
    if (manifest.format === format) return manifest;
  } catch {
    // Said below.
  }
  throw new ColdCopyRefused(`${join(source, manifestName)} is not one of ${format}; use the version that made it.`);
}

/** While no server runs on the home, and none can start. */
async function alone<Result>(home: string, work: () => Promise<Result>): Promise<Result> {
  let lock: HomeLock;
  try {
    lock = await lockHome(home);
  } catch (error) {
    if (!(error instanceof HomeInUse)) throw error;
    throw new ColdCopyRefused(
      `A server runs on ${home} (process ${error.holder.pid}). Stop it first: Ctrl-C, or kill ${error.holder.pid}.`,
    );
  }
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
