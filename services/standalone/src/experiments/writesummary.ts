/** npm run experiment -- summary: results and notes to docs/results.md. */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { readResults } from "./resultfile.js";
import { resultsPage } from "./resultspage.js";
import { summarize, type TaskSummary } from "./summary.js";

/** Writes the page. Gives what it says as data, by experiment. */
export async function writeSummary(options: {
  results: string;
  notes: string;
  out: string;
  say: (line: string) => void;
}): Promise<Record<string, TaskSummary>> {
  const { results, notes, out, say } = options;
  const read = await readResults(results);
  const tasks = summarize(read);
  await mkdir(dirname(out), { recursive: true });
  await writeFile(out, resultsPage(tasks, await readNotes(notes)));
  say(`Wrote ${relative("", out)} from ${read.length} results of ${Object.keys(tasks).length} experiments.`);
  return tasks;
}

/** NAME.md, by name: what a person has to say about an experiment. */
async function readNotes(folder: string): Promise<Record<string, string>> {
  const files = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(".md"));
  const notes = files.map(async (file) => [file.slice(0, -3), await readFile(join(folder, file), "utf8")] as const);
  return Object.fromEntries(await Promise.all(notes));
}
