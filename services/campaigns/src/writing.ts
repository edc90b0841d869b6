/** Asking the teacher: the pre-flight, new rows, blind labels. */
import { TutelageError } from "@tutelage/platform/errors";
import { type Candidate, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Row, TaskKind } from "@tutelage/proto/task/v1/task";
import {
  type GenerationBudget,
  type Result,
  type StartGenerationRunRequest,
  type Usage,
  type WriteOrder,
  WriteStyle,
} from "@tutelage/proto/teacher/v1/teacher";
import type { Campaign, SeedData } from "./campaign.js";
import { generate, resultsOf } from "./clients.js";
import { calibrate, type Opinion } from "./judging.js";
import { shuffled } from "./random.js";
import { writeOrders } from "./selection.js";
import { budgetBeside } from "./spending.js";

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

/** How a teacher is asked. */
interface Asking {
  /** What is left of the budget for others. */
  kept?: Partial<GenerationBudget>;
  /** Unset: the campaign's. */
  teacherProfile?: string;
}

/**
 * Runs a generation run as the step `name` and gives its results in order: all
 * of them, or as many as the budget allowed.
 */
async function ask(
  campaign: Campaign,
  name: string,
  work: NonNullable<StartGenerationRunRequest["work"]>,
  { kept = {}, teacherProfile = campaign.request.teacherProfile }: Asking = {},
): Promise<{ results: Result[]; cut: boolean }> {
  const done = await campaign.step(name, async () => {
    await campaign.spending.budgetNow();
    const run = await generate(
      campaign.services,
      {
        projectId: campaign.projectId,
        idempotencyKey: campaign.childKey(name),
        teacherProfile,
        task: campaign.task,
        work,
        replicateSeed: campaign.settings.seed,
        budget: budgetBeside(campaign.spending.budgetLeft, kept),
        replyScope: campaign.replyScope,
        // A campaign that an earlier release stored has none: the teacher's own.
        patienceSeconds: campaign.settings.teacherPatienceSeconds ?? 0,
        tryNow: false,
      },
      {
        ...campaign.waitingFor(name),
        onChange: ({ usage, budgetNotices }) => campaign.spending.noteRunning(name, usage ?? {}, budgetNotices),
      },
      () => campaign.spending.budgetNow(),
    );
    return { generationRunId: run.run?.id ?? "", usage: run.usage, cut: run.budgetExhausted };
  });
  await campaign.spending.addUsage(name, done.usage as Usage | undefined);
  const cut = done.cut === true;
  if (cut && Object.keys(kept).length === 0) campaign.spending.meetWall();
  const results = await resultsOf(campaign.services, campaign.projectId, done.generationRunId, campaign.signal);
  return { results, cut };
}

/**
 * Has the teacher label rows without seeing their labels. `cut` says that the
 * budget ended before the rows did.
 * @param attempt under a higher number the same rows are asked anew
 */
export async function labelRows(
  campaign: Campaign,
  name: string,
  rows: Row[],
  exampleRows: readonly Row[],
  attempt = 0,
): Promise<{ opinions: Opinion[]; cut: boolean }> {
  const results: Result[] = [];
  let cut = false;
  for (const { step, items } of inRuns(name, rows)) {
    const work = { $case: "label" as const, value: { rows: items, exampleRows: [...exampleRows], attempt } };
    const asked = await ask(campaign, step, work);
    results.push(...asked.results);
    cut ||= asked.cut;
  }
  const opinions = results.flatMap(({ rowId, outcome }) =>
    outcome?.$case === "labeling" ? [{ rowId, answer: outcome.value.label, scores: outcome.value.likelihoods }] : [],
  );
  return { opinions, cut };
}

/**
 * Has the teacher write new rows; each result as a candidate that is not judged
 * yet. `cut` says that the budget ended before the orders did.
 */
export async function writeCandidates(
  campaign: Campaign,
  name: string,
  orders: WriteOrder[],
  iteration: number,
  firstNumber: number,
  { style = WriteStyle.UNSPECIFIED, ...asking }: Asking & { style?: WriteStyle } = {},
): Promise<{ candidates: Candidate[]; cut: boolean }> {
  const results: Result[] = [];
  let cut = false;
  for (const { step, items } of inRuns(name, orders)) {
    const asked = await ask(campaign, step, { $case: "write", value: { orders: items, style } }, asking);
    results.push(...asked.results);
    cut ||= asked.cut;
  }
  const orderOf = new Map(orders.map((order) => [order.seedRow?.id ?? "", order]));
  const candidates = results.map(({ rowId, callId, teacherProfile, outcome }, index) => ({
    number: firstNumber + index,
    iteration,
    seedRowId: rowId,
    wrongAnswer: orderOf.get(rowId)?.wrongAnswer ?? "",
    callId,
    teacherProfile,
    input: outcome?.$case === "candidate" ? outcome.value.input : "",
    messages: outcome?.$case === "candidate" ? outcome.value.messages : [],
    output: outcome?.$case === "candidate" ? outcome.value.output : "",
    accepted: false,
    rejection:
      outcome?.$case === "candidate" ? "" : outcome?.$case === "rejection" ? outcome.value.code : "no_candidate",
    overlap: undefined,
    verdicts: [],
    probability: 1,
    maxRougeL: 0,
    rowId: "",
  }));
  return { candidates, cut };
}

/** The seed rows that a teacher is measured on and shown: all of them, or a label-blind random part of many. */
export function goldSample(campaign: Campaign, seed: SeedData): Row[] {
  return shuffled(seed.seedRows, (row) => row.id, campaign.firstSettings.seed, "gold").slice(0, goldRows);
}

/**
 * Tries the teacher on a few seed rows before it is paid for more: do its
 * replies parse, and does it see the labels that the rows have? Where the
 * budget ends first nothing is decided: no money is left to protect, and the
 * campaign stops for that reason.
 * Throws failed_precondition "teacher_preflight_failed" with the figures.
 */
export async function preflight(campaign: Campaign, seed: SeedData): Promise<void> {
  if (campaign.settings.preflight === Switch.OFF) return;
  await campaign.enter(0, "preflight");
  for (let retry = 0; ; retry += 1) {
    const failure = await tryTeacher(campaign, seed, retry);
    if (failure === undefined) return;
    // A campaign that is tried again asks again: its teacher may be another by now, or may say something else.
    if (retry === campaign.retries) throw failure;
  }
}

/** One pre-flight; each retry writes anew. Gives what is wrong with the teacher. */
async function tryTeacher(campaign: Campaign, seed: SeedData, retry: number): Promise<TutelageError | undefined> {
  const { settings, task } = campaign;
  const again = retry === 0 ? "" : `/retry/${retry}`;
  const rows = spreadOverOutputs(goldSample(campaign, seed), preflightRows);
  const wants = rows.map((row) => ({
    mined: { row, correct: true, disputed: false, text: "", answer: "", expectedLogProbability: undefined },
    rows: 1,
  }));
  const orders = writeOrders(
    wants,
    seed.seedRows,
    { ...settings, attemptsPerRow: 1 },
    {
      iteration: 0,
      attemptsSoFar: new Map(rows.map((row) => [row.id, retry])),
      callsLeft: campaign.spending.callsLeft,
    },
  );
  const { candidates, cut } = await writeCandidates(campaign, `preflight${again}/write`, orders, 0, 0);
  const parsed = candidates.filter((candidate) => candidate.rejection === "").length;
  const parseRate = cut || candidates.length === 0 ? undefined : parsed / candidates.length;
  let agreement: number | undefined;
  if (task.kind === TaskKind.CLASSIFICATION) {
    const labelled = await labelRows(campaign, `preflight${again}/label`, rows, goldSample(campaign, seed), retry);
    const opinions = calibrate(labelled.opinions, labelled.opinions, rows);
    const answers = new Map(opinions.map((opinion) => [opinion.rowId, opinion.answer]));
    if (!labelled.cut) agreement = rows.filter((row) => answers.get(row.id) === row.output).length / rows.length;
  }
  const leastAgreement = Math.min(1, settings.preflightMinAgreementOverChance / Math.max(1, task.labels.length));
  const figures = { rows: rows.length, parse_rate: parseRate ?? null, label_agreement: agreement ?? null };
  await campaign.emit("preflight.finished", figures, again);
  if (parseRate !== undefined && parseRate < settings.preflightMinParseRate) {
    return preflightFailed(
      `${parsed} of ${candidates.length} replies of teacher "${campaign.request.teacherProfile}" could be read; at least ` +
        `${percent(settings.preflightMinParseRate)} are needed. Look at the campaign's first calls, and try another prompt form, ` +
        `a larger max_tokens or a stronger teacher.`,
    );
  }
  if (agreement !== undefined && agreement < leastAgreement) {
    return preflightFailed(
      `Teacher "${campaign.request.teacherProfile}" gave ${percent(agreement)} of ${rows.length} seed rows the label they have; ` +
        `at least ${percent(leastAgreement)} are needed (chance is ${percent(1 / task.labels.length)}). Describe the labels better, ` +
        `or choose a stronger teacher.`,
    );
  }
  return undefined;
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
