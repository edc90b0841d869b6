/** tutelage run and estimate: data to a dataset, the file to a campaign. */
import { createHash, randomUUID } from "node:crypto";
import { relative } from "node:path";
import type { Api, Campaign } from "./api.js";
import { exitCodes, Stop } from "./exit.js";
import { inputOf, isHeldBack, readSource, type SourceFile } from "./rows.js";
import type { CampaignSpec, TaskSpec } from "./spec.js";
import { wholeTask } from "./tasks.js";

interface ImportReply {
  version?: { id: string; splits: Record<string, number> };
  imported_rows?: number;
  rejected_rows?: number;
  rejects?: { line: number; field: string; message: string }[];
  detail?: string;
}

interface Upload {
  file: SourceFile;
  split: "train" | "dev" | "test";
  contentType: string;
  body: string;
  /** Line of the file that each line of the body came from, where they differ. */
  lines?: number[];
}

/** Rejects shown of one file; all are in the dataset's import answer. */
const shownRejects = 20;

/** What a campaign is started from: the request's body, and a key that is the same for the same files. */
export interface Prepared {
  body: Record<string, unknown>;
  key: string;
}

/**
 * Brings the data to the server and makes the request's body. The same files
 * give the same dataset: doing it again imports nothing.
 * @param say told about each file, and each row that was left out
 */
export async function prepare(
  api: Api,
  given: CampaignSpec,
  options: { strict: boolean; say: (line: string) => void },
): Promise<Prepared> {
  // Whole, also where it is named: what it is decides which rows are taken, and which campaign it was.
  const spec = { ...given, task: await wholeTask(api, given.task) };
  const task = taskOf(spec);
  const body = {
    name: spec.name,
    student_profile: spec.student,
    teacher_profile: spec.teacher,
    task,
    settings: spec.settings,
  };
  if (spec.data.dataset !== undefined) {
    const asked = { ...body, dataset: spec.data.dataset };
    return { body: asked, key: digest([JSON.stringify(asked)]) };
  }
  const uploads = await uploadsOf(spec);
  const dataKey = digest([
    JSON.stringify(spec.data.columns),
    // What outputs must hold decides which rows are taken.
    ...(spec.task.fields === undefined ? [] : [JSON.stringify(spec.task.fields)]),
    ...uploads.flatMap(({ split, body: text }) => [split, text]),
  ]);
  const dataset = await importAll(api, `${spec.name}-${dataKey.slice(0, 10)}`, uploads, spec, dataKey, options);
  const asked = { ...body, dataset_version_id: dataset };
  return { body: asked, key: digest([JSON.stringify(asked)]) };
}

/** The task as the server is asked for it. */
export function taskOf({ name, task }: { name: string; task: TaskSpec }): object {
  const { labels, ...rest } = task;
  if (labels === undefined) return { name, ...rest };
  return { name, ...rest, labels: labels.map((label) => (typeof label === "string" ? { name: label } : label)) };
}

/** Starts the campaign, or finds the one that the same files started before. */
export async function start(api: Api, { body, key }: Prepared, options: { anew: boolean }): Promise<Campaign> {
  const headers = { "idempotency-key": options.anew ? `cli/${randomUUID()}` : `cli/${key}` };
  return await api.json<Campaign>("POST", "/v1/campaigns", body, headers);
}

async function uploadsOf({ data }: CampaignSpec): Promise<Upload[]> {
  const uploads: Upload[] = [];
  for (const split of ["train", "dev", "test"] as const) {
    const path = data[split];
    if (path === undefined) continue;
    const file = await readSource(path);
    if (split === "train" && data.hold_back !== undefined)
      uploads.push(...heldBack(file, data.columns.input, data.hold_back));
    else {
      const contentType = file.format === "csv" ? "text/csv" : "application/x-ndjson";
      uploads.push({ file, split, contentType, body: file.content });
    }
  }
  return uploads;
}

/** A file's rows as two uploads; lines that are no JSON go with the train rows, where the server names them. */
export function heldBack(file: SourceFile, inputColumn: string, share: number): Upload[] {
  const isTest = ({ fields }: SourceFile["rows"][number]) => {
    const input = fields === undefined ? undefined : inputOf(fields, inputColumn);
    return input !== undefined && isHeldBack(input, share);
  };
  const part = (split: Upload["split"], rows: SourceFile["rows"]): Upload => ({
    file,
    split,
    contentType: "application/x-ndjson",
    body: rows.map((row) => `${row.text}\n`).join(""),
    lines: rows.map((row) => row.line),
  });
  return [
    part(
      "train",
      file.rows.filter((row) => !isTest(row)),
    ),
    part("test", file.rows.filter(isTest)),
  ];
}

/** Returns the id of the version with all rows. */
async function importAll(
  api: Api,
  name: string,
  uploads: readonly Upload[],
  spec: CampaignSpec & { task: TaskSpec },
  dataKey: string,
  { strict, say }: { strict: boolean; say: (line: string) => void },
): Promise<string> {
  const existing = await api.json<{ id: string }>("POST", "/v1/datasets", { name }).catch(async (error: unknown) => {
    // Made by an earlier run of the same files.
    const found = await api
      .json<{ id: string }>("GET", `/v1/datasets/${encodeURIComponent(name)}`)
      .catch(() => undefined);
    if (found === undefined) throw error;
    return found;
  });
  let versionId = "";
  for (const [index, { file, split, contentType, body, lines }] of uploads.entries()) {
    // As the user would type it from where they are.
    const path = relative("", file.path);
    const { input, output, split: splitColumn } = spec.data.columns;
    const query = new URLSearchParams({
      input_column: input,
      output_column: output,
      default_split: split,
      append: String(index > 0),
      strict: String(strict),
      ...(splitColumn === undefined ? {} : { split_column: splitColumn }),
      ...(spec.task.fields === undefined ? {} : { fields: JSON.stringify(spec.task.fields) }),
    });
    const route = `/v1/datasets/${existing.id}/import?${query}`;
    // Asked strictly and not is asked twice, even where the rows are the same.
    const key = `cli/${dataKey}/${split}${strict ? "/strict" : ""}`;
    const reply = await api.upload<ImportReply>(route, contentType, body, key);
    const rejects = reply.rejects ?? [];
    for (const { line, field, message } of rejects.slice(0, shownRejects)) {
      say(`  ${path}:${lines?.[line - 1] ?? line}: ${field === "" ? "" : `${field}: `}${message}`);
    }
    if (rejects.length > shownRejects) say(`  … and ${rejects.length - shownRejects} more`);
    if (reply.version === undefined) {
      throw new Stop(`${path}: ${reply.detail ?? "nothing was imported."}`, exitCodes.refused, { ...reply });
    }
    versionId = reply.version.id;
    const left = (reply.rejected_rows ?? 0) > 0 ? `, ${reply.rejected_rows} left out` : "";
    say(`${path}: ${reply.imported_rows} rows as ${split}${left}`);
  }
  return versionId;
}

function digest(parts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}\n${part}`);
  return hash.digest("hex");
}
