/** Following a campaign to its end, from the start of a command to its exit code. */
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { duration, outcomeText } from "./show.js";
import { type Screen, watch } from "./watch.js";

/** Prints what came of it. Throws Stop on Ctrl-C: the campaign goes on, whoever watches. */
export async function follow(id: string, screen: Screen, { api, print, note, json }: CommandContext): Promise<void> {
  const began = performance.now();
  const { campaign, iterations } = await interruptible(id, screen, watch(api(), id, screen));
  const { status, failure } = campaign.run;
  if (status === "succeeded") {
    print({ ...campaign, iterations }, () => outcomeText(campaign, iterations));
    note(`Done after ${duration((performance.now() - began) / 1_000)}. Next: tutelage report ${id} --out report.html`);
    return;
  }
  if (json()) print({ ...campaign, iterations }, () => "");
  if (status === "budget_exhausted") {
    note(
      `The budget is exhausted. ${campaign.run.rest?.message ?? ""} "tutelage campaigns update ${id}" raises a cap.`,
    );
    process.exitCode = exitCodes.failed;
    return;
  }
  note(
    status === "failed" ? `The campaign failed (${failure?.code}): ${failure?.message}` : "The campaign was cancelled.",
  );
  process.exitCode = exitCodes.failed;
}

async function interruptible<Result>(id: string, screen: Screen, watching: Promise<Result>): Promise<Result> {
  let interrupt = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = () => {
      if (screen.isTerminal) screen.write("\n");
      const how = `"tutelage watch ${id}" follows it again, "tutelage campaigns cancel ${id}" stops it`;
      reject(new Stop(`Stopped watching; the campaign goes on: ${how}.`, exitCodes.interrupted, { campaign_id: id }));
    };
  });
  process.once("SIGINT", interrupt);
  try {
    return await Promise.race([watching, interrupted]);
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
}
