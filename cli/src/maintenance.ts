/** tutelage gc: removes files that nothing refers to. */
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { bytes, table } from "./show.js";

interface Collection {
  dry_run: boolean;
  count: number;
  bytes: number;
  garbage: { path: string; bytes: number; last_written_at: string; reason: string }[];
}

/** Adds `gc`. */
export function addMaintenanceCommands(program: Command, { api, print }: CommandContext): void {
  program
    .command("gc")
    .description("remove files that nothing refers to: of attempts that were lost, of writes that died")
    .option("--dry-run", "only tell what would be removed", false)
    .option("--min-age <hours>", "only what was last written so long ago, at least 1", "24")
    .action(async ({ dryRun, minAge }: { dryRun: boolean; minAge: string }) => {
      const hours = Number(minAge);
      if (!(hours >= 1)) throw new Stop(`--min-age: "${minAge}" is not a number of hours from 1 on.`, exitCodes.usage);
      const asked = { dry_run: dryRun, min_age_hours: hours };
      const found = await api().json<Collection>("POST", "/v1/maintenance/gc", asked);
      print(found, () => collectionText(found));
    });
}

/** A line for each, and what they come to. Pure. */
export function collectionText({ dry_run, count, bytes: size, garbage }: Collection): string {
  const total = `${dry_run ? "Would remove" : "Removed"} ${count} ${count === 1 ? "thing" : "things"}, ${bytes(size)}.`;
  if (count === 0) return total;
  const lines = garbage.map((one) => [one.path, bytes(one.bytes), one.last_written_at.slice(0, 16), one.reason]);
  const more = count > garbage.length ? [`… and ${count - garbage.length} more`] : [];
  return [table(["path", "size", "last written", "why"], lines), ...more, total].join("\n");
}
