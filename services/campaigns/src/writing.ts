/** Asking the teacher: the pre-flight, new rows, blind labels. */
import { TutelageError } from "@tutelage/platform/errors";
import { type Candidate, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Row, TaskKind } from "@tutelage/proto/task/v1/task";
import type { Result, StartGenerationRunRequest, Usage, WriteOrder } from "@tutelage/proto/teacher/v1/teacher";
import type { Campaign, SeedData } from "./campaign.js";
import { generate, resultsOf } from "./clients.js";
import { calibrate, type Opinion } from "./judging.js";
import { shuffled } from "./random.js";
import { writeOrders } from "./selection.js";

/** Seed rows of the pre-flight. */
export const preflightRows = 16;
/** Seed rows on which a teacher's labels are measured, and from which it is shown examples. */
export const goldRows = 240;

/** Orders or rows of one generation run, and the characters that they may take as JSON: it is one message. */
const itemsPerRun = 5_000;
const charactersPerRun = 8_000_000;

/** Items cut into generation runs, each with the name of its step; the same items are always cut alike. */
export function inRuns<Item>(name: string, items: readonly Item[]): { step: string; items: Item[] }[] {
  const runs: { step: string; items: Item[] }[] = [];
  let characters = 0;
  for (const item of items) {
    const length = JSON.stringify(item).length;
    characters += length;
    let run = runs.at(-1);
    if (run === undefined || run.items.length === itemsPerRun || characters > charactersPerRun) {
      run = { step: runs.length === 0 ? name : `${name}/${runs.length}`, items: [] };
      runs.push(run);
      characters = length;
    }
    run.items.push(item);
  }
  return runs;
}

/** Runs a generation run as the step `name` and gives its results in order. */
async function ask(
  campaign: Campaign,
  name: string,
  work: NonNullable<StartGenerationRunRequest["work"]>,
): Promise<Result[]> {
  const done = await campaign.step(name, async () => {
    const run = await generate(
      campaign.services,
      {
        projectId: campaign.projectId,
        idempotencyKey: campaign.childKey(name),
        teacherProfile: campaign.request.teacherProfile,
        task: campaign.task,
        work,
        replicateSeed: campaign.settings.seed,
      },
      campaign.waitingFor(name),
    );
    return { generationRunId: run.run?.id ?? "", usage: run.usage };
  });
  await campaign.addUsage(name, done.usage as Usage | undefined);
  return await resultsOf(campaign.services, campaign.projectId, done.generationRunId, campaign.signal);
}

/** Has the teacher label rows without seeing their labels. */
export async function labelRows(
  campaign: Campaign,
  name: string,
  rows: Row[],
  exampleRows: readonly Row[],
): Promise<Opinion[]> {
  const results: Result[] = [];
  for (const { step, items } of inRuns(name, rows)) {
    results.push(
      ...(await ask(campaign, step, { $case: "label", value: { rows: items, exampleRows: [...exampleRows] } })),
    );
  }
  return results.flatMap(({ rowId, outcome }) =>
    outcome?.$case === "labeling" ? [{ rowId, answer: outcome.value.label, scores: outcome.value.likelihoods }] : [],
  );
}

/** Has the teacher write new rows; each result as a candidate that is not judged yet. */
export async function writeCandidates(
  campaign: Campaign,
  name: string,
  orders: WriteOrder[],
  iteration: number,
  firstNumber: number,
): Promise<Candidate[]> {
  const results: Result[] = [];
  for (const { step, items } of inRuns(name, orders)) {
    results.push(...(await ask(campaign, step, { $case: "write", value: { orders: items } })));
  }
  const orderOf = new Map(orders.map((order) => [order.seedRow?.id ?? "", order]));
  return results.map(({ rowId, callId, outcome }, index) => ({
    number: firstNumber + index,
    iteration,
    seedRowId: rowId,
    wrongAnswer: orderOf.get(rowId)?.wrongAnswer ?? "",
    callId,
    input: outcome?.$case === "candidate" ? outcome.value.input : "",
    messages: outcome?.$case === "candidate" ? outcome.value.messages : [],
    output: outcome?.$case === "candidate" ? outcome.value.output : "",
    accepted: false,
    rejection:
      outcome?.$case === "candidate" ? "" : outcome?.$case === "rejection" ? outcome.value.code : "no_candidate",
    verdicts: [],
    probability: 1,
    maxRougeL: 0,
    rowId: "",
  }));
}

/** The seed rows that a teacher is measured on and shown: all of them, or a label-blind random part of many. */
export function goldSample(campaign: Campaign, seed: SeedData): Row[] {
  return shuffled(seed.seedRows, (row) => row.id, campaign.settings.seed, "gold").slice(0, goldRows);
}

/**
 * Tries the teacher on a few seed rows before it is paid for more: do its
 * replies parse, and does it see the labels that the rows have?
 * Throws failed_precondition "teacher_preflight_failed" with the figures.
 */
export async function preflight(campaign: Campaign, seed: SeedData): Promise<void> {
  const { settings, task } = campaign;
  if (settings.preflight === Switch.OFF) return;
  await campaign.enter(0, "preflight");
  const rows = spreadOverOutputs(goldSample(campaign, seed), preflightRows);
  const wants = rows.map((row) => ({
    mined: { row, correct: true, answer: "", expectedLogProbability: undefined },
    rows: 1,
  }));
  const orders = writeOrders(
    wants,
    seed.seedRows,
    { ...settings, attemptsPerRow: 1 },
    0,
    new Map(),
    campaign.callsLeft,
  );
  const candidates = await writeCandidates(campaign, "preflight/write", orders, 0, 0);
  const parsed = candidates.filter((candidate) => candidate.rejection === "").length;
  const parseRate = candidates.length === 0 ? 0 : parsed / candidates.length;
  let agreement: number | undefined;
  if (task.kind === TaskKind.CLASSIFICATION) {
    const labelled = await labelRows(campaign, "preflight/label", rows, goldSample(campaign, seed));
    const opinions = calibrate(labelled, labelled, rows);
    const answers = new Map(opinions.map((opinion) => [opinion.rowId, opinion.answer]));
    agreement = rows.filter((row) => answers.get(row.id) === row.output).length / rows.length;
  }
  const leastAgreement = Math.min(1, settings.preflightMinAgreementOverChance / Math.max(1, task.labels.length));
  await campaign.emit("preflight.finished", {
    rows: rows.length,
    parse_rate: parseRate,
    label_agreement: agreement ?? null,
  });
  if (parseRate < settings.preflightMinParseRate) {
    throw preflightFailed(
      `${parsed} of ${candidates.length} replies of teacher "${campaign.request.teacherProfile}" could be read; at least ` +
        `${percent(settings.preflightMinParseRate)} are needed. Look at the campaign's first calls, and try another prompt form, ` +
        `a larger max_tokens or a stronger teacher.`,
    );
  }
  if (agreement !== undefined && agreement < leastAgreement) {
    throw preflightFailed(
      `Teacher "${campaign.request.teacherProfile}" gave ${percent(agreement)} of ${rows.length} seed rows the label they have; ` +
        `at least ${percent(leastAgreement)} are needed (chance is ${percent(1 / task.labels.length)}). Describe the labels better, ` +
        `or choose a stronger teacher.`,
    );
  }
}

/** The first rows of each output in turn, so that a rare label is tried too. */
function spreadOverOutputs(rows: readonly Row[], count: number): Row[] {
  const turns = new Map<string, number>();
  const ranked = rows.map((row) => {
    const turn = turns.get(row.output) ?? 0;
    turns.set(row.output, turn + 1);
    return { row, turn };
  });
  return ranked
    .sort((a, b) => a.turn - b.turn)
    .slice(0, count)
    .map(({ row }) => row);
}

function preflightFailed(message: string): TutelageError {
  return new TutelageError("failed_precondition", message, { reason: "teacher_preflight_failed" });
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
