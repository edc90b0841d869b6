/**
 * The demo: examples/support-intents from seed rows to a better student, on
 * the embedded models. What it made stays until the next demo.
 */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { crossedBootstrap, mean } from "@tutelage/platform/bootstrap";
import { percent, table } from "tutelage/show";
import { HomeInUse, lockHome } from "./homelock.js";
import { gemmaNotice } from "./notice.js";
import { erasePostgres } from "./postgres.js";
import { type Stack, startStack } from "./stack.js";
import { type CampaignView, call, type Iteration, type LabelledRow, runTrial, type Trial } from "./trial.js";

const example = fileURLToPath(new URL("../../../examples/support-intents/", import.meta.url));
const tries = [
  "My invoice shows two charges for the same month",
  "it was locked to the railings last night and now there is only the front wheel",
];

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    seeds: { type: "string", default: "1" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (options.help) {
  process.stdout.write(`npm run demo -- [--json] [--seeds N]

Sets up what is missing, then runs a whole LLM2LLM campaign on this machine:
64 seed messages of a support desk, a 135-million-parameter student, a
270-million-parameter teacher. About fourteen minutes on two idle cores. Server and
student stay in TUTELAGE_HOME/demo (by default ~/.tutelage/demo) until the next demo.

  --json      one JSON line at the end of standard output, progress on standard error
  --seeds N   N campaigns that differ in their random seed, and the interval of the gain over all of them
`);
  process.exit(0);
}
const seeds = Number(options.seeds);
if (!Number.isInteger(seeds) || seeds < 1 || seeds > 50) {
  process.stderr.write(`--seeds is ${options.seeds}; it must be a whole number from 1 to 50.\n`);
  process.exit(64);
}

/** Progress goes to standard error under --json, so that standard output is the result alone. */
const say = (line: string) => (options.json ? process.stderr : process.stdout).write(`${line}\n`);

async function main(): Promise<void> {
  const task = JSON.parse(await readFile(join(example, "task.json"), "utf8")) as object;
  const rows: LabelledRow[] = [];
  for (const [file, split] of [
    ["seed", "train"],
    ["dev", "dev"],
    ["test", "test"],
  ] as const) {
    const lines = (await readFile(join(example, `${file}.jsonl`), "utf8")).trim().split("\n");
    for (const line of lines) rows.push({ ...(JSON.parse(line) as { input: string; output: string }), split });
  }
  const home = join(process.env.TUTELAGE_HOME ?? join(homedir(), ".tutelage"), "demo");
  const startedAt = performance.now();
  say(`${gemmaNotice}\n`);
  const interrupted = new AbortController();
  let stack: Stack | undefined;
  let ending = false;
  const end = async (code: number) => {
    if (ending) return;
    ending = true;
    interrupted.abort();
    await stack?.stop();
    process.exit(code);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void end(130));
  try {
    await emptyHome(home);
    say("Starting Postgres, the student and six services …");
    const started = await startStack({
      home,
      httpPort: 0,
      onEvent: (line) => say(`  ${line}`),
      signal: interrupted.signal,
    });
    stack = started;
    const stackSeconds = (performance.now() - startedAt) / 1000;
    say(`Ready at ${started.url} (API documentation at ${started.url}/docs).\n`);
    const trials: Trial[] = [];
    for (let seed = 1; seed <= seeds; seed += 1) {
      if (seeds > 1) say(`Campaign ${seed} of ${seeds}`);
      const trial = await runTrial(
        started,
        {
          name: `support-intents-${seed}`,
          rows,
          task,
          settings: { seed, iterations: 3, arms: ["none_all"] },
          studentProfile: "smollm2-135m",
          teacherProfile: "gemma3-270m",
        },
        progressPrinter(),
      );
      trials.push(trial);
      say(`\n${outcomeTable(trial)}\n\n${trial.outcome.summary}\n`);
    }
    const [first] = trials;
    if (first === undefined) throw new Error("No campaign ran.");
    await showTheStudent(started.url, home, first);
    const result = summary(trials, Number(process.env.TUTELAGE_SETUP_SECONDS ?? 0) + stackSeconds);
    if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    else if (result.gain !== undefined) {
      say(
        `Gain over ${seeds} campaigns: ${percent(result.gain)} (95 % interval ${result.gain_ci95?.map(percent).join(" to ")}).`,
      );
    }
    await end(0);
  } catch (error) {
    if (!ending) {
      const where = error instanceof HomeInUse ? "" : `\nLogs: ${join(home, "logs")}`;
      process.stderr.write(`The demo stopped: ${(error as Error).message}${where}\n`);
    }
    await end(1);
  }
}

/** Prints what the campaign does, a line when the phase changes and one for each iteration that ends. */
function progressPrinter(): (campaign: CampaignView, iterations: Iteration[]) => void {
  let lastPhase = "";
  let ended = 0;
  const startedAt = performance.now();
  return (campaign, iterations) => {
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    const phase = `iteration ${campaign.iteration}: ${campaign.phase}`;
    if (phase !== lastPhase && campaign.phase !== "") say(`  ${String(seconds).padStart(4)} s  ${phase}`);
    lastPhase = phase;
    const etaMinutes = Math.round((campaign.run.progress?.eta_seconds ?? 0) / 60);
    for (const one of iterations.slice(ended)) {
      say(
        `  ${String(seconds).padStart(4)} s  iteration ${one.number} done: ${one.train_rows} rows, ${one.errors} errors, ` +
          `${one.accepted} of ${one.candidates} candidates accepted, dev ${percent(one.dev_accuracy?.value)}` +
          (etaMinutes > 0 ? `; about ${etaMinutes} min left` : ""),
      );
    }
    ended = iterations.length;
  };
}

function withInterval(one: { value: number; ci95_low: number; ci95_high: number } | undefined): string {
  return one === undefined ? "–" : `${percent(one.value)} (${percent(one.ci95_low)} to ${percent(one.ci95_high)})`;
}

/** The campaign as a table for a person. */
function outcomeTable({ iterations, outcome }: Trial): string {
  const header = [
    "iteration",
    "rows",
    "errors",
    "accepted",
    "rejected",
    "dev accuracy (95 % interval)",
    "test accuracy (95 % interval)",
    "seconds",
  ];
  const lines = iterations.map((one) => [
    String(one.number) + (one.number === outcome.chosen_iteration ? " *" : ""),
    String(one.train_rows),
    one.mined ? String(one.errors) : "–",
    String(one.accepted),
    String(one.candidates - one.accepted),
    withInterval(one.dev_accuracy),
    withInterval(one.test_accuracy),
    one.seconds.toFixed(0),
  ]);
  const arms = [outcome.baseline, ...outcome.other_arms].map((arm) => [
    arm.name,
    String(arm.train_rows),
    "",
    "",
    "",
    "",
    withInterval(arm.test_accuracy),
    "",
  ]);
  return table(header, [...lines, ...arms]);
}

/** Asks the returned student a few things, as a user would. */
async function showTheStudent(url: string, home: string, { campaign }: Trial): Promise<void> {
  const path = `/v1/campaigns/${campaign.run.id}/predict`;
  const { predictions } = await call<{ predictions: { text: string; log_probability: number }[] }>(
    { url },
    "POST",
    path,
    { inputs: tries },
  );
  say("It answers:");
  predictions.forEach((one, index) => {
    say(`  ${tries[index]} → ${one.text} (${percent(Math.exp(one.log_probability))} sure)`);
  });
  say(`
Ask it yourself: start the server on what the demo left, and in another shell ask.
  TUTELAGE_HOME=${home} npm start
  npx tutelage predict ${campaign.run.id} "${tries[0]}"
  npx tutelage report ${campaign.run.id} --out report.html
`);
}

/** Removes what an earlier demo left, all but the converted model. Throws HomeInUse while one runs there. */
async function emptyHome(home: string): Promise<void> {
  await mkdir(home, { recursive: true });
  const lock = await lockHome(home);
  try {
    await erasePostgres(home);
    for (const name of await readdir(home)) {
      if (name !== "models" && name !== "stack.lock") await rm(join(home, name), { recursive: true, force: true });
    }
  } finally {
    await lock.release();
  }
}

/** What the demo found, as one object: means over the campaigns, the longest time. Accuracies and gains are fractions. */
function summary(trials: readonly Trial[], setupSeconds: number) {
  const [first] = trials;
  if (first === undefined) throw new Error("No campaign ran.");
  const of = (one: (trial: Trial) => number) => mean(trials.map(one));
  const arm = (name: "baseline" | "final") => ({
    accuracy: of((one) => one.outcome[name].test_accuracy?.value ?? 0),
    n: first.outcome[name].test_accuracy?.n ?? 0,
  });
  const differences = trials.map(({ correct }) =>
    (correct.campaign ?? []).map((final, row) => Number(final) - Number(correct.plain?.[row] ?? false)),
  );
  const estimate = trials.length > 1 ? crossedBootstrap(differences) : undefined;
  const { gain } = first.outcome;
  return {
    baseline: arm("baseline"),
    final: arm("final"),
    none_all: {
      accuracy: of(
        ({ outcome }) => outcome.other_arms.find((one) => one.name === "none_all")?.test_accuracy?.value ?? 0,
      ),
    },
    test_rows: gain?.n ?? 0,
    iterations: of((one) => one.iterations.length - 1),
    chosen_iterations: trials.map((one) => one.outcome.chosen_iteration),
    plain_returned: trials.filter((one) => one.outcome.plain_returned).length,
    teacher_calls: of((one) => one.campaign.usage?.calls ?? 0),
    accepted: of((one) => one.iterations.reduce((sum, iteration) => sum + iteration.accepted, 0)),
    rejected: of((one) =>
      one.iterations.reduce((sum, iteration) => sum + iteration.candidates - iteration.accepted, 0),
    ),
    gain: estimate?.mean ?? gain?.gain,
    gain_ci95: estimate?.ci95 ?? ([gain?.ci95_low, gain?.ci95_high] as [number, number]),
    gain_by_seed: trials.map((one) => one.outcome.gain?.gain),
    seeds: trials.length,
    wall_seconds: Math.max(...trials.map((one) => one.outcome.wall_seconds)),
    setup_seconds: setupSeconds,
  };
}

await main();
