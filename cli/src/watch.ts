/** Following a campaign: a live line in a terminal, plain lines elsewhere. Ending it never stops the campaign. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Api, Campaign, Iteration } from "./api.js";
import { duration, iterationLine, money, visible } from "./show.js";

const lookMs = 1_000;
const barCells = 20;

/** Where progress goes: standard error, so that standard output is the result alone. */
export interface Screen {
  isTerminal: boolean;
  columns: number;
  write(text: string): void;
}

/** Waits for the end, whatever it is. */
export async function watch(
  api: Api,
  id: string,
  screen: Screen,
): Promise<{ campaign: Campaign; iterations: Iteration[] }> {
  let told = 0;
  let lastPhase = "";
  const line = (text: string) => screen.write(`${screen.isTerminal ? "\r\x1b[2K" : ""}${text}\n`);
  for (;;) {
    const campaign = await api.json<Campaign>("GET", `/v1/campaigns/${encodeURIComponent(id)}`);
    const { iterations } = await api.json<{ iterations: Iteration[] }>(
      "GET",
      `/v1/campaigns/${encodeURIComponent(id)}/iterations`,
    );
    for (const one of iterations.slice(told)) line(iterationLine(one));
    told = iterations.length;
    const { status } = campaign.run;
    // Nobody may be there to raise a cap: a script that waits must hear of it.
    if (["succeeded", "failed", "cancelled", "budget_exhausted"].includes(status)) {
      if (screen.isTerminal) screen.write("\r\x1b[2K");
      return { campaign, iterations };
    }
    const wait = campaign.teacher_wait && `, ${waitText(campaign.teacher_wait)}`;
    const doing = `iteration ${campaign.iteration}, ${campaign.phase || status}${wait ?? ""}`;
    const phase = isGoing(status) ? doing : status;
    if (screen.isTerminal) screen.write(`\r\x1b[2K${visible(liveLine(campaign)).slice(0, screen.columns - 1)}`);
    else if (phase !== lastPhase) line(phase);
    lastPhase = phase;
    await sleep(lookMs);
  }
}

/** Whether it does what its phase says. */
function isGoing(status: Campaign["run"]["status"]): boolean {
  return status === "queued" || status === "running";
}

/** Bar, what it does now, time left, what it cost. Pure. */
export function liveLine({ run, iteration, phase, usage, teacher_wait }: Campaign): string {
  const { done = 0, total = 0, eta_seconds = 0, message = "" } = run.progress ?? {};
  const cells = total === 0 ? 0 : Math.min(barCells, Math.round((done / (total + 1)) * barCells));
  const bar = "█".repeat(cells) + "░".repeat(barCells - cells);
  // "iteration/0/train: 12/60 steps, 5 s left; …": the phase says the rest.
  const details = message.split("; ").map((part) => part.slice(part.indexOf(":") + 1).trim());
  const detail = message.includes(":") ? details.join("; ") : "";
  const parts = [
    `${bar} iteration ${iteration}/${total}`,
    doingText(run.status, teacher_wait, phase, detail),
    eta_seconds > 0 ? `about ${duration(eta_seconds)} left` : "",
    usage === undefined || usage.calls === 0 ? "" : `${usage.calls} teacher calls`,
    usage === undefined || usage.cost_micro_usd === 0 ? "" : money(usage.cost_micro_usd),
  ];
  return parts.filter(Boolean).join(" · ");
}

/** What a campaign says whose teacher is away; it goes on by itself. */
function waitText({ profile, message }: NonNullable<Campaign["teacher_wait"]>): string {
  return `waiting for teacher "${profile}": ${message}`;
}

/** What it does now; a campaign that rests says that and nothing else. */
function doingText(
  status: Campaign["run"]["status"],
  wait: Campaign["teacher_wait"],
  phase: string,
  detail: string,
): string {
  if (!isGoing(status)) return status;
  return wait === undefined ? [phase || status, detail].filter(Boolean).join(" ") : waitText(wait);
}
