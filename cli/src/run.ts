/** tutelage run and estimate: data to a dataset, the file to a campaign. */
import { createHash, randomUUID } from "node:crypto";
import { relative } from "node:path";
import type { Api, Campaign } from "./api.js";
import { datasetName } from "./datasetname.js";
import { exitCodes, Stop } from "./exit.js";
import { heldBack } from "./holdback.js";
import { readSource, type SourceFile } from "./rows.js";
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
  body: string | Uint8Array<ArrayBuffer>;
  /** Line of the file that each line of the body came from, where they differ. */
  lines?: number[];
  /** Records of the file that are in no upload. */
  unreadable: SourceFile["unreadable"];
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
    // The newest version now: rows that were added since make another campaign.
    const path = `/v1/datasets/${encodeURIComponent(spec.data.dataset)}`;
    const { latest_version_id } = await api.json<{ latest_version_id: string }>("GET", path);
    if (latest_version_id === "") {
      throw new Stop(`The dataset "${spec.data.dataset}" has no rows yet; import some first.`, exitCodes.refused);
    }
    const asked = { ...body, dataset_version_id: latest_version_id };
    return { body: asked, key: digest([JSON.stringify(asked)]) };
  }
  const uploads = await uploadsOf(spec);
  const dataKey = digest([
    JSON.stringify(spec.data.columns),
    // What outputs may be decides which rows are taken.
    ...(spec.task.fields === undefined ? [] : [JSON.stringify(spec.task.fields)]),
    JSON.stringify(labelNames(spec.task)),
    ...uploads.flatMap(({ split, body: text }) => [split, text]),
  ]);
  const dataset = await importAll(api, datasetName(spec.name, dataKey.slice(0, 10)), uploads, spec, dataKey, options);
  const asked = { ...body, dataset_version_id: dataset };
  return { body: asked, key: digest([JSON.stringify(asked)]) };
}

/** Most characters of a task's name; a campaign's may have more. */
export const mostTaskName = 100;

/** The task as the server is asked for it. */
export function taskOf({ name, task }: { name: string; task: TaskSpec }): object {
  const { labels, ...rest } = task;
  const named = { name: name.slice(0, mostTaskName), ...rest };
  if (labels === undefined) return named;
  return { ...named, labels: labels.map((label) => (typeof label === "string" ? { name: label } : label)) };
}

/** Attempts with the same files, each of which ended failed or cancelled. */
const mostAttempts = 1_000;

/**
 * Starts the campaign, or finds the one that the same files started before: one that is under way is joined, one that
 * succeeded is shown, and after one that failed or was cancelled there is another attempt, under a key of its own.
 * Whoever calls at the same time finds the same attempt.
 */
export async function start(
  api: Pick<Api, "json">,
  { body, key }: Prepared,
  { anew, say }: { anew: boolean; say: (line: string) => void },
): Promise<Campaign> {
  const post = (idempotencyKey: string) =>
    api.json<Campaign>("POST", "/v1/campaigns", body, { "idempotency-key": idempotencyKey });
  if (anew) return await post(`cli/${randomUUID()}`);
  let ended: Campaign | undefined;
  for (let attempt = 0; attempt < mostAttempts; attempt += 1) {
    // The first one's key is the one of releases that knew no other.
    const campaign = await post(attempt === 0 ? `cli/${key}` : `cli/${key}/${attempt}`);
    const { status, cancel_requested } = campaign.run;
    // One that somebody cancelled takes seconds to end.
    if (status === "failed" || status === "cancelled" || (status !== "succeeded" && cancel_requested)) {
      ended = campaign;
      continue;
    }
    if (status === "succeeded") {
      say(`This is the earlier campaign of ${dateOf(campaign)} on the same files; --new starts another.`);
    } else if (ended !== undefined) {
      const { id, failure } = ended.run;
      const why = failure === undefined ? "was cancelled" : `failed (${failure.message.split("\n")[0]})`;
      say(`The earlier campaign ${id} of ${dateOf(ended)} ${why}; this is another attempt.`);
    }
    return campaign;
  }
  throw new Stop(
    `These files were tried ${mostAttempts} times, and each campaign failed or was cancelled.`,
    exitCodes.failed,
  );
}

/** When it was started, to the minute, in UTC. */
function dateOf({ run }: Campaign): string {
  return run.created_at === undefined ? "an unknown date" : `${run.created_at.slice(0, 16).replace("T", " ")} UTC`;
}

async function uploadsOf({ data }: CampaignSpec): Promise<Upload[]> {
  const uploads: Upload[] = [];
  for (const split of ["train", "dev", "test"] as const) {
    const path = data[split];
    if (path === undefined) continue;
    const file = await readSource(path);
    if (split === "train" && data.hold_back !== undefined) {
      const [train, test] = heldBack(file, data.columns.input, data.hold_back);
      // In neither part: beside other lines, a quote that is not closed would swallow others.
      uploads.push({ file, unreadable: file.unreadable, ...train }, { file, unreadable: [], ...test });
    } else uploads.push({ file, split, body: file.content, unreadable: [] });
  }
  return uploads;
}

/** Labels in a request's address go up to this; Node takes 16 KiB of headers with the address. */
const mostQueryCharacters = 12_000;

/** What the server is told about a file. */
function queryOf(
  spec: CampaignSpec & { task: TaskSpec },
  split: Upload["split"],
  append: boolean,
  strict: boolean,
): string {
  const { input, output, split: splitColumn } = spec.data.columns;
  const query = new URLSearchParams({
    input_column: input,
    output_column: output,
    default_split: split,
    append: String(append),
    strict: String(strict),
    ...(splitColumn === undefined ? {} : { split_column: splitColumn }),
    ...(spec.task.fields === undefined ? {} : { fields: JSON.stringify(spec.task.fields) }),
  });
  const labels = labelNames(spec.task);
  if (labels.length === 0) return String(query);
  const bare = String(query);
  query.set("labels", JSON.stringify(labels));
  // So many labels are left to the campaign's own check, which knows no lines.
  return String(query).length > mostQueryCharacters ? bare : String(query);
}

function labelNames({ labels = [] }: TaskSpec): string[] {
  return labels.map((label) => (typeof label === "string" ? label : label.name));
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
  for (const [index, { file, split, body, lines, unreadable }] of uploads.entries()) {
    // As the user would type it from where they are.
    const path = relative("", file.path);
    if (strict && unreadable.length > 0) {
      tellRejects(path, unreadable, say);
      const errors = unreadable.map(({ line, message }) => ({ field: `line ${line}`, message }));
      const told = `${path}: ${unreadable.length} bad row(s), and strict refuses the whole file.`;
      throw new Stop(told, exitCodes.refused, { reason: "rows_rejected", title: "Nothing was imported", errors });
    }
    const route = `/v1/datasets/${existing.id}/import?${queryOf(spec, split, index > 0, strict)}`;
    // Asked strictly and not is asked twice, even where the rows are the same.
    const key = `cli/${dataKey}/${split}${strict ? "/strict" : ""}`;
    const contentType = file.format === "csv" ? "text/csv" : "application/x-ndjson";
    const reply = await api.upload<ImportReply>(route, contentType, body, key);
    const rejects = (reply.rejects ?? []).map((one) => inFile(one, lines));
    tellRejects(path, [...unreadable, ...rejects], say);
    if (reply.version === undefined) {
      throw new Stop(`${path}: ${reply.detail ?? "nothing was imported."}`, exitCodes.refused, { ...reply });
    }
    versionId = reply.version.id;
    const leftOut = unreadable.length + (reply.rejected_rows ?? 0);
    say(`${path}: ${reply.imported_rows} rows as ${split}${leftOut > 0 ? `, ${leftOut} left out` : ""}`);
  }
  return versionId;
}

/** A reject by the lines of the user's file: its own, and the one that it says the same as. */
export function inFile<Reject extends { line: number; message: string }>(reject: Reject, lines?: number[]): Reject {
  const lineOf = (line: number) => lines?.[line - 1] ?? line;
  const message = reject.message.replace(
    /^(The same input (?:and output stand|stands) on line )(\d+)/,
    (_, before: string, line: string) => `${before}${lineOf(Number(line))}`,
  );
  return { ...reject, line: lineOf(reject.line), message };
}

/** A line for each row that was left out, by its line in the user's file. */
function tellRejects(
  path: string,
  rejects: readonly { line: number; field?: string; message: string }[],
  say: (line: string) => void,
): void {
  const ordered = [...rejects].sort((a, b) => a.line - b.line);
  for (const { line, field = "", message } of ordered.slice(0, shownRejects)) {
    say(`  ${path}:${line}: ${field === "" ? "" : `${field}: `}${message}`);
  }
  if (ordered.length > shownRejects) say(`  … and ${ordered.length - shownRejects} more`);
}

function digest(parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${part.length}\n`).update(part);
  return hash.digest("hex");
}
