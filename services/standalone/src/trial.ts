/**
 * One campaign from rows to result through the public REST API, with each
 * test row's correctness from the evaluation service. The demo and the
 * conformance runs are made of these.
 */

import { connect } from "@tutelage/platform/grpc";
import { authorization, sharedToken } from "@tutelage/platform/token";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Iteration as IterationView, Proportion } from "tutelage/api";

/** A labelled row as a user writes it. */
export interface LabelledRow {
  input: string;
  output: string;
  split: "train" | "dev" | "test";
}

export interface ArmResult {
  name: string;
  train_rows: number;
  made_rows: number;
  steps: number;
  tries: number;
  training_run_id: string;
  /** Why it was not measured; empty where it was. */
  left_out: string;
  test_accuracy?: Proportion;
  final_gain?: { gain: number; n: number };
  usage?: { calls: number; reused_calls: number };
  test_evaluation_run_id: string;
  tries_test_accuracy: Proportion[];
  tries_test_evaluation_run_ids: string[];
}

export interface Iteration extends IterationView {
  rejected: Record<string, number>;
  phase_seconds: Record<string, number>;
}

export interface Outcome {
  stop_reason: string;
  chosen_iteration: number;
  plain_returned: boolean;
  summary: string;
  baseline: ArmResult;
  final: ArmResult;
  other_arms: ArmResult[];
  gain?: { gain: number; ci95_low: number; ci95_high: number; n: number };
  wall_seconds: number;
}

export interface CampaignView {
  run: {
    id: string;
    status: string;
    failure?: { code: string; message: string };
    rest?: { code: string; message: string; until?: string };
    progress?: { message: string; eta_seconds: number };
    created_at?: string;
    finished_at?: string;
  };
  request?: { settings?: Record<string, unknown> };
  iteration: number;
  phase: string;
  outcome?: Outcome;
  training_seconds: number;
  forked_from?: {
    campaign_id: string;
    iteration: number;
    shared_usage?: { calls: number };
    shared_training_seconds: number;
  };
  shortfalls: { name: string; scope: string; used: number; cap: number; missing?: { low: number; likely: number } }[];
  usage?: {
    calls: number;
    reused_calls: number;
    prompt_tokens: number;
    completion_tokens: number;
    teacher_seconds: number;
    cost_micro_usd: number;
  };
}

export interface Trial {
  campaign: CampaignView;
  outcome: Outcome;
  iterations: Iteration[];
  /** By arm ("plain", "campaign", …): whether each test row was answered rightly, in order. */
  correct: Record<string, boolean[]>;
  /** The same of every plain student. */
  plainTries: boolean[][];
}

/** A running stack as a trial needs it. */
export interface Where {
  url: string;
  addresses: { evaluation: string };
}

/** What to try. */
export interface TrialPlan {
  name: string;
  rows: readonly LabelledRow[];
  /** The task as the API takes it, or the name of one. */
  task: object | string;
  settings: object;
  teacherProfile: string;
  studentProfile: string;
  /** Another start with it finds the same dataset and the same campaign. */
  key?: string;
}

/** Creates the dataset and starts the campaign. Gives its id. */
export async function startTrial(where: { url: string }, trial: TrialPlan): Promise<string> {
  const dataset = await datasetFor(where, trial);
  const started = await call<CampaignView>(
    where,
    "POST",
    "/v1/campaigns",
    {
      name: trial.name,
      dataset: dataset.id,
      student_profile: trial.studentProfile,
      teacher_profile: trial.teacherProfile,
      task: trial.task,
      settings: trial.settings,
    },
    trial.key,
  );
  return started.run.id;
}

async function datasetFor(where: { url: string }, { name, rows, key }: TrialPlan): Promise<{ id: string }> {
  const dataset = await call<{ id: string }>(where, "POST", "/v1/datasets", { name }).catch((error: unknown) => {
    if (key === undefined || !(error instanceof Refused) || error.status !== 409) throw error;
    return call<{ id: string }>(where, "GET", `/v1/datasets/${encodeURIComponent(name)}`);
  });
  await importRows(where, dataset.id, rows, key);
  return dataset;
}

/** Starts a campaign and waits for its end. Throws the campaign's failure. */
export async function runTrial(
  where: Where,
  trial: TrialPlan,
  onChange: (campaign: CampaignView, iterations: Iteration[]) => void,
  pollMs?: number,
): Promise<Trial> {
  return await awaitTrial(where, await startTrial(where, trial), onChange, pollMs);
}

/** Waits for a campaign's end. Throws its failure. */
export async function awaitTrial(
  where: Where,
  id: string,
  onChange: (campaign: CampaignView, iterations: Iteration[]) => void,
  pollMs = 1_000,
): Promise<Trial> {
  for (;;) {
    const campaign = await call<CampaignView>(where, "GET", `/v1/campaigns/${id}`);
    const { iterations } = await call<{ iterations: Iteration[] }>(where, "GET", `/v1/campaigns/${id}/iterations`);
    onChange(campaign, iterations);
    if (campaign.outcome !== undefined && campaign.run.status === "succeeded") {
      return { campaign, iterations, outcome: campaign.outcome, ...(await correctness(where, campaign.outcome)) };
    }
    const { status, failure, rest } = campaign.run;
    if (status === "failed" || status === "cancelled" || status === "budget_exhausted") {
      throw new Error(`The campaign ${status}: ${failure?.message ?? rest?.message ?? "somebody asked for it."}`);
    }
    if (rest?.code === "reviews_open") {
      throw new Error(`The campaign waits for people, which nobody here is: ${rest.message} Use seed_audit "aside".`);
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

async function importRows(
  where: { url: string },
  datasetId: string,
  rows: readonly LabelledRow[],
  key: string | undefined,
): Promise<void> {
  const response = await fetch(`${where.url}/v1/datasets/${datasetId}/import?split_column=split&strict=true`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson", ...keyHeader(key), ...tokenHeaders() },
    body: rows.map((row) => `${JSON.stringify(row)}\n`).join(""),
  });
  const body = (await response.json()) as {
    rejects?: { line: number; message: string }[];
    detail?: string;
    imported_rows?: number;
  };
  if (!response.ok || body.imported_rows !== rows.length) {
    const [first] = body.rejects ?? [];
    throw new Error(
      `The rows were not imported: ${first === undefined ? (body.detail ?? "") : `line ${first.line}: ${first.message}`}`,
    );
  }
}

async function correctness(where: Where, outcome: Outcome): Promise<Pick<Trial, "correct" | "plainTries">> {
  const evaluation = connect(EvaluationServiceDefinition, where.addresses.evaluation);
  try {
    const grades = async (id: string) => {
      const rows: boolean[] = [];
      for await (const { predictions } of evaluation.listPredictions(
        { projectId: "default", id, wrongOnly: false },
        { deadline: 300_000 },
      )) {
        for (const one of predictions) rows.push(one.correct);
      }
      return rows;
    };
    const correct: Record<string, boolean[]> = {};
    for (const arm of [outcome.baseline, outcome.final, ...outcome.other_arms]) {
      const name = arm === outcome.baseline ? "plain" : arm === outcome.final ? "campaign" : arm.name;
      if (arm.test_evaluation_run_id !== "") correct[name] = await grades(arm.test_evaluation_run_id);
    }
    return { correct, plainTries: await Promise.all(outcome.baseline.tries_test_evaluation_run_ids.map(grades)) };
  } finally {
    evaluation.close();
  }
}

/** A service that is started again after its process died is away for a few seconds; reads wait for it this long. */
const patienceMs = 120_000;

function tokenHeaders(): Record<string, string> {
  const token = sharedToken();
  return token === undefined ? {} : { authorization: authorization(token) };
}

function keyHeader(key: string | undefined): Record<string, string> {
  return key === undefined ? {} : { "idempotency-key": key };
}

/** The server's answer to a request that it does not do. */
class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** One REST call. Throws the problem's detail. A read waits while a service is away (503). */
export async function call<Reply>(
  where: { url: string },
  method: string,
  path: string,
  body?: object,
  key?: string,
): Promise<Reply> {
  const until = performance.now() + patienceMs;
  for (;;) {
    const response = await fetch(`${where.url}${path}`, {
      method,
      headers: {
        ...tokenHeaders(),
        ...keyHeader(key),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }).catch(() => undefined);
    const away = response === undefined || response.status === 503;
    if (away && method === "GET" && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      continue;
    }
    if (response === undefined) throw new Error(`${method} ${path}: nobody answers at ${where.url}.`);
    const reply = (await response.json()) as Reply & { title?: string; detail?: string };
    if (!response.ok) throw new Refused(`${method} ${path}: ${reply.title}: ${reply.detail}`, response.status);
    return reply;
  }
}
