/** `tutelage export`: the student as an archive or a folder. */
import { createWriteStream } from "node:fs";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { extract } from "tar-stream";
import type { Api } from "./api.js";
import { exitCodes, Stop } from "./exit.js";

export type Form = "adapter" | "merged";

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

/** Unpacks a tar archive of one folder as `out`; nothing half-written is left under that name. */
export async function unpack(body: Readable, out: string): Promise<string[]> {
  const taken = await access(out).then(
    () => true,
    () => false,
  );
  if (taken) throw new Stop(`${out} is there already; remove it, or name another with --out.`, exitCodes.noInput);
  const partial = `${out}.partial`;
  await rm(partial, { recursive: true, force: true });
  const names: string[] = [];
  const archive = extract();
  const reading = pipeline(body, archive);
  reading.catch(() => {});
  try {
    for await (const entry of archive) {
      // The first part is the campaign's name; the folder has the name that was asked for.
      const parts = entry.header.name.split("/").slice(1);
      if (parts.length === 0 || parts.some((part) => part === "" || part === "." || part === "..")) {
        throw new Stop(`The archive holds a strange name: ${entry.header.name}`, exitCodes.refused);
      }
      const path = join(partial, ...parts);
      await mkdir(dirname(path), { recursive: true });
      await pipeline(entry as unknown as Readable, createWriteStream(path));
      names.push(parts.join("/"));
    }
    await reading;
    await rename(partial, out);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
  return names;
}
