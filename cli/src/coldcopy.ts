/** tutelage backup and restore: a cold copy of a home with an embedded Postgres. Without a server. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { homeFolder } from "./machine.js";
import { bytes } from "./show.js";

/** As services/standalone/coldcopy.ts gives it; that package depends on this one. */
interface Manifest {
  version: string;
  made_at: string;
  postgres: { files: { size_bytes: number }[] };
  artifacts: { files: { size_bytes: number }[] };
}
interface Places {
  home: string;
  artifactRoot: string;
}
interface ColdCopy {
  backup(places: Places, target: string): Promise<Manifest>;
  restore(source: string, places: Places): Promise<Manifest>;
  ColdCopyRefused: new (message: string) => Error;
}

const coldCopyModule = fileURLToPath(new URL("../../services/standalone/dist/coldcopy.js", import.meta.url));

/** Adds `backup` and `restore`. */
export function addColdCopyCommands(program: Command, { print }: CommandContext): void {
  const homeOption = ["--home <directory>", "the server's home (default ~/.tutelage)"] as const;
  program
    .command("backup <folder>")
    .description("copy a stopped server's database and files, with a digest of each, into a new folder")
    .option(...homeOption)
    .action(async (folder: string, options: { home?: string }) => {
      const target = resolve(folder);
      const manifest = await whileStopped((copy) => copy.backup(placesOf(options), target));
      print({ folder: target, ...summary(manifest) }, () => `Wrote ${target}: ${text(manifest)}.`);
    });
  program
    .command("restore <folder>")
    .description("put a backup back into an empty home, and check every file by its digest")
    .option(...homeOption)
    .action(async (folder: string, options: { home?: string }) => {
      const places = placesOf(options);
      const manifest = await whileStopped((copy) => copy.restore(resolve(folder), places));
      print(
        { home: places.home, ...summary(manifest) },
        () => `Restored ${places.home}: ${text(manifest)}, all checked.`,
      );
    });
}

function placesOf({ home }: { home?: string }): Places {
  if (process.env.DATABASE_URL) {
    throw new Stop(
      "DATABASE_URL names a Postgres of your own: copy that with pg_dump, and the artifacts beside it; docs/operating.md says how.",
      exitCodes.refused,
      { reason: "own_database" },
    );
  }
  const place = home === undefined ? homeFolder() : resolve(home);
  return { home: place, artifactRoot: resolve(process.env.ARTIFACT_ROOT || join(place, "artifacts")) };
}

async function whileStopped(work: (copy: ColdCopy) => Promise<Manifest>): Promise<Manifest> {
  if (!existsSync(coldCopyModule)) {
    throw new Stop(
      `There is no ${coldCopyModule}: run this from a clone of Tutelage, after "npm run setup".`,
      exitCodes.noInput,
    );
  }
  const copy = (await import(pathToFileURL(coldCopyModule).href)) as ColdCopy;
  try {
    return await work(copy);
  } catch (error) {
    if (error instanceof copy.ColdCopyRefused)
      throw new Stop(error.message, exitCodes.refused, { reason: "backup_refused" });
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Stop(`A file cannot be read or written: ${message}.`, exitCodes.noInput, { reason: "file_error" });
  }
}

function summary(manifest: Manifest) {
  const files = [...manifest.postgres.files, ...manifest.artifacts.files];
  return {
    made_at: manifest.made_at,
    version: manifest.version,
    files: files.length,
    size_bytes: files.reduce((sum, { size_bytes }) => sum + size_bytes, 0),
  };
}

function text(manifest: Manifest): string {
  const { files, size_bytes, made_at, version } = summary(manifest);
  return `${files} files, ${bytes(size_bytes)}, made ${made_at} by version ${version}`;
}
