/** tutelage tasks …: presets and the project's own tasks, which a campaign can name. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { parse, stringify } from "yaml";
import type { Api } from "./api.js";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { table } from "./show.js";
import type { CampaignSpec, TaskSpec } from "./spec.js";

interface StoredTask {
  task: { name: string; kind: string; labels: { name: string }[] };
  preset: boolean;
  description: string;
}

export function addTaskCommands(program: Command, { api, print }: CommandContext): void {
  const tasks = program
    .command("tasks")
    .description("list, get, put, delete: what a campaign.yaml can name as its task");

  tasks.command("list").action(async () => {
    const { tasks: all } = await api().json<{ tasks: StoredTask[] }>("GET", "/v1/tasks");
    print(all, () =>
      table(
        ["name", "kind", "labels", ""],
        all.map(({ task, preset, description }) => [
          task.name,
          task.kind,
          task.labels.map(({ name }) => name).join(", "),
          preset ? description : "your own",
        ]),
      ),
    );
  });

  tasks
    .command("get <name>")
    .description("one task, as YAML to copy into a campaign.yaml or to change and put")
    .action(async (name: string) => {
      const stored = await api().json<StoredTask>("GET", `/v1/tasks/${encodeURIComponent(name)}`);
      print(stored, () => stringify(stored.task, { lineWidth: 0 }).trimEnd());
    });

  tasks
    .command("put <file>")
    .description("store the task of a YAML or JSON file under the name in it")
    .action(async (file: string) => {
      const task = await readTask(file);
      const stored = await api().json<StoredTask>("PUT", `/v1/tasks/${encodeURIComponent(task.name)}`, task);
      print(stored, () => `Stored; a campaign.yaml can say  task: ${task.name}`);
    });

  tasks.command("delete <name>").action(async (name: string) => {
    await api().delete(`/v1/tasks/${encodeURIComponent(name)}`);
    print({ deleted: name }, () => `${name}: deleted`);
  });
}

/** A task of a campaign.yaml as it stands, or the server's of that name. What its kind has not is left out. */
export async function wholeTask(api: Pick<Api, "json">, task: CampaignSpec["task"]): Promise<TaskSpec> {
  if (typeof task !== "string") return task;
  const stored = await api.json<{ task: TaskSpec }>("GET", `/v1/tasks/${encodeURIComponent(task)}`);
  const { labels = [], fields = [], ...rest } = stored.task;
  return Object.assign(rest, labels.length > 0 && { labels }, fields.length > 0 && { fields });
}

/** What is in it is the server's to check; without a name there is no path to send it to. */
async function readTask(file: string): Promise<{ name: string }> {
  const text = await readFile(file, "utf8").catch(() => {
    throw new Stop(`There is no file ${file}.`, exitCodes.noInput);
  });
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new Stop(`${file}: ${(error as Error).message}`, exitCodes.refused);
  }
  const name = (value as { name?: unknown } | null)?.name;
  if (typeof name !== "string" || name === "") throw new Stop(`${file}: give the task a "name".`, exitCodes.refused);
  return value as { name: string };
}
