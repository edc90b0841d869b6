/** tutelage datasets import and export: a file becomes a version, a version becomes a file. */
import { open } from "node:fs/promises";
import { publicTasks } from "@tutelage/platform/publictasks";
import { type Command, Option } from "commander";
import type { Api } from "./api.js";
import { type CommandContext, query } from "./context.js";
import type { Dataset } from "./datasets.js";
import { pour, refuseBytes, saveFile } from "./download.js";
import { exitCodes, type Problem, Stop } from "./exit.js";

interface ImportReply extends Problem {
  version?: { id: string; row_count: number; splits?: Record<string, number> };
  imported_rows?: number;
  rejected_rows?: number;
  /** The server lists the first 1,000. */
  rejects?: { line: number; code: string; field: string; message: string }[];
}

interface ImportOptions {
  layout?: string;
  inputColumn?: string;
  outputColumn?: string;
  splitColumn?: string;
  defaultSplit?: string;
  labels?: string;
  fields?: string;
  strict: boolean;
  append: boolean;
}

/** Rejects shown one by one; --json has all that the server lists. */
const shownRejects = 100;

/** Adds to `datasets` the commands that move files. */
export function addDatasetFileCommands(datasets: Command, { api, print, note, json }: CommandContext): void {
  const split = (flag: string, text: string) => new Option(flag, text).choices(["train", "dev", "test"]);
  datasets
    .command("import <dataset> <file>")
    .description(
      "the rows of a .jsonl or .csv file, or of a public task's (--layout), as a new version; bad rows are left out, and " +
        "named with their line and the fix",
    )
    .addOption(
      new Option("--layout <task>", "the file is as this public task is published, whatever its name").choices(
        publicTasks,
      ),
    )
    .option("--input-column <name>", 'column or JSON key of the input (default "input")')
    .option("--output-column <name>", 'column or JSON key of the output (default "output")')
    .option("--split-column <name>", "column or JSON key that says train, dev or test")
    .addOption(split("--default-split <split>", "of rows that name none (default train)"))
    .option("--labels <labels>", "the only outputs allowed, between commas or as a JSON list")
    .option("--fields <json>", "fields that every output must have, as an extraction task's fields in JSON")
    .option("--strict", "refuse the whole file when one row is bad", false)
    .option("--append", "add to the newest version, else start from nothing", false)
    .addHelpText("after", "\nExit codes: 0 every row was taken; 1 some were left out; 65 nothing was imported.")
    .action(async (dataset: string, file: string, options: ImportOptions) => {
      const reply = await importFile(api(), dataset, file, options);
      const { version, imported_rows = 0, rejected_rows = 0, rejects = [] } = reply;
      for (const { line, field, message } of rejects.slice(0, shownRejects)) {
        note(`  ${file}:${line}: ${field === "" ? "" : `${field}: `}${message}`);
      }
      if (rejected_rows > shownRejects) {
        note(`  … and ${rejected_rows - shownRejects} more; --json lists the first 1,000.`);
      }
      if (version === undefined) throw new Stop(`${file}: ${reply.detail}`, exitCodes.refused, reply);
      print(reply, () => {
        const left = rejected_rows === 0 ? "" : `, ${rejected_rows} left out`;
        return `${version.id}: ${imported_rows} rows taken${left}; ${version.row_count} in this version`;
      });
      if (rejected_rows > 0) process.exitCode = exitCodes.failed;
    });

  datasets
    .command("export <version>")
    .description("the rows of a version as JSON Lines; a dataset's name stands for its newest version")
    .addOption(split("--split <split>", "only these rows"))
    .option("--out <file>", "where to; - for standard output", "-")
    .action(async (given: string, options: { split?: string; out: string }) => {
      const { out } = options;
      refuseBytes(out, json());
      const version_id = await versionOf(api(), given);
      const body = await api().download(
        `/v1/versions/${encodeURIComponent(version_id)}/export${query({ split: options.split })}`,
      );
      if (out === "-") return await pour(body, "text", process.stdout);
      const saved = await saveFile(body, out);
      if (json()) print({ ...saved, version_id }, () => "");
      else note(`Wrote ${out}.`);
    });
}

/** Sends the file as it is read; the server lists what it took and what not. */
async function importFile(api: Api, dataset: string, path: string, options: ImportOptions): Promise<ImportReply> {
  const contentType = contentTypeOf(path, options.layout);
  const asked = query({
    layout: options.layout,
    input_column: options.inputColumn,
    output_column: options.outputColumn,
    split_column: options.splitColumn,
    default_split: options.defaultSplit,
    labels: options.labels,
    fields: options.fields,
    strict: String(options.strict),
    append: String(options.append),
  });
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? `There is no file ${path}.` : `Cannot read ${path} (${error.code}).`;
    throw new Stop(why, exitCodes.noInput);
  });
  try {
    if ((await file.stat()).isDirectory()) throw new Stop(`${path} is a folder.`, exitCodes.noInput);
    const route = `/v1/datasets/${encodeURIComponent(dataset)}/import${asked}`;
    // Without a key: who imports the same file again means it.
    return await api.upload<ImportReply>(route, contentType, file.createReadStream({ autoClose: false }), "");
  } finally {
    await file.close();
  }
}

/** The ending says how a file is written, or its layout does. */
function contentTypeOf(path: string, layout: string | undefined): string {
  if (layout !== undefined) return "application/octet-stream";
  if (/\.csv$/i.test(path)) return "text/csv";
  if (/\.(jsonl|ndjson)$/i.test(path)) return "application/x-ndjson";
  throw new Stop(
    `${path} may be JSON Lines or CSV: name it .jsonl or .csv, or say with --layout which public task's file it is.`,
    exitCodes.usage,
  );
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

async function versionOf(api: Api, given: string): Promise<string> {
  if (uuid.test(given)) return given;
  const dataset = await api.json<Dataset>("GET", `/v1/datasets/${encodeURIComponent(given)}`);
  if (dataset.latest_version_id === "") {
    const how = `fill it with  tutelage datasets import ${given} FILE`;
    throw new Stop(`${given} has no version yet: ${how}`, exitCodes.refused);
  }
  return dataset.latest_version_id;
}
