/** tutelage campaigns pause, resume, cancel, retry: what is asked of a campaign, and what came of it. */
import type { Command } from "commander";
import type { Campaign } from "./api.js";
import type { CommandContext } from "./context.js";

const controls = [
  ["pause", "begin nothing new and rest; what is under way ends, and what is paid for is kept"],
  ["resume", "let a campaign go on that rests"],
  ["cancel", "ask a campaign to stop; one that has ended stays as it is, and is said to be"],
  ["retry", "let a failed campaign go on from the step that failed, with what it has"],
] as const;

export function addControlCommands(campaigns: Command, { api, print }: Pick<CommandContext, "api" | "print">): void {
  for (const [action, description] of controls) {
    campaigns
      .command(`${action} <id>`)
      .description(description)
      .action(async (id: string) => {
        const campaign = await api().json<Campaign>("POST", `/v1/campaigns/${encodeURIComponent(id)}/${action}`, {});
        print(campaign, () => `${id}: ${controlText(campaign)}`);
      });
  }
}

/** Where the campaign stands after it was asked. */
function controlText({ run: { status, rest } }: Campaign): string {
  switch (status) {
    case "cancelled":
      return "cancelled";
    case "succeeded":
    case "failed":
      return `has ${status} already; there is nothing to cancel`;
    case "cancelling":
      return "is cancelling, and will have stopped within seconds";
    case "pausing":
      return "is pausing: what is under way ends first";
    case "paused":
      return `is paused. ${rest?.message ?? ""}`.trim();
    case "budget_exhausted":
      return `rests, as its budget is exhausted. ${rest?.message ?? ""}`.trim();
    default:
      return `is ${status}`;
  }
}
