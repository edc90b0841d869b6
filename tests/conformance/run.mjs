/**
 * Conformance: whole campaigns on public tasks, against plain fine-tuning with
 * the same number of tries. npm run conformance -- TASK [--replicates N] [--tune] [--json]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { crossedBootstrap, mean, standardDeviation } from "../../services/standalone/dist/bootstrap.js";
import { startStack } from "../../services/standalone/dist/stack.js";
import { runTrial } from "../../services/standalone/dist/trial.js";
import { dataFolder, drawRows, hasData } from "./draw.mjs";
import { tasks } from "./tasks.mjs";

const usage = `npm run conformance -- TASK [--replicates N] [--tune] [--json] [--settings JSON]

  TASK            ${Object.keys(tasks).join(", ")}
  --replicates N  campaigns, each on another draw of seed rows and another seed (default 5)
  --tune          test on 500 other rows of train.jsonl instead of dev.jsonl: choose settings only with this
  --settings JSON campaign settings to try, e.g. '{"iterations": 2}'
  --json          one JSON line at the end of standard output, progress on standard error
`;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    replicates: { type: "string", default: "5" },
    tune: { type: "boolean", default: false },
    settings: { type: "string", default: "{}" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});
const [name] = positionals;
const replicates = Number(options.replicates);
if (options.help || tasks[name] === undefined || !Number.isInteger(replicates) || replicates < 1) {
  process.stderr.write(usage);
  process.exit(options.help ? 0 : 64);
}
if (!hasData(name)) {
  process.stderr.write(
    `Skipped: there is no ${name}/train.jsonl in ${dataFolder}; set TUTELAGE_TASK_DATA to the folder that has it.\n`,
  );
  process.exit(0);
}
const say = (line) => (options.json ? process.stderr : process.stdout).write(`${line}\n`);

/** Training seeds of the plain arm on one fixed draw, for its spread. */
const spreadSeeds = 5;

const home = await mkdtemp(join(tmpdir(), "tutelage-conformance-"));
const interrupted = new AbortController();
let stack;
const stop = async (code) => {
  interrupted.abort();
  await stack?.stop();
  await rm(home, { recursive: true, force: true });
  process.exit(code);
};
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void stop(130));
stack = await startStack({
  home,
  httpPort: 0,
  temporary: true,
  onEvent: (line) => say(`  ${line}`),
  signal: interrupted.signal,
});

try {
  const { task, seedRows } = tasks[name];
  const trials = [];
  for (let replicate = 1; replicate <= replicates; replicate += 1) {
    const rows = drawRows(name, seedRows, replicate, options.tune);
    const trial = await runTrial(
      stack,
      {
        name: `${name}-${replicate}`,
        rows,
        task,
        settings: {
          seed: replicate,
          arms: ["none_matched"],
          // The first draw's plain arm shows how far training seeds alone move it.
          ...(replicate === 1 ? { plain_tries: spreadSeeds } : {}),
          ...JSON.parse(options.settings),
        },
        studentProfile: "smollm2-135m",
        teacherProfile: "gemma3-270m",
      },
      printer(replicate),
    );
    trials.push(trial);
    const { outcome, iterations } = trial;
    say(
      `Replicate ${replicate}: plain ${show(plainAccuracy(trial))}, campaign ${show(outcome.final.test_accuracy.value)}, ` +
        `${iterations.reduce((sum, one) => sum + one.accepted, 0)} rows added, ${outcome.wall_seconds.toFixed(0)} s. ${outcome.summary}`,
    );
  }
  const result = summarize(trials);
  if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else say(JSON.stringify(result, undefined, 2));
  await stop(0);
} catch (error) {
  process.stderr.write(`Stopped: ${error.message}\n`);
  await stop(1);
}

function printer(replicate) {
  let last = "";
  return (campaign) => {
    const now = `${campaign.iteration} ${campaign.phase}`;
    if (now !== last && campaign.phase !== "")
      say(`  replicate ${replicate}, iteration ${campaign.iteration}: ${campaign.phase}`);
    last = now;
  };
}

/** Plain fine-tuning's accuracy: the mean of its tries, as there are no dev rows to choose one by. */
function plainAccuracy({ outcome }) {
  return mean(outcome.baseline.tries_test_accuracy.map((one) => one.value));
}

function summarize(trials) {
  const against = (armOf) =>
    crossedBootstrap(
      trials.map((trial) => trial.correct.campaign.map((one, row) => one - trial.correct[armOf(trial)][row])),
    );
  // No dev rows choose among the plain tries, so their mean is what plain fine-tuning gives; but where the campaign
  // gives the plain student back, it is compared with that very student.
  const gain = against(({ outcome }) => (outcome.plain_returned ? "plain" : "plain_tries"));
  const overMeanOfTries = against(() => "plain_tries");
  const overMatched = against(() => "none_matched");
  const accuracies = (arm) => trials.map(({ correct }) => mean(correct[arm]));
  return {
    task: name,
    replicates: trials.length,
    seed_rows: tasks[name].seedRows,
    test_rows: trials[0].correct.plain_tries.length,
    baseline: {
      accuracy: mean(trials.map(plainAccuracy)),
      sd: standardDeviation(trials[0].outcome.baseline.tries_test_accuracy.map((one) => one.value)),
      by_replicate: trials.map(plainAccuracy),
    },
    final: { accuracy: mean(accuracies("campaign")), by_replicate: accuracies("campaign") },
    none_matched: { accuracy: mean(accuracies("none_matched")) },
    gain: gain.mean,
    gain_ci95: gain.ci95,
    // As if a plain student that was given back had been drawn anew: the same mean in the long run, with more noise.
    gain_over_mean_of_tries: overMeanOfTries.mean,
    gain_over_mean_of_tries_ci95: overMeanOfTries.ci95,
    gain_over_none_matched: overMatched.mean,
    gain_over_none_matched_ci95: overMatched.ci95,
    accepted: mean(trials.map(({ iterations }) => iterations.reduce((sum, one) => sum + one.accepted, 0))),
    plain_returned: trials.filter(({ outcome }) => outcome.plain_returned).length,
    chosen_iterations: trials.map(({ outcome }) => outcome.chosen_iteration),
    teacher_calls: mean(trials.map(({ campaign }) => campaign.usage.calls)),
    wall_seconds: mean(trials.map(({ outcome }) => outcome.wall_seconds)),
    tuned_on_train_rows: options.tune,
  };
}

function show(accuracy) {
  return `${(accuracy * 100).toFixed(1)} %`;
}
