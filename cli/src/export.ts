/** `tutelage export`: the student as an archive or a folder. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Command, Option } from "commander";
import type { Api } from "./api.js";
import type { CommandContext } from "./context.js";
import { pour, refuseBytes, saveFile, saveFolder, withoutSlashes } from "./download.js";
import { exitCodes, Stop } from "./exit.js";

type Form = "adapter" | "merged";

interface Export {
  form: Form;
  run: {
    id: string;
    status: "queued" | "running" | "succeeded" | "failed" | "cancelled";
    progress?: { done: number; total: number; message: string };
    failure?: { message: string };
  };
  size_bytes?: number;
  check?: { rows: number; comparisons: { reference: string; compared: string; same_answers: number }[] };
}

const pollMs = 500;

/** How an output's name says what it is: an archive by its ending, else a folder. */
export function archiveOf(out: string): "tar" | "tar.gz" | "zip" | undefined {
  if (out === "-" || out.endsWith(".tar")) return "tar";
  if (/\.(tar\.gz|tgz)$/.test(out)) return "tar.gz";
  return out.endsWith(".zip") ? "zip" : undefined;
}

interface Options {
  form?: Form;
  includeBase?: boolean;
  out?: string;
  dataset: boolean;
}

export function addExportCommand(program: Command, context: CommandContext): void {
  program
    .command("export <id>")
    .description("take the student home, checked and with its model card; or the enlarged dataset with --dataset")
    .addOption(new Option("--form <form>", "adapter for PEFT, or all weights").choices(["adapter", "merged"]))
    .option("--include-base", "with an adapter: the base weights too")
    .option("--no-include-base", "with an adapter: only its own files")
    .option(
      "--out <path>",
      "a folder, or a file that ends in .tar, .tar.gz or .zip (default student.tar, or rows.jsonl)",
    )
    .option("--dataset", "the rows that the returned student was trained on, as JSON Lines", false)
    .action(async (id: string, options: Options) => {
      if (options.dataset) return await exportRows(id, options.out ?? "rows.jsonl", context);
      await exportStudent(id, { ...options, out: withoutSlashes(options.out ?? "student.tar") }, context);
    });
}

async function exportRows(id: string, out: string, { api, print, note, json }: CommandContext): Promise<void> {
  refuseBytes(out, json());
  const { outcome } = await api().json<{ outcome?: { dataset_version_id: string } }>(
    "GET",
    `/v1/campaigns/${encodeURIComponent(id)}`,
  );
  if (outcome === undefined) throw new Stop("The campaign has not succeeded yet.", exitCodes.refused);
  const body = await api().download(`/v1/versions/${outcome.dataset_version_id}/export`);
  if (out === "-") return await pour(body, "text", process.stdout);
  const saved = await saveFile(body, out);
  if (json()) print({ ...saved, dataset_version_id: outcome.dataset_version_id }, () => "");
  else note(`Wrote ${out}.`);
}

async function exportStudent(
  id: string,
  options: Options & { out: string },
  { api, print, note, json }: CommandContext,
): Promise<void> {
  const { out } = options;
  refuseBytes(out, json());
  const archive = archiveOf(out);
  const { path, made } = await readyExport(api(), id, { ...options, archive: archive ?? "tar" }, note);
  const body = await api().download(path);
  if (out === "-") return await pour(body, "archive", process.stdout);
  const saved = archive === undefined ? await saveFolder(body, out) : await saveFile(body, out);
  if (json()) print({ ...made, ...saved }, () => "");
  else note(`Wrote ${out}; ${archive === undefined ? `${out}/README.md` : "README.md in it"} says how to load it.`);
}

/** Has the student made ready and waits for it; gives the path that downloads it, and what the check found. */
export async function readyExport(
  api: Api,
  id: string,
  options: { form?: Form | undefined; includeBase?: boolean | undefined; archive: string },
  say: (line: string) => void,
): Promise<{ path: string; made: Export }> {
  const body = {
    ...(options.form === undefined ? {} : { form: options.form }),
    ...(options.includeBase === undefined ? {} : { include_base: options.includeBase }),
  };
  let made = await api.json<Export>("POST", `/v1/campaigns/${encodeURIComponent(id)}/exports`, body);
  let told = "";
  while (made.run.status === "queued" || made.run.status === "running") {
    const message = made.run.progress?.message ?? "";
    if (message !== told && message !== "") say(`export: ${message}`);
    told = message;
    await sleep(pollMs);
    made = await api.json<Export>("GET", `/v1/campaigns/${encodeURIComponent(id)}/exports/${made.run.id}`);
  }
  if (made.run.status !== "succeeded") {
    throw new Stop(made.run.failure?.message ?? "The export was cancelled.", exitCodes.refused);
  }
  for (const { compared, reference, same_answers } of made.check?.comparisons ?? []) {
    say(`checked: ${compared} answers as ${reference} on ${same_answers} of ${made.check?.rows} rows`);
  }
  const query = new URLSearchParams({ form: made.form, archive: options.archive });
  if (options.includeBase !== undefined) query.set("include_base", String(options.includeBase));
  return { path: `/v1/campaigns/${encodeURIComponent(id)}/model?${query}`, made };
}
