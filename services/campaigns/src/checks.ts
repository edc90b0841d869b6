/** Checking candidates: novelty, the cross-fitted students, the teacher's second look. */
import { comparedText } from "@tutelage/platform/conversation";
import { rowToLine } from "@tutelage/platform/rowfile";
import { type Candidate, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Novelty, OverlapKind, type Version } from "@tutelage/proto/datasets/v1/datasets";
import { type Row, RowOrigin, type RowSource, Split } from "@tutelage/proto/task/v1/task";
import type { Campaign, SeedData } from "./campaign.js";
import { whileAway } from "./clients.js";
import {
  calibrate,
  couldChange,
  ensembleOpinion,
  labelProbability,
  measureReliability,
  type Opinion,
  type Reliability,
  verdictOf,
} from "./judging.js";
import { overlapsOf } from "./overlaps.js";
import { type CrossFit, evaluateStudent, predictions } from "./students.js";
import { textBatches } from "./textbatches.js";
import { goldSample, labelRows } from "./writing.js";

/** A checker with its record and its opinions. */
interface Checker {
  name: "students" | "teacher";
  reliability: Reliability;
  opinions: Map<string, Opinion>;
}

/** Of one message. */
const noveltyDeadlineMs = 600_000;

/** Where candidates are judged: what their steps' names begin with, and the iteration that asked for them. */
export interface Place {
  prefix: string;
  iteration: number;
}

/** Rejects candidates that say again what a kept row, a held-out row or an earlier candidate says. */
export async function checkNovelty(
  campaign: Campaign,
  { prefix }: Place,
  version: Version,
  seed: SeedData,
  candidates: readonly Candidate[],
): Promise<Candidate[]> {
  const open = candidates.filter((one) => one.rejection === "");
  const novelties = await campaign.step(`${prefix}/novelty`, async () => {
    if (open.length === 0) return [];
    const { projectId, signal } = campaign;
    const requests = textBatches(open.map(comparedText)).map((texts) => ({ projectId, versionId: version.id, texts }));
    return await whileAway(signal, async () => {
      const measured: Novelty[] = [];
      const answers = campaign.services.datasets.measureNovelties(
        (async function* () {
          yield* requests;
        })(),
        { signal, deadline: noveltyDeadlineMs * requests.length },
      );
      for await (const { novelties: more } of answers) measured.push(...more);
      return measured;
    });
  });
  // The user's version: those that grow from it have its dev and test rows, and no others.
  const overlaps = await overlapsOf(campaign, prefix, seed.version, open);
  const placeOf = new Map(open.map((one, index) => [one.number, index]));
  return candidates.map((candidate) => {
    const place = placeOf.get(candidate.number) ?? -1;
    const novelty = novelties[place];
    if (novelty === undefined) return candidate;
    const overlap = overlaps[place];
    // A synthetic row that repeats a dev or test row would make the measurement a lie, whatever max_rouge_l is.
    const leaks = overlap !== undefined && overlap.kind !== OverlapKind.UNSPECIFIED;
    const near = novelty.maxRougeL > campaign.settings.maxRougeL;
    return {
      ...candidate,
      maxRougeL: novelty.maxRougeL,
      overlap: leaks ? overlap : undefined,
      rejection: leaks ? "held_out_overlap" : near ? "near_duplicate" : "",
    };
  });
}

/** Adds every checker's verdict, and the probability that follows, to the candidates that are still open. */
export async function checkLabels(
  campaign: Campaign,
  place: Place,
  seed: SeedData,
  fit: CrossFit | undefined,
  candidates: readonly Candidate[],
  wantedByOutput: ReadonlyMap<string, number>,
): Promise<Candidate[]> {
  const open = candidates.filter((one) => one.rejection === "");
  const checkers: Checker[] = [];
  const checksOf = (candidate: Candidate) =>
    checkers.flatMap(({ name, reliability, opinions }) => {
      const opinion = opinions.get(rowIdOf(candidate));
      return opinion === undefined
        ? []
        : [{ verdict: verdictOf(name, candidate.output, opinion, reliability), reliability }];
    });
  if (open.length > 0 && campaign.settings.checkStudents === Switch.ON && fit !== undefined) {
    checkers.push(await askStudents(campaign, place, seed, fit, open));
  }
  if (open.length > 0 && campaign.settings.checkTeacher === Switch.ON) {
    const counts = new Map<string, number>();
    for (const { output } of open) counts.set(output, (counts.get(output) ?? 0) + 1);
    const competes = (output: string) => (counts.get(output) ?? 0) > (wantedByOutput.get(output) ?? Infinity);
    const { acceptProbability } = campaign.settings;
    // A campaign of an earlier release goes on with the questions that it began with.
    const asksAll = campaign.request.settings.arms === undefined;
    const matters = (candidate: Candidate, record: Reliability) => {
      if (asksAll) return true;
      const { output } = candidate;
      return couldChange(output, checksOf(candidate), record, acceptProbability, competes(output));
    };
    checkers.push(await askTeacher(campaign, place, seed, open, matters));
  }
  return candidates.map((candidate) => {
    if (candidate.rejection !== "") return candidate;
    const checks = checksOf(candidate);
    // A candidate that no checker could answer is believed as far as the teacher is before any check, not more.
    const probability = checkers.length === 0 ? 1 : labelProbability(candidate.output, checks);
    return { ...candidate, verdicts: checks.map((check) => check.verdict), probability };
  });
}

/**
 * The cross-fitted students together; their record is what they said of seed
 * rows that they had not seen. All of them are asked, also those that saw the
 * candidate's seed row: on TREC (5 draws, 237 candidates each) the mean of all
 * three kept .82 of the right labels at a precision of .87, the one that had
 * not seen it .76 at .85.
 */
async function askStudents(
  campaign: Campaign,
  { prefix, iteration }: Place,
  seed: SeedData,
  fit: CrossFit,
  open: readonly Candidate[],
): Promise<Checker> {
  const step = `${prefix}/check/students`;
  // An arm's have names of their own.
  const file = prefix.startsWith("arm/") ? `candidates-${prefix.replaceAll("/", "-")}` : `candidates-${iteration}`;
  const artifact = await campaign.step(`${step}/publish`, () =>
    campaign.artifacts.put(
      `${campaign.projectId}/runs/${campaign.key.campaignId}/${campaign.lease.fence}/${file}.jsonl`,
      open.map((candidate) => rowToLine(candidateRow(candidate, iteration))),
    ),
  );
  const rows = {
    uri: artifact.uri,
    sha256: artifact.sha256,
    split: Split.UNSPECIFIED,
    rowIds: [],
    excludeRootRowIds: [],
  };
  const answers = await campaign.sideBySide(
    fit.students.map(({ checkpoint }, fold) => async () => {
      return await predictions(campaign, await evaluateStudent(campaign, `${step}/${fold}`, checkpoint, rows));
    }),
  );
  const scores = new Map<string, Opinion["scores"][]>();
  for (const { rowId, labelScores, tooLong } of answers.flat()) {
    if (!tooLong) scores.set(rowId, [...(scores.get(rowId) ?? []), labelScores]);
  }
  const record = fit.heldOut.map((one) => ({ rowId: one.rowId, answer: one.answer, scores: one.labelScores }));
  return {
    name: "students",
    reliability: measureReliability(seed.seedRows, record, labelNames(campaign)),
    opinions: new Map([...scores].map(([rowId, byStudent]) => [rowId, ensembleOpinion(rowId, byStudent)])),
  };
}

/**
 * The teacher, blind to the label that it wrote the candidate for; its record is what it says of gold rows. It is asked,
 * and paid, only where its word could matter.
 */
async function askTeacher(
  campaign: Campaign,
  { prefix, iteration }: Place,
  seed: SeedData,
  open: readonly Candidate[],
  matters: (candidate: Candidate, record: Reliability) => boolean,
): Promise<Checker> {
  const gold = goldSample(campaign, seed).slice(0, campaign.spending.callsLeft);
  const { opinions: record } = await labelRows(campaign, "teacher_record", gold, gold);
  const reliability = measureReliability(gold, calibrate(record, record, gold), labelNames(campaign));
  const rows = open
    .filter((candidate) => matters(candidate, reliability))
    .slice(0, campaign.spending.callsLeft)
    .map((candidate) => candidateRow(candidate, iteration));
  const { opinions } = await labelRows(campaign, `${prefix}/check/teacher`, rows, gold);
  return {
    name: "teacher",
    reliability,
    opinions: new Map(calibrate(opinions, record, gold).map((opinion) => [opinion.rowId, opinion])),
  };
}

/**
 * The teacher's own answers to rows, as an artifact of rows whose outputs they are. Undefined where the budget ended
 * before the rows did.
 */
export async function teacherAnswers(
  campaign: Campaign,
  prefix: string,
  seed: SeedData,
  rows: readonly Row[],
): Promise<RowSource | undefined> {
  const gold = goldSample(campaign, seed);
  if (gold.length + rows.length > campaign.spending.callsLeft) return undefined;
  const { opinions: record, cut } = await labelRows(campaign, `${prefix}/record`, gold, gold);
  const blind = rows.map((row) => ({ ...row, output: "" }));
  const asked = await labelRows(campaign, `${prefix}/answer`, blind, gold);
  if (cut || asked.cut) return undefined;
  // As its opinions count everywhere else.
  const answerOf = new Map(calibrate(asked.opinions, record, gold).map(({ rowId, answer }) => [rowId, answer]));
  const { uri, sha256 } = await campaign.step(`${prefix}/publish`, () =>
    campaign.artifacts.put(
      `${campaign.projectId}/runs/${campaign.key.campaignId}/${campaign.lease.fence}/answers-${prefix.replaceAll("/", "-")}.jsonl`,
      blind.map((row) => rowToLine({ ...row, output: answerOf.get(row.id) ?? "" })),
    ),
  );
  return { uri, sha256, split: Split.UNSPECIFIED, rowIds: [], excludeRootRowIds: [] };
}

function labelNames(campaign: Campaign): string[] {
  return campaign.task.labels.map((label) => label.name);
}

function rowIdOf(candidate: Candidate): string {
  return `candidate-${candidate.number}`;
}

/** A candidate in the form of a row, under a name of its own until it becomes one. */
function candidateRow(candidate: Candidate, iteration: number): Row {
  return {
    id: rowIdOf(candidate),
    input: candidate.input,
    messages: candidate.messages,
    output: candidate.output,
    split: Split.TRAIN,
    origin: RowOrigin.SYNTHETIC,
    rootRowId: candidate.seedRowId,
    parentRowId: candidate.seedRowId,
    iteration,
    metadata: {},
  };
}
