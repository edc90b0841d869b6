/** tutelage datasets overlaps: rows of a split that say what a row of another split says. */
import { type Command, Option } from "commander";
import type { Iteration } from "./api.js";
import { type CommandContext, query } from "./context.js";
import type { Dataset } from "./datasets.js";
import { exitCodes, Stop } from "./exit.js";
import { table } from "./show.js";

export interface OverlapCount {
  split: string;
  against: string;
  kind: string;
  rows: number;
}

interface Overlaps {
  counts: OverlapCount[];
  overlaps: {
    row_id: string;
    split: string;
    overlap: { kind: string; row_id: string; split: string; strength: number };
  }[];
}

const kinds = ["exact", "ngram", "near_duplicate"];

export function addOverlapCommand(datasets: Command, { api, print }: CommandContext): void {
  datasets
    .command("overlaps <dataset>")
    .description("rows of the newest version that say what a dev or test row says: how many, and which")
    .option("--of <version>", "another version of it")
    .addOption(new Option("--limit <count>", "most rows to list, 1 to 1000; the numbers are over all").default("100"))
    .action(async (given: string, { of, limit }: { of?: string; limit: string }) => {
      const dataset = await api().json<Dataset>("GET", `/v1/datasets/${encodeURIComponent(given)}`);
      const version = of ?? dataset.latest_version_id;
      if (version === "") {
        throw new Stop(
          `Dataset ${dataset.name} has no rows yet; fill it with  tutelage datasets import`,
          exitCodes.refused,
        );
      }
      const path = `/v1/versions/${encodeURIComponent(version)}/overlaps${query({ limit })}`;
      const found = await api().json<Overlaps>("GET", path);
      print(found, () => {
        if (found.counts.length === 0) return "No row says what a row of another split says.";
        const lines = found.overlaps.map(({ row_id, split, overlap }) => [
          `${split} ${row_id}`,
          `${overlap.split} ${overlap.row_id}`,
          overlap.kind,
          overlap.strength.toFixed(2),
        ]);
        return `${overlapText(found.counts, [])}\n\n${table(["row", "says again", "how", "strength"], lines)}`;
      });
    });
}

/** Counts by kind, a line for two splits and for each iteration whose candidates were refused; empty without any. */
export function overlapText(counts: readonly OverlapCount[], iterations: readonly Iteration[]): string {
  const ofSplits = ["train dev", "train test", "dev test"].flatMap((pair) => {
    const own = counts.filter(({ split, against }) => `${split} ${against}` === pair);
    if (own.length === 0) return [];
    return [[`${pair.replace(" ", " against ")} rows`, ...kinds.map((kind) => rowsOf(own, kind))]];
  });
  const ofCandidates = iterations.flatMap(({ number, overlaps_by_kind = {} }) =>
    Object.keys(overlaps_by_kind).length === 0
      ? []
      : [[`candidates of iteration ${number}`, ...kinds.map((kind) => String(overlaps_by_kind[kind] ?? 0))]],
  );
  const lines = [...ofSplits, ...ofCandidates];
  return lines.length === 0 ? "" : table(["", ...kinds], lines);
}

function rowsOf(counts: readonly OverlapCount[], kind: string): string {
  return String(counts.find((one) => one.kind === kind)?.rows ?? 0);
}
