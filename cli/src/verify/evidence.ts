/** A bundle's parts, read for its checks. Texts of prompts and replies stay in the file until one is asked for. */
import type { BundleFile } from "@tutelage/platform/bundlefile";
import {
  Campaign,
  Candidate,
  Iteration,
  LedgerTotal,
  Report,
  SeedRow,
  Step,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { Version } from "@tutelage/proto/datasets/v1/datasets";
import { EvaluationRun } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Row } from "@tutelage/proto/task/v1/task";
import { Task } from "@tutelage/proto/task/v1/task";
import { Call, GenerationRun, Result } from "@tutelage/proto/teacher/v1/teacher";
import { TrainingRun } from "@tutelage/proto/training/v1/training";

/** A version with the rows that its parent in the bundle does not have. */
export interface VersionRows {
  version: Version;
  parent: VersionRows | undefined;
  own: Row[];
}

/** An answer of a student, as later checks need it. */
export interface Answer {
  correct: boolean;
  disputed: boolean;
  tooLong: boolean;
  answer: string;
  text: string;
  /** Natural logarithm of the probability of the expected output, where labels were scored. */
  expectedLogProbability: number | undefined;
}

/** A teacher call without its texts. */
export interface PlacedCall {
  call: Call;
  /** The generation run that made it; empty for one that another campaign paid for. */
  runId: string;
  at: number;
  length: number;
}

export interface Evidence {
  bundle: BundleFile;
  campaign: Campaign;
  task: Task;
  /** What a fork was made of, the nearest first. */
  ancestors: Campaign[];
  steps: Map<string, Step>;
  versions: Map<string, VersionRows>;
  /** Every row of every version, by id. */
  rows: Map<string, Row>;
  trainingRuns: Map<string, TrainingRun>;
  /** Loss of each step, by training run. */
  losses: Map<string, number[]>;
  evaluationRuns: Map<string, EvaluationRun>;
  /** By evaluation run, then by row, in the order of the predictions. */
  answers: Map<string, Map<string, Answer>>;
  calls: Map<string, PlacedCall>;
  generationRuns: Map<string, GenerationRun & { runKey: string }>;
  /** By generation run. */
  results: Map<string, Result[]>;
  iterations: Iteration[];
  candidates: Candidate[];
  seedRows: SeedRow[];
  ledgerTotals: LedgerTotal[];
  report: Report | undefined;
}

interface Message<T> {
  fromJSON(json: unknown): T;
}

/** All parts but rows and predictions, which are read by the checks of them. Throws BundleFault for what cannot be read. */
export async function readEvidence(bundle: BundleFile): Promise<Evidence> {
  const list = async <T>(name: string, type: Message<T>): Promise<T[]> => {
    const found: T[] = [];
    for await (const { json } of bundle.documents(name)) found.push(type.fromJSON(json));
    return found;
  };
  const campaign = Campaign.fromJSON(await bundle.json("campaign.json"));
  const versions = new Map<string, VersionRows>();
  for (const version of await list("versions", Version)) {
    versions.set(version.id, { version, parent: versions.get(version.parentVersionId), own: [] });
  }
  const losses = new Map<string, number[]>();
  for await (const { json } of bundle.documents("training-steps")) {
    const { runId, loss = 0 } = json as { runId: string; loss?: number };
    pushTo(losses, runId, loss);
  }
  const calls = new Map<string, PlacedCall>();
  for await (const { json, line } of bundle.documents("calls")) {
    const call = Call.fromJSON(json);
    const { runId = "" } = json as { runId?: string };
    calls.set(call.id, { call: { ...call, prompt: "", rawReply: "" }, runId, at: line.at, length: line.length });
  }
  const generationRuns = new Map<string, GenerationRun & { runKey: string }>();
  for await (const { json } of bundle.documents("generation-runs")) {
    const run = GenerationRun.fromJSON(json);
    generationRuns.set(run.run?.id ?? "", { ...run, runKey: (json as { runKey?: string }).runKey ?? "" });
  }
  const results = new Map<string, Result[]>();
  for await (const { json } of bundle.documents("results")) {
    pushTo(results, (json as { runId?: string }).runId ?? "", Result.fromJSON(json));
  }
  return {
    bundle,
    campaign,
    task: Task.fromPartial(campaign.request?.task ?? {}),
    ancestors: await list("ancestors", Campaign),
    steps: new Map((await list("steps", Step)).map((step) => [step.name, step])),
    versions,
    rows: new Map(),
    trainingRuns: byId(await list("training-runs", TrainingRun)),
    losses,
    evaluationRuns: byId(await list("evaluation-runs", EvaluationRun)),
    answers: new Map(),
    calls,
    generationRuns,
    results,
    iterations: await list("iterations", Iteration),
    candidates: await list("candidates", Candidate),
    seedRows: await list("seed-rows", SeedRow),
    ledgerTotals: await list("ledger-totals", LedgerTotal),
    report: bundle.has("report.json") ? Report.fromJSON(await bundle.json("report.json")) : undefined,
  };
}

/** A call with its prompt and raw reply. */
export async function wholeCall({ bundle }: Pick<Evidence, "bundle">, { at, length }: PlacedCall): Promise<Call> {
  return Call.fromJSON(JSON.parse(await bundle.read(at, length)));
}

/** All rows of a version, in order. */
export function* rowsOf(version: VersionRows | undefined): Generator<Row> {
  if (version === undefined) return;
  yield* rowsOf(version.parent);
  yield* version.own;
}

/**
 * Whether somebody was asked to settle seed rows: what was decided of them shapes grades and errors, and is in the
 * report for people, not in the parts.
 */
export function isReviewed({ steps }: Pick<Evidence, "steps">): boolean {
  return [...steps.keys()].some((name) => /^iteration\/\d+\/reviews$/.test(name));
}

/** The settings under which an iteration ran: a fork's parent's where it is shared. */
export function settingsAt({ campaign, ancestors }: Evidence, iteration: number) {
  let settings = campaign.request?.settings;
  let fork = campaign.forkedFrom;
  for (const ancestor of ancestors) {
    if (fork === undefined || iteration >= fork.iteration) break;
    settings = ancestor.request?.settings;
    fork = ancestor.forkedFrom;
  }
  return settings;
}

function pushTo<T>(lists: Map<string, T[]>, key: string, item: T): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [item]);
  else list.push(item);
}

function byId<Run extends { run: { id: string } | undefined }>(runs: readonly Run[]): Map<string, Run> {
  return new Map(runs.map((run) => [run.run?.id ?? "", run]));
}
