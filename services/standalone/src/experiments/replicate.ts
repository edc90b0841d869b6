/** One campaign of an experiment on a running stack, from drawn rows to its result. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  type ArmResult,
  awaitTrial,
  type CampaignView,
  call,
  type Iteration,
  type LabelledRow,
  startTrial,
  type Trial,
  type Where,
} from "../trial.js";
import { digestOf, type Variant } from "./experimentfile.js";
import type { Result, ResultArm } from "./resultfile.js";

export interface Replicate {
  experiment: string;
  student: string;
  teacher: string;
  variant: Variant;
  /** From 1; the campaign's seed. */
  number: number;
  rows: readonly LabelledRow[];
  tune: boolean;
}

/**
 * Starts the campaign, or goes on with the one that an earlier call with the
 * same variant, replicate and rows started, and waits for its end.
 * @param onChange told about once a second
 */
export async function runReplicate(
  where: Where,
  replicate: Replicate,
  onChange: (campaign: CampaignView, iterations: Iteration[]) => void,
): Promise<Result> {
  const { experiment, student, teacher, variant, number, rows } = replicate;
  const rowsDigest = digestOf(rows);
  const name = `${experiment}-${variant.name}-${number}`;
  const key = `experiment/${digestOf([variant.digest, number, rowsDigest])}`;
  const id = await startTrial(where, {
    // A dataset's name is one of a kind, and the same rows are the same dataset.
    name: `${name}-${digestOf([key]).slice(0, 10)}`,
    rows,
    task: variant.task,
    settings: { ...variant.settings, seed: number },
    studentProfile: student,
    teacherProfile: teacher,
    key,
  });
  await goOn(where, id);
  return resultOf(replicate, rowsDigest, await awaitTrial(where, id, onChange), await checkout());
}

/** Lets a campaign go on that an earlier call left failed or at rest. */
async function goOn(where: Where, id: string): Promise<void> {
  const { run } = await call<CampaignView>(where, "GET", `/v1/campaigns/${id}`);
  const verbs: Record<string, string> = { failed: "retry", paused: "resume", pausing: "resume" };
  const verb = verbs[run.status];
  if (verb !== undefined) await call(where, "POST", `/v1/campaigns/${id}/${verb}`, {});
}

function resultOf(replicate: Replicate, rowsDigest: string, trial: Trial, commit: string): Result {
  const { campaign, outcome, iterations, correct, plainTries } = trial;
  const { seed: _, ...settings }: Record<string, unknown> = campaign.request?.settings ?? {};
  const armOf = ({ train_rows, steps, usage }: ArmResult, students: readonly (readonly boolean[])[]): ResultArm => ({
    train_rows,
    steps,
    students: students.map((rows) => rows.map(Number).join("")),
    teacher_calls: usage?.calls ?? 0,
  });
  const { baseline, final, other_arms } = outcome;
  const measured = other_arms.filter(({ name }) => correct[name] !== undefined);
  const { usage } = campaign;
  return {
    format: 1,
    experiment: replicate.experiment,
    variant: replicate.variant.name,
    replicate: replicate.number,
    asked_digest: replicate.variant.digest,
    settings_digest: digestOf({ task: replicate.variant.task, settings }),
    settings,
    student: replicate.student,
    teacher: replicate.teacher,
    tuned: replicate.tune,
    seed_rows: replicate.rows.filter(({ split }) => split === "train").length,
    test_rows: replicate.rows.filter(({ split }) => split === "test").length,
    rows_digest: rowsDigest,
    commit,
    started_at: campaign.run.created_at ?? "",
    finished_at: campaign.run.finished_at ?? "",
    wall_seconds: rounded(outcome.wall_seconds),
    training_seconds: rounded(campaign.training_seconds),
    teacher_usage: {
      calls: usage?.calls ?? 0,
      reused_calls: usage?.reused_calls ?? 0,
      prompt_tokens: usage?.prompt_tokens ?? 0,
      completion_tokens: usage?.completion_tokens ?? 0,
      cost_micro_usd: usage?.cost_micro_usd ?? 0,
      seconds: rounded(usage?.teacher_seconds ?? 0),
    },
    stop_reason: outcome.stop_reason,
    chosen_iteration: outcome.chosen_iteration,
    plain_returned: outcome.plain_returned,
    plain_student: Math.max(0, baseline.tries_test_evaluation_run_ids.indexOf(baseline.test_evaluation_run_id)),
    iterations: iterations.map(toIteration),
    arms: {
      returned: armOf(final, [correct.campaign ?? []]),
      none: armOf(baseline, plainTries),
      ...Object.fromEntries(measured.map((arm) => [arm.name, armOf(arm, [correct[arm.name] ?? []])])),
    },
    left_out: Object.fromEntries(
      other_arms.flatMap(({ name, left_out }) => (left_out === undefined || left_out === "" ? [] : [[name, left_out]])),
    ),
  };
}

function toIteration(one: Iteration): Result["iterations"][number] {
  const { number, train_rows, errors, candidates, accepted } = one;
  return {
    number,
    train_rows,
    errors,
    candidates,
    accepted,
    cross_fit_accuracy: one.cross_fit_accuracy?.value,
    dev_accuracy: one.dev_accuracy?.value,
    test_accuracy: one.test_accuracy?.value,
    seconds: rounded(one.seconds),
  };
}

const rounded = (seconds: number) => Math.round(seconds * 10) / 10;

/** The commit that is checked out, with "+" where files differ from it; empty outside of a checkout. */
async function checkout(): Promise<string> {
  const cwd = fileURLToPath(new URL(".", import.meta.url));
  const git = async (...args: string[]) => (await promisify(execFile)("git", args, { cwd })).stdout.trim();
  try {
    const changed = await git("status", "--porcelain", "--untracked-files=no");
    return `${await git("rev-parse", "HEAD")}${changed === "" ? "" : "+"}`;
  } catch {
    return "";
  }
}
