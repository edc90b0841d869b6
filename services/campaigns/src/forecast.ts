/** Forecasts what a campaign will take, before it takes any of it. Pure. */
import { textLength } from "@tutelage/platform/conversation";
import { type Forecast, Mining, Selection, type Settings, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Recipe } from "@tutelage/proto/student/v1/student";
import { type Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import type { TeacherProfile } from "@tutelage/proto/teacher/v1/teacher";
import { armCalls, armSteps } from "./armforecast.js";
import { auditRecordRows } from "./auditing.js";
import { isAudited, needsCrossFit } from "./settings.js";
import { goldRows, preflightRows } from "./writing.js";

/** What a forecast rests on. */
export interface ForecastBasis {
  settings: Settings & { recipe: Recipe };
  task: Task;
  seedRows: readonly Row[];
  devRows: number;
  testRows: number;
  teacher: TeacherProfile;
  /** A campaign of this project that ended with the same student and teacher; undefined where there is none. */
  earlier: EarlierCampaign | undefined;
}

/** A finished campaign, as far as it tells how fast things are here. */
export interface EarlierCampaign {
  id: string;
  settings: ForecastBasis["settings"];
  /** Training rows of each iteration, the seed rows first. */
  trainRows: readonly number[];
  devRows: number;
  wallSeconds: number;
  teacherSeconds: number;
  teacherCalls: number;
}

interface Range {
  low: number;
  likely: number;
  high: number;
}

/** Share of seed rows that a student gets wrong, on tasks between easy and hard (SNIPS and TREC, 60 to 70 seed rows). */
const errorShare = { [Mining.CROSS_FIT]: 0.45, [Mining.IN_SAMPLE]: 0.1 };
/** Share of seed rows that students contradict with confidence. */
const suspectShare = 0.25;
/** Share of what the teacher writes that becomes a row: measured .5 to .8 with the embedded teacher. */
const acceptedShare: Range = { low: 0.4, likely: 0.7, high: 1 };
/** Share of candidates on which the teacher's second look could change what the students' said. */
const checkedShare: Range = { low: 0, likely: 0.5, high: 1 };
/** English text in the tokenizers in use. */
const charactersPerToken = 4;
/** Shown rows of one write prompt, and of one label prompt. */
const rowsInPrompt = { write: 4, label: 12 };
/** Tokens of instructions around them. */
const instructionTokens = 150;

/** The forecasts, in the order in which a person asks for them. */
export function forecast(basis: ForecastBasis): Forecast[] {
  const calls = teacherCalls(basis);
  const steps = optimizerSteps(basis);
  return [
    calls.forecast,
    ...tokensAndMoney(basis, calls.writes, calls.labels),
    steps,
    ...wallSeconds(basis, calls.forecast, steps),
  ];
}

/** Rows that the teacher is asked to write in one iteration. */
function rowsPerIteration({ settings, seedRows }: ForecastBasis): Range {
  if (settings.selection !== Selection.BALANCED) {
    const all = seedRows.length * settings.examplesPerError;
    if (settings.selection === Selection.ALL) return { low: all, likely: all, high: all };
    const share = settings.mining === Mining.IN_SAMPLE ? errorShare[Mining.IN_SAMPLE] : errorShare[Mining.CROSS_FIT];
    return { low: 0, likely: Math.round(all * share), high: all };
  }
  const rows = Math.round(settings.rowsPerSeedRow * seedRows.length);
  return { low: rows, likely: rows, high: rows };
}

function teacherCalls(basis: ForecastBasis): { forecast: Forecast; writes: Range; labels: Range } {
  const { settings, task, seedRows } = basis;
  const rows = rowsPerIteration(basis);
  const tried = settings.preflight === Switch.OFF ? 0 : Math.min(preflightRows, seedRows.length);
  const triedLabels = task.kind === TaskKind.CLASSIFICATION ? tried : 0;
  const checks = settings.checkTeacher === Switch.ON;
  const record = checks ? Math.min(goldRows, seedRows.length) : 0;
  // A campaign may find no errors, or have no gain, and stop after its first iteration.
  const rounds: Range = { low: 1, likely: settings.iterations, high: settings.iterations };
  const each = (one: (bound: keyof Range) => number): Range => ({
    low: one("low"),
    likely: one("likely"),
    high: one("high"),
  });
  // Few replies cannot be read; then the call is made again.
  const callsPerRow: Range = { low: 1, likely: Math.min(1.05, settings.attemptsPerRow), high: settings.attemptsPerRow };
  const writing = (bound: keyof Range) => Math.round(rounds[bound] * rows[bound] * callsPerRow[bound]);
  const arms = each((bound) => armCalls(basis, writing(bound)).writes);
  const secondLooks = (bound: keyof Range) => {
    const ofCampaign = checks ? rounds[bound] * rows[bound] : 0;
    return Math.round((ofCampaign + armCalls(basis, writing(bound)).checked) * checkedShare[bound]);
  };
  const armLabels = armCalls(basis, 0).labels;
  const writes = each((bound) => tried + writing(bound) + arms[bound]);
  const audits = auditCalls(basis);
  const labels = each((bound) => triedLabels + record + armLabels + secondLooks(bound) + audits[bound]);
  const cap = settings.maxTeacherCalls === 0 ? Number.POSITIVE_INFINITY : settings.maxTeacherCalls;
  const sum = each((bound) => Math.min(cap, writes[bound] + labels[bound]));
  const parts = [
    tried > 0 ? `a pre-flight on ${tried} seed rows` : "",
    `about ${rows.likely} new rows in each of up to ${settings.iterations} iterations`,
    checks ? `a second labelling of those that the students leave in doubt, and of ${record} seed rows once` : "",
    arms.likely + armLabels > 0 ? `about ${arms.likely + armLabels} calls of the arms` : "",
    audits.high > 0 ? `labels of up to ${audits.high} seed rows for their audit` : "",
    Number.isFinite(cap) ? `capped at ${cap} calls` : "",
  ].filter(Boolean);
  const basisText =
    settings.selection === Selection.ERRORS_ONLY || settings.selection === Selection.UNCERTAIN
      ? `${parts.join("; ")}. How many seed rows the student gets wrong is known only after training.`
      : `${parts.join("; ")}.`;
  return { forecast: { name: "teacher_calls", ...sum, basis: basisText }, writes, labels };
}

/** Labels that the audit of seed rows asks for beside those that the check of labels pays for; once, and then stored. */
function auditCalls({ settings, task, seedRows }: ForecastBasis): Range {
  if (!isAudited(settings, task)) return { low: 0, likely: 0, high: 0 };
  const checks = settings.checkTeacher === Switch.ON;
  const record = checks ? 0 : Math.min(auditRecordRows, seedRows.length);
  const rows = checks ? Math.max(0, seedRows.length - goldRows) : seedRows.length;
  return { low: 0, likely: record + Math.round(suspectShare * rows), high: record + rows };
}

function tokensAndMoney(basis: ForecastBasis, writes: Range, labels: Range): Forecast[] {
  const { seedRows, teacher, settings } = basis;
  const characters = seedRows.reduce((sum, row) => sum + textLength(row), 0) / Math.max(1, seedRows.length);
  const rowTokens = characters / charactersPerToken;
  const scored = teacher.provider === "embedded";
  const promptTokens = (bound: keyof Range) =>
    writes[bound] * (rowsInPrompt.write * rowTokens + instructionTokens) +
    labels[bound] * (rowsInPrompt.label * rowTokens + instructionTokens);
  // A label is a token or two; a row that is written has about the length of those that were given.
  const completionTokens = (bound: keyof Range) => writes[bound] * (rowTokens + 10) + (scored ? 0 : labels[bound] * 4);
  const within = (one: (bound: keyof Range) => number, slack: number): Range => ({
    low: Math.round(one("low") / slack),
    likely: Math.round(one("likely")),
    high: Math.round(one("high") * slack),
  });
  // Tokens per character differ by language, prompts by form.
  const prompt = within(promptTokens, 1.5);
  const completion = within(completionTokens, 2);
  const lengths = `The mean length of your seed rows, ${Math.round(characters)} characters, at ${charactersPerToken} characters a token.`;
  const prices = [teacher.promptMicroUsdPerMillionTokens, teacher.completionMicroUsdPerMillionTokens] as const;
  const cost = (bound: keyof Range) => (prompt[bound] * prices[0] + completion[bound] * prices[1]) / 1_000_000;
  const cap = settings.maxCostMicroUsd === 0 ? Number.POSITIVE_INFINITY : settings.maxCostMicroUsd;
  const free = prices[0] === 0 && prices[1] === 0;
  return [
    { name: "prompt_tokens", ...prompt, basis: lengths },
    { name: "completion_tokens", ...completion, basis: lengths },
    {
      name: "cost_micro_usd",
      low: Math.min(cap, Math.ceil(cost("low"))),
      likely: Math.min(cap, Math.ceil(cost("likely"))),
      high: Math.min(cap, Math.ceil(cost("high"))),
      basis: free
        ? `Profile "${teacher.name}" has no prices: it runs on this machine, or its operator left them out.`
        : `The forecast tokens at the prices of profile "${teacher.name}". Calls that fail and are billed all the same are not in it${Number.isFinite(cap) ? ", but under the cap" : ""}.`,
    },
  ];
}

function optimizerSteps(basis: ForecastBasis): Forecast {
  const { settings, task, seedRows, devRows } = basis;
  const perRound = rowsPerIteration(basis);
  const total = (bound: keyof Range) => {
    const rounds = bound === "low" ? 2 : settings.iterations + 1;
    const trainRows = Array.from(
      { length: rounds },
      (_, round) => seedRows.length + round * perRound[bound] * acceptedShare[bound],
    );
    const grown = trainRows.at(-1) ?? seedRows.length;
    const arms = armSteps(basis, triesOf(settings, rounds), grown, (rows) => stepsOn(settings, rows));
    return stepsOf({ settings, task }, trainRows, devRows) + arms;
  };
  const crossFit = needsCrossFit(settings, task) ? `, ${settings.folds} more that cross-fit it` : "";
  return {
    name: "optimizer_steps",
    low: total("low"),
    likely: total("likely"),
    high: total("high"),
    basis:
      `One student an iteration${crossFit}, plain fine-tuning's tries and the arms, by the recipe; ` +
      `${Math.round(acceptedShare.likely * 100)} % of what the teacher writes becomes a row.`,
  };
}

/** Optimizer steps of a campaign whose iterations train on so many rows. */
function stepsOf(
  { settings, task }: Pick<ForecastBasis, "settings" | "task">,
  trainRows: readonly number[],
  devRows: number,
): number {
  const { folds } = settings;
  let steps = (triesOf(settings, trainRows.length) - 1) * stepsOn(settings, trainRows[0] ?? 0);
  trainRows.forEach((rows, round) => {
    const isLast = round === trainRows.length - 1;
    // Without dev rows the iterations are chosen by cross-fitting, and only the chosen one gets a student of its own.
    const ownStudent = devRows > 0 || !needsCrossFit(settings, task) || isLast;
    steps += ownStudent ? stepsOn(settings, rows) : 0;
    if (needsCrossFit(settings, task) && (!isLast || devRows === 0))
      steps += folds * stepsOn(settings, (rows * (folds - 1)) / folds);
  });
  return steps;
}

function triesOf({ plainTries }: Settings, rounds: number): number {
  return plainTries === 0 ? rounds : plainTries;
}

/** Optimizer steps of one student on so many rows. */
function stepsOn({ recipe }: ForecastBasis["settings"], rows: number): number {
  if (recipe.exactSteps > 0) return recipe.exactSteps;
  return Math.max(1, recipe.minSteps, Math.ceil((recipe.epochs * rows) / Math.max(1, recipe.batchRows)));
}

/** Time, where a campaign with the same student and teacher has shown how fast they are here. */
function wallSeconds({ earlier, task }: ForecastBasis, calls: Forecast, steps: Forecast): Forecast[] {
  if (earlier === undefined) return [];
  const perCall = earlier.teacherSeconds / Math.max(1, earlier.teacherCalls);
  const otherSeconds = Math.max(0, earlier.wallSeconds - earlier.teacherSeconds);
  const perStep =
    otherSeconds / Math.max(1, stepsOf({ settings: earlier.settings, task }, earlier.trainRows, earlier.devRows));
  const seconds = (bound: keyof Range) => Math.round(perCall * calls[bound] + perStep * steps[bound]);
  return [
    {
      name: "wall_seconds",
      low: seconds("low"),
      likely: seconds("likely"),
      high: seconds("high"),
      basis:
        `Campaign ${earlier.id}, with the same student and teacher, took ${Math.round(earlier.wallSeconds)} s: ` +
        `${perCall.toFixed(2)} s a teacher call, ${perStep.toFixed(2)} s an optimizer step, evaluations included.`,
    },
  ];
}
