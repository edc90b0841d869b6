/**
 * Conformance: whole campaigns on public tasks, against plain fine-tuning with
 * the same number of tries. npm run conformance -- TASK [--replicates N] [--tune] [--json]
 * An experiment's first campaigns, on a server that is gone afterwards.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { crossedBootstrap, mean, standardDeviation } from "../../services/platform/dist/bootstrap.js";
import { defaultDataFolder, drawRows, hasData } from "../../services/standalone/dist/experiments/draw.js";
import { digestOf, readExperiment, variantsOf } from "../../services/standalone/dist/experiments/experimentfile.js";
import { runReplicate } from "../../services/standalone/dist/experiments/replicate.js";
import { meanOf } from "../../services/standalone/dist/experiments/summary.js";
import { startStack } from "../../services/standalone/dist/stack.js";

const tasks = ["trec", "sst2", "snips"];
const usage = `npm run conformance -- TASK [--replicates N] [--tune] [--json] [--settings JSON]

  TASK            ${tasks.join(", ")}
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
if (options.help || !tasks.includes(name) || !Number.isInteger(replicates) || replicates < 1) {
  process.stderr.write(usage);
  process.exit(options.help ? 0 : 64);
}
const experiment = await readExperiment(fileURLToPath(new URL(`../../experiments/${name}.yaml`, import.meta.url)));
const { data, seed_rows } = experiment.experiment;
const draw = { folder: join(defaultDataFolder, data), seedRows: seed_rows, tune: options.tune };
if (!hasData(draw.folder)) {
  process.stderr.write(
    `Skipped: there is no train.jsonl in ${draw.folder}; set TUTELAGE_TASK_DATA to the folder that has ${data}.\n`,
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
  const [{ task }] = variantsOf(experiment, options.tune);
  const results = [];
  for (let replicate = 1; replicate <= replicates; replicate += 1) {
    const settings = {
      ...experiment.settings,
      arms: ["none_matched"],
      // The first draw's plain arm shows how far training seeds alone move it.
      ...(replicate === 1 ? { plain_tries: spreadSeeds } : {}),
      ...JSON.parse(options.settings),
    };
    const result = await runReplicate(
      stack,
      {
        experiment: name,
        student: experiment.student,
        teacher: experiment.teacher,
        variant: { name: "conformance", task, settings, digest: digestOf([task, settings]) },
        number: replicate,
        rows: drawRows(draw, replicate),
        tune: options.tune,
      },
      printer(replicate),
    );
    results.push(result);
    say(
      `Replicate ${replicate}: plain ${show(accuracyOf(result, "none"))}, campaign ${show(accuracyOf(result, "returned"))}, ` +
        `${added(result)} rows added, ${result.wall_seconds.toFixed(0)} s.`,
    );
  }
  const summary = summarize(results);
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  else say(JSON.stringify(summary, undefined, 2));
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

function added({ iterations }) {
  return iterations.reduce((sum, one) => sum + one.accepted, 0);
}

/** Of plain fine-tuning ("none") the mean of its tries, as there are no dev rows to choose one by. */
function accuracyOf({ arms }, arm) {
  return mean(meanOf(arms[arm].students));
}

function summarize(results) {
  const against = (studentsOf) =>
    crossedBootstrap(
      results.map((result) => {
        const other = meanOf(studentsOf(result));
        return meanOf(result.arms.returned.students).map((one, row) => one - other[row]);
      }),
    );
  // No dev rows choose among the plain tries, so their mean is what plain fine-tuning gives; but where the campaign
  // gives the plain student back, it is compared with that very student.
  const gain = against(({ plain_returned, arms }) => arms[plain_returned ? "returned" : "none"].students);
  const overMeanOfTries = against(({ arms }) => arms.none.students);
  const overMatched = against(({ arms }) => arms.none_matched.students);
  const accuracies = (arm) => results.map((result) => accuracyOf(result, arm));
  return {
    task: name,
    replicates: results.length,
    seed_rows,
    test_rows: results[0].test_rows,
    baseline: {
      accuracy: mean(accuracies("none")),
      sd: standardDeviation(results[0].arms.none.students.map((one) => mean(meanOf([one])))),
      by_replicate: accuracies("none"),
    },
    final: { accuracy: mean(accuracies("returned")), by_replicate: accuracies("returned") },
    none_matched: { accuracy: mean(accuracies("none_matched")) },
    gain: gain.mean,
    gain_ci95: gain.ci95,
    // As if a plain student that was given back had been drawn anew: the same mean in the long run, with more noise.
    gain_over_mean_of_tries: overMeanOfTries.mean,
    gain_over_mean_of_tries_ci95: overMeanOfTries.ci95,
    gain_over_none_matched: overMatched.mean,
    gain_over_none_matched_ci95: overMatched.ci95,
    accepted: mean(results.map(added)),
    plain_returned: results.filter(({ plain_returned }) => plain_returned).length,
    chosen_iterations: results.map(({ chosen_iteration }) => chosen_iteration),
    teacher_calls: mean(results.map(({ teacher_usage }) => teacher_usage.calls)),
    wall_seconds: mean(results.map(({ wall_seconds }) => wall_seconds)),
    tuned_on_train_rows: options.tune,
  };
}

function show(accuracy) {
  return `${(accuracy * 100).toFixed(1)} %`;
}
