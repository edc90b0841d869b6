/** tutelage campaigns fork: another campaign that goes on from an iteration of one. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import type { Campaign } from "./api.js";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { wholeNumber } from "./wholenumber.js";

export function addForkCommand(campaigns: Command, { api, print }: Pick<CommandContext, "api" | "print">): void {
  campaigns
    .command("fork <id>")
    .description("go on from an iteration with other settings; what was made before is shared, and not paid again")
    .requiredOption("--iteration <number>", "the first iteration that is the fork's own, from 1", wholeNumber)
    .option("--name <name>", "a name for people")
    .option("--settings <json>", "what changes, e.g. '{\"rows_per_seed_row\": 4}', or @FILE with it")
    .action(async (id: string, given: { iteration: number; name?: string; settings?: string }) => {
      const fork = await api().json<Campaign>("POST", `/v1/campaigns/${encodeURIComponent(id)}/fork`, {
        iteration: given.iteration,
        name: given.name,
        settings: given.settings === undefined ? undefined : await settingsOf(given.settings),
      });
      print(fork, () => fork.run.id);
    });
}

async function settingsOf(text: string): Promise<unknown> {
  const json = text.startsWith("@")
    ? await readFile(text.slice(1), "utf8").catch((error: unknown) => {
        throw new Stop(`--settings: ${error instanceof Error ? error.message : error}`, exitCodes.noInput);
      })
    : text;
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Stop(`--settings is not JSON: ${error instanceof Error ? error.message : error}`, exitCodes.usage);
  }
}
