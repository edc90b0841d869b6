/** tutelage datasets …: which there are, rows of a version, what changed between two, where a row comes from. */
import { type Command, Option } from "commander";
import { type CommandContext, query } from "./context.js";
import { addDatasetFileCommands } from "./datasetfiles.js";
import { removalText, remove } from "./deletion.js";
import { listed } from "./listing.js";
import { addOverlapCommand } from "./overlaps.js";
import { percent, table } from "./show.js";

/** A row as the server gives it. */
export interface Row {
  id: string;
  input: string;
  messages: { role: string; content: string }[];
  output: string;
  split: string;
  origin: string;
  iteration: number;
}

export interface Dataset {
  id: string;
  name: string;
  latest_version_id: string;
  created_at?: string;
}

interface Diff {
  changes: { kind: "added" | "removed"; row: Row }[];
  next_cursor: string;
  summary?: { added_rows: number; removed_rows: number; unchanged_rows: number };
}

interface Lineage {
  row: Row;
  ancestors: Row[];
  children: Row[];
  child_count: number;
  descendant_count: number;
  added_in?: { id: string };
  made_by?: {
    campaign_id: string;
    campaign_name: string;
    candidate: {
      call_id: string;
      probability: number;
      verdicts: { checker: string; answer: string; label_probability: number }[];
    };
  };
}

/** Adds `datasets` with its commands. */
export function addDatasetCommands(program: Command, context: CommandContext): void {
  const { api, print, note } = context;
  const datasets = program
    .command("datasets")
    .description("create, import, export, list, get, versions, rows, diff, overlaps, lineage, delete");
  addDatasetFileCommands(datasets, context);
  addOverlapCommand(datasets, context);
  datasets
    .command("create <name>")
    .description("make an empty dataset; its rows come with import")
    .action(async (name: string) => {
      const dataset = await api().json<Dataset>("POST", "/v1/datasets", { name });
      print(dataset, () => `${dataset.id}: made; fill it with  tutelage datasets import ${dataset.name} FILE`);
    });
  datasets
    .command("get <dataset>")
    .description("one dataset and its newest version, by id or name")
    .action(async (given: string) => {
      const dataset = await api().json<Dataset>("GET", `/v1/datasets/${encodeURIComponent(given)}`);
      print(dataset, () =>
        table(
          ["id", "name", "newest version", "created"],
          [[dataset.id, dataset.name, dataset.latest_version_id || "none yet", minute(dataset.created_at)]],
        ),
      );
    });
  const limitOption = (what: string) => new Option("--limit <count>", `most ${what} to list`).default("1000");
  datasets
    .command("list")
    .addOption(limitOption("datasets"))
    .action(async ({ limit }: { limit: string }) => {
      type Page = { datasets: Dataset[]; next_cursor: string };
      const page = await listed<Page>(api(), "/v1/datasets", "datasets", { limit, note });
      print(page.datasets, () =>
        table(
          ["id", "name", "created"],
          page.datasets.map((one) => [one.id, one.name, minute(one.created_at)]),
        ),
      );
    });
  datasets
    .command("versions <dataset>")
    .addOption(limitOption("versions"))
    .action(async (dataset: string, { limit }: { limit: string }) => {
      type Page = {
        versions: { id: string; splits: Record<string, number>; created_at?: string }[];
        next_cursor: string;
      };
      const page = await listed<Page>(api(), `/v1/datasets/${encodeURIComponent(dataset)}/versions`, "versions", {
        limit,
        note,
      });
      print(page.versions, () =>
        table(
          ["id", "train", "dev", "test", "created"],
          page.versions.map(({ id, splits, created_at }) => [
            id,
            ...["train", "dev", "test"].map((split) => String(splits[split] ?? 0)),
            minute(created_at),
          ]),
        ),
      );
    });
  datasets
    .command("delete <dataset>")
    .description("remove a dataset with its versions and rows, unless something uses it")
    .action(async (dataset: string) => {
      const removal = await remove(api(), `/v1/datasets/${encodeURIComponent(dataset)}`);
      print(removal, () => removalText(removal));
    });

  datasets
    .command("rows <version>")
    .description("rows of a version, in order")
    .option("--split <split>", "only train, dev or test")
    .option("--origin <origin>", "only seed or synthetic rows")
    .option("--output <output>", "only rows with exactly this output")
    .option("--root <row>", "only what grew from this seed row")
    .option("--iteration <number>", "only rows that this iteration added; 0 for seed rows")
    .option("--contains <text>", "only rows with this text in their input, whatever its case")
    .option("--limit <count>", "most rows to list", "100")
    .action(async (version: string, { limit = "100", ...given }: Record<string, string | undefined>) => {
      const path = `/v1/versions/${encodeURIComponent(version)}/rows${query(given)}`;
      const { rows } = await listed<{ rows: Row[]; next_cursor: string }>(api(), path, "rows", { limit, note });
      print(rows, () => table(["row", "split", "origin", "output", "input"], rows.map(rowCells)));
    });

  datasets
    .command("diff <version>")
    .description("rows that a version has and another has not, and the reverse")
    .option("--against <version>", "the other version; the version's parent when left out")
    .option("--change <kind>", "only added, or only removed rows")
    .option("--limit <count>", "most rows to list; the numbers are over all", "100")
    .action(async (version: string, { limit = "100", ...given }: Record<string, string | undefined>) => {
      const path = `/v1/versions/${encodeURIComponent(version)}/diff${query(given)}`;
      const diff = await listed<Diff>(api(), path, "changes", { limit, note });
      print(diff, () => {
        const { added_rows = 0, removed_rows = 0, unchanged_rows = 0 } = diff.summary ?? {};
        const lines = diff.changes.map(({ kind, row }) => [kind === "added" ? "+" : "-", ...rowCells(row)]);
        return `${added_rows} added, ${removed_rows} removed, ${unchanged_rows} unchanged\n${table(
          ["", "row", "split", "origin", "output", "input"],
          lines,
        )}`;
      });
    });

  datasets
    .command("lineage <version> <row>")
    .description("the row that a row was written from, up to the seed row; what grew from it; which campaign made it")
    .action(async (version: string, row: string) => {
      const lineage = await api().json<Lineage>(
        "GET",
        `/v1/versions/${encodeURIComponent(version)}/rows/${encodeURIComponent(row)}/lineage`,
      );
      print(lineage, () => lineageText(lineage));
    });
}

function minute(time: string | undefined): string {
  return time?.slice(0, 16).replace("T", " ") ?? "";
}

/** A row's input, or what the user says last in a conversation. */
export function saidIn({ input, messages }: Row): string {
  return messages.length === 0 ? input : (messages.findLast(({ role }) => role === "user")?.content ?? "");
}

function rowCells(row: Row): string[] {
  return [row.id, row.split, row.origin, row.output, saidIn(row)];
}

function lineageText({ row, ancestors, children, child_count, descendant_count, added_in, made_by }: Lineage): string {
  const header = ["", "row", "split", "origin", "output", "input"];
  const lines = [
    ...ancestors.toReversed().map((one) => ["from", ...rowCells(one)]),
    ["this", ...rowCells(row)],
    ...children.map((one) => ["to", ...rowCells(one)]),
  ];
  const told = [
    table(header, lines),
    `${child_count} written from it, ${descendant_count} grown from it in all; added in version ${added_in?.id ?? "?"}`,
  ];
  if (made_by !== undefined) {
    const { call_id, probability, verdicts } = made_by.candidate;
    told.push(`made by campaign ${made_by.campaign_id} (${made_by.campaign_name}), teacher call ${call_id}`);
    for (const { checker, answer, label_probability } of verdicts) {
      told.push(`  ${checker} says ${answer}, and gives its label ${percent(label_probability)}`);
    }
    told.push(`  its label is right with probability ${percent(probability)}`);
  }
  return told.join("\n");
}
