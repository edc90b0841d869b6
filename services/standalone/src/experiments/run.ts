/** Runs the campaigns of an experiment that have no result yet, one after the other, on a server of its own. */
import { mkdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { duration, percent } from "tutelage/show";
import { type Stack, startStack } from "../stack.js";
import type { CampaignView } from "../trial.js";
import { type Draw, drawRows, hasData, unusedRows } from "./draw.js";
import {
  digestOf,
  type Experiment,
  oracleProfile,
  readExperiment,
  type Variant,
  variantsOf,
} from "./experimentfile.js";
import { type Oracle, startOracle, withOracle } from "./oracle.js";
import { runReplicate } from "./replicate.js";
import { type Result, readResult, resultPath, writeResult } from "./resultfile.js";

export interface RunOptions {
  file: string;
  /** Instead of as many as the file says. */
  replicates: number | undefined;
  /** All when undefined. */
  variants: string[] | undefined;
  tune: boolean;
  /** Folder of the tasks' data. */
  data: string;
  home: string;
  results: string;
  say: (line: string) => void;
  /** Ends the run; the same call goes on from there. */
  signal: AbortSignal;
}

export interface RunDone {
  experiment: string;
  /** Results that this call wrote. */
  written: string[];
  /** Results that were there already. */
  kept: number;
}

/** Thrown where the task's data is missing. */
export class NoData extends Error {}

interface Job {
  variant: Variant;
  replicate: number;
  path: string;
}

/** Throws what a campaign failed of, and where a result was made with other settings. */
export async function runExperiment(options: RunOptions): Promise<RunDone> {
  const { say, signal } = options;
  const experiment = await readExperiment(options.file);
  const draw = drawOf(experiment, options);
  const all = variantsOf(experiment, options.tune);
  // Tuning tries many settings: each has its results by itself.
  const name = options.tune ? `${experiment.name}-${digestOf(all).slice(0, 8)}` : experiment.name;
  const replicates = options.replicates ?? experiment.experiment.replicates;
  const { jobs, kept } = await jobsOf(name, chosen(all, options.variants), replicates, options.results);
  const done: RunDone = { experiment: name, written: [], kept: kept.length };
  if (jobs.length === 0) {
    say(`${name}: all ${kept.length} campaigns have their results.`);
    return done;
  }
  say(`${name}: ${jobs.length} campaigns to run, ${kept.length} have their results.`);
  await mkdir(options.home, { recursive: true });
  let oracle: Oracle | undefined;
  let stack: Stack | undefined;
  try {
    const environment: NodeJS.ProcessEnv = {};
    if (jobs.some(({ variant }) => asksOracle(variant))) {
      // As many replicates as the file says, so that fewer of them get the same replies.
      const planned = Math.max(replicates, experiment.experiment.replicates);
      oracle = await startOracle(unusedRows(draw, planned));
      environment.TEACHER_PROFILES = await withOracle(options.home, oracle.url, process.env.TEACHER_PROFILES);
    }
    stack = await startStack({
      home: options.home,
      httpPort: 0,
      environment,
      // What starts and stops on request is no news.
      onEvent: (line, { type }) => {
        if (type !== "started" && type !== "stopped" && !signal.aborted) say(`  ${line}`);
      },
      signal,
    });
    const clock = new Clock(kept);
    const stopped = aborted(signal);
    stopped.catch(() => {});
    for (const [index, { variant, replicate, path }] of jobs.entries()) {
      const began = performance.now();
      const result = await Promise.race([
        runReplicate(
          stack,
          {
            experiment: name,
            student: experiment.student,
            teacher: experiment.teacher,
            variant,
            number: replicate,
            rows: drawRows(draw, replicate),
            tune: options.tune,
          },
          progress(`${variant.name} ${replicate}`, say, (eta) => clock.left(jobs.slice(index), eta, began)),
        ),
        stopped,
      ]);
      clock.note(variant.name, (performance.now() - began) / 1000);
      await writeResult(path, result);
      done.written.push(path);
      say(`${told(result)} Wrote ${relative("", path)}.`);
    }
    return done;
  } catch (error) {
    if (!signal.aborted) throw error;
    say("Stopped. The same command goes on from here.");
    return done;
  } finally {
    await stack?.stop();
    await oracle?.stop();
  }
}

function drawOf({ experiment }: Experiment, { data, tune }: RunOptions): Draw {
  const folder = join(data, experiment.data);
  if (!hasData(folder)) {
    throw new NoData(
      `There is no train.jsonl in ${folder}; name the folder that has it with --data or TUTELAGE_TASK_DATA.`,
    );
  }
  return { folder, seedRows: experiment.seed_rows, testRows: experiment.test_rows, tune };
}

function chosen(all: Variant[], names: string[] | undefined): Variant[] {
  const unknown = names?.find((name) => !all.some((one) => one.name === name));
  if (unknown !== undefined) {
    throw new Error(`There is no variant "${unknown}"; there are ${all.map(({ name }) => name).join(", ")}.`);
  }
  return names === undefined ? all : all.filter(({ name }) => names.includes(name));
}

function asksOracle({ settings }: Variant): boolean {
  return settings.oracle_teacher_profile === oracleProfile;
}

/** A replicate's variants one after the other, so that what is there at any time is of the same replicates. */
async function jobsOf(
  experiment: string,
  variants: readonly Variant[],
  replicates: number,
  results: string,
): Promise<{ jobs: Job[]; kept: Result[] }> {
  const jobs: Job[] = [];
  const kept: Result[] = [];
  for (let replicate = 1; replicate <= replicates; replicate += 1) {
    for (const variant of variants) {
      const path = resultPath(results, experiment, variant.name, replicate);
      const result = await readResult(path);
      if (result === undefined) jobs.push({ variant, replicate, path });
      else if (result.asked_digest === variant.digest) kept.push(result);
      else throw new Error(`${path} was made with other settings than the file now has; move it away to run it again.`);
    }
  }
  return { jobs, kept };
}

/** Says each change of phase, with what is left in all. */
function progress(what: string, say: (line: string) => void, left: (etaSeconds: number | undefined) => string) {
  let last = "";
  return ({ iteration, phase, run }: CampaignView) => {
    const now = `${iteration} ${phase} ${run.status}`;
    if (now === last || phase === "") return;
    last = now;
    say(
      `  ${what}: iteration ${iteration}, ${phase}${run.status === "running" ? "" : ` (${run.status})`}${left(run.progress?.eta_seconds)}`,
    );
  };
}

/** What campaigns of each variant took, to say what is left. */
class Clock {
  private readonly seconds = new Map<string, number[]>();

  constructor(results: readonly Result[]) {
    for (const { variant, started_at, finished_at } of results) {
      this.note(variant, (Date.parse(finished_at) - Date.parse(started_at)) / 1000);
    }
  }

  note(variant: string, seconds: number): void {
    this.seconds.set(variant, [...(this.seconds.get(variant) ?? []), seconds]);
  }

  /** @param jobs those that are not done, the one under way first */
  left([current, ...others]: readonly Job[], etaSeconds: number | undefined, began: number): string {
    const known = [...this.seconds.values()].flat();
    if (current === undefined || (known.length === 0 && (etaSeconds ?? 0) === 0)) return "";
    const spent = (performance.now() - began) / 1000;
    const whole = known.length === 0 ? spent + (etaSeconds ?? 0) : 0;
    const usual = (variant: string) => median(this.seconds.get(variant) ?? (known.length > 0 ? known : [whole]));
    const ofCurrent = etaSeconds || Math.max(0, usual(current.variant.name) - spent);
    const all = others.reduce((sum, { variant }) => sum + usual(variant.name), ofCurrent);
    return `, about ${duration(all)} left in all`;
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function told({ variant, replicate, arms, plain_returned, iterations }: Result): string {
  const accuracy = (students: readonly string[] = []) => {
    const all = students.join("");
    return percent([...all].filter((one) => one === "1").length / Math.max(1, all.length));
  };
  const added = iterations.reduce((sum, { accepted }) => sum + accepted, 0);
  const returned = plain_returned ? " (the plain student is given back)" : "";
  return `${variant} ${replicate}: plain ${accuracy(arms.none?.students)}, campaign ${accuracy(arms.returned?.students)}${returned}, ${added} rows added.`;
}

async function aborted(signal: AbortSignal): Promise<never> {
  return await new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
