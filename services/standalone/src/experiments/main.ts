/** npm run experiment: runs or resumes an experiment, or sums up what all of them found. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { HomeInUse } from "../homelock.js";
import { defaultDataFolder } from "./draw.js";
import { NoData, runExperiment } from "./run.js";
import { writeSummary } from "./writesummary.js";

const repository = fileURLToPath(new URL("../../../../", import.meta.url));
const experiments = join(repository, "experiments");

const usage = `npm run experiment -- NAME [options]     run experiments/NAME.yaml, or go on where it stopped
npm run experiment -- summary [options]  write docs/results.md from experiments/results

NAME may also be a path that ends in .yaml. A campaign that has a result is not run again; one that was under way goes on.

  --replicates N   replicates 1 to N, instead of as many as the file says
  --variants A,B   only these of its variants ("default" is the campaign as it stands)
  --tune           draw test rows from train.jsonl too, to choose settings by; results go to experiments/tuning
  --data DIR       folder of the tasks' data (TUTELAGE_TASK_DATA, else ../shared/data)
  --home DIR       where the server keeps its data (default ~/.tutelage/experiments)
  --results DIR    folder of results (default experiments/results; with --tune experiments/tuning)
  --out FILE       page that summary writes (default docs/results.md; with --tune experiments/tuning/results.md)
  --json           one JSON line at the end of standard output, progress on standard error
`;

const { values: options, positionals } = read();

function read() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        replicates: { type: "string" },
        variants: { type: "string" },
        tune: { type: "boolean", default: false },
        data: { type: "string", default: defaultDataFolder },
        home: {
          type: "string",
          default: join(process.env.TUTELAGE_HOME ?? join(homedir(), ".tutelage"), "experiments"),
        },
        results: { type: "string" },
        out: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function refuse(message: string): never {
  process.stderr.write(`${message}\n\n${usage}`);
  process.exit(64);
}

const say = (line: string) => (options.json ? process.stderr : process.stdout).write(`${line}\n`);
const [name = ""] = positionals;
if (options.help) {
  process.stdout.write(usage);
  process.exit(0);
}
if (positionals.length !== 1) refuse("Name one experiment, or summary.");
const results = resolve(options.results ?? join(experiments, options.tune ? "tuning" : "results"));
const page = options.tune ? join(experiments, "tuning/results.md") : join(repository, "docs/results.md");

try {
  if (name === "summary") {
    const tasks = await writeSummary({
      results,
      notes: join(experiments, "notes"),
      out: resolve(options.out ?? page),
      say,
    });
    if (options.json) process.stdout.write(`${JSON.stringify({ tasks })}\n`);
  } else {
    const stopping = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stopping.abort());
    const done = await runExperiment({
      file: fileOf(name),
      replicates: wholeNumber(options.replicates),
      variants: options.variants?.split(","),
      tune: options.tune,
      data: resolve(options.data),
      home: resolve(options.home),
      results,
      say,
      signal: stopping.signal,
    });
    if (options.json) process.stdout.write(`${JSON.stringify(done)}\n`);
    process.exit(stopping.signal.aborted ? 130 : 0);
  }
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  if (!(error instanceof HomeInUse) && !(error instanceof NoData)) {
    process.stderr.write("The same command goes on from there.\n");
  }
  process.exit(error instanceof NoData ? 66 : 1);
}

function fileOf(name: string): string {
  if (name.endsWith(".yaml")) return resolve(name);
  const file = join(experiments, `${name}.yaml`);
  if (!existsSync(file)) refuse(`There is no experiment "${name}" in ${experiments}.`);
  return file;
}

function wholeNumber(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,3}$/.test(text)) refuse(`--replicates is ${text}; it must be a whole number from 1 to 9999.`);
  return Number(text);
}
