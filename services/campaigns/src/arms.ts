/** What a campaign is compared with, besides plain fine-tuning: one function an arm. They decide nothing. */
import { rowText } from "@tutelage/platform/conversation";
import { TutelageError } from "@tutelage/platform/errors";
import { Arm as ArmName, type ArmResult } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { type Row, type RowSource, Split, type Task } from "@tutelage/proto/task/v1/task";
import type { Usage } from "@tutelage/proto/teacher/v1/teacher";
import { edaRows, growByTeacher, type Made } from "./armrows.js";
import { type Campaign, rowSource, type SeedData, trainSource } from "./campaign.js";
import { teacherAnswers } from "./checks.js";
import { rowsOf, whileAway } from "./clients.js";
import { fewShotRows, fewShotTask } from "./fewshot.js";
import { type CrossFit, type Evaluated, evaluateStudent, type Round, type Student } from "./students.js";
import { bestOf, trainTries } from "./tries.js";

/** What the arms are compared with, and share. */
export interface Compared {
  seed: SeedData;
  /** The student that the campaign returns. */
  final: Student;
  /** The round with the rows that the campaign made. */
  grown: Pick<Round, "version" | "leftOut" | "grewFrom">;
  /** Calls that its writing took. */
  writeCalls: number;
  /** The cross-fitted students that know the seed rows only. */
  firstFit: CrossFit | undefined;
  /** Students that an arm has to choose from. */
  tries: number;
}

/** A model, asked as the task asks or otherwise; or answers that are there already. */
type Contender = { student: Answering; asked?: Task } | { answers: RowSource };
type Answering = Parameters<typeof evaluateStudent>[2];

/** An arm that is ready to be measured, or why it is not. */
export interface Arm {
  result: ArmResult;
  contender: Contender | undefined;
}

type RunArm = (campaign: Campaign, name: string, compared: Compared) => Promise<Arm>;

/**
 * Makes every arm ready that was asked for, in the order of the table. What keeps one from being there is said in its
 * place: the campaign has its result without it.
 */
export async function runArms(campaign: Campaign, compared: Compared): Promise<Arm[]> {
  const asked = new Set(campaign.settings.arms);
  const chosen = arms.filter(({ arm }) => asked.has(arm));
  if (compared.seed.testRows === 0)
    return chosen.map(({ name }) => leftOut(name, "There are no test rows to compare on."));
  campaign.spending.conclude();
  await campaign.spending.fixCaps("arms/caps");
  const made = new Map<string, Arm>();
  const make = async ({ name, run }: (typeof arms)[number]) => {
    made.set(name, await orLeftOut(campaign, name, () => run(campaign, name, compared)));
  };
  const oneByOne = async () => {
    for (const one of chosen) if (asksTeacher.has(one.arm)) await make(one);
  };
  const others = chosen.filter(({ arm }) => !asksTeacher.has(arm)).map((one) => () => make(one));
  await campaign.sideBySide([oneByOne, ...others]);
  return chosen.flatMap(({ name }) => made.get(name) ?? []);
}

/** An arm, or why it failed: remembered, so that it stays out when the loop passes here again. */
export async function orLeftOut(campaign: Campaign, name: string, run: () => Promise<Arm>): Promise<Arm> {
  const step = `arm/${name}/failed`;
  const before = await campaign.store.step(campaign.key, step);
  if (before !== undefined) return leftOut(name, String(before.output));
  try {
    return await run();
  } catch (error) {
    // What keeps the whole campaign from going on is not the arm's.
    if (campaign.signal.aborted || !(error instanceof TutelageError) || !itsOwn.has(error.code)) throw error;
    if (error.reason === "fence_outdated") throw error;
    const { message } = error;
    return leftOut(name, await campaign.step(step, async () => `It failed: ${message}`));
  }
}

const itsOwn: ReadonlySet<string> = new Set(["invalid_argument", "failed_precondition", "not_found", "data_loss"]);

/** One after the other: what a budget leaves is left once. */
const asksTeacher: ReadonlySet<ArmName> = new Set([ArmName.TEACHER, ArmName.AUGGPT, ArmName.RANDOM, ArmName.ORACLE]);

const arms: readonly { arm: ArmName; name: string; run: RunArm }[] = [
  { arm: ArmName.ZERO_SHOT, name: "zero_shot", run: zeroShot },
  { arm: ArmName.FEW_SHOT, name: "few_shot", run: fewShot },
  { arm: ArmName.TEACHER, name: "teacher", run: teacher },
  { arm: ArmName.PROBE, name: "probe", run: probe },
  { arm: ArmName.NONE_MATCHED, name: "none_matched", run: noneMatched },
  { arm: ArmName.NONE_ALL, name: "none_all", run: noneAll },
  { arm: ArmName.EDA, name: "eda", run: eda },
  { arm: ArmName.AUGGPT, name: "auggpt", run: auggpt },
  { arm: ArmName.RANDOM, name: "random", run: random },
  { arm: ArmName.ORACLE, name: "oracle", run: oracle },
];

async function zeroShot(_: Campaign, name: string, { final }: Compared): Promise<Arm> {
  return { result: armOf(name, { tries: 1 }), contender: { student: baseModel(final) } };
}

/** The base model with seed rows before the question; each try shows others. */
async function fewShot(campaign: Campaign, name: string, { seed, final, tries }: Compared): Promise<Arm> {
  const shown: Row[][] = [];
  for (let number = 0; number < tries; number += 1) {
    const drawn = fewShotRows(seed.seedRows, campaign.task, [campaign.settings.seed, "few_shot", number]);
    const fitting = await campaign.step(`arm/${name}/${number}/rows`, () => fittingRows(campaign, final, seed, drawn));
    shown.push(drawn.slice(0, fitting));
  }
  if (shown.some((rows) => rows.length === 0)) {
    return leftOut(name, "There is no room for a seed row in the prompt of another one.");
  }
  const dev = rowSource(seed.version, { split: Split.DEV });
  const measured = await campaign.sideBySide(
    shown.map((rows, number) => async () => {
      const task = fewShotTask(campaign.task, rows);
      const evaluated: Evaluated | undefined =
        seed.devRows === 0
          ? undefined
          : await evaluateStudent(campaign, `arm/${name}/${number}/dev`, baseModel(final), dev, task);
      return { rows, task, devAccuracy: evaluated?.accuracy };
    }),
  );
  const best = bestOf(measured);
  return {
    result: armOf(name, { tries, trainRows: best.rows.length, choosingScore: best.devAccuracy }),
    contender: { student: baseModel(final), asked: best.task },
  };
}

/** How many of the rows can be shown before the longest dev or test row; half as many as long as that is too long. */
async function fittingRows(campaign: Campaign, final: Student, seed: SeedData, drawn: readonly Row[]): Promise<number> {
  const { services, projectId, signal, task } = campaign;
  const asked = [
    ...(await rowsOf(services, projectId, seed.version.id, Split.DEV, signal)),
    ...(await rowsOf(services, projectId, seed.version.id, Split.TEST, signal)),
  ];
  const longest = asked.reduce((a, b) => (rowText(b).length > rowText(a).length ? b : a));
  const { model, uri: checkpointUri } = baseModel(final);
  for (let count = drawn.length; count > 0; count = Math.floor(count / 2)) {
    const shown = fewShotTask(task, drawn.slice(0, count));
    const request = {
      projectId,
      model,
      checkpointUri,
      task: shown,
      rows: [longest],
      decoding: campaign.settings.decoding,
    };
    const { predictions } = await whileAway(signal, () =>
      services.evaluation.predict(request, { signal, deadline: predictDeadlineMs }),
    );
    if (predictions[0]?.tooLong === false) return count;
  }
  return 0;
}

/** A student may have its model to load, or a training's step to end first. */
const predictDeadlineMs = 120_000;

async function teacher(campaign: Campaign, name: string, { seed }: Compared): Promise<Arm> {
  const test = await rowsOf(campaign.services, campaign.projectId, seed.version.id, Split.TEST, campaign.signal);
  const answers = await teacherAnswers(campaign, `arm/${name}`, seed, test);
  if (answers === undefined) return leftOut(name, "The budget ended before the teacher had answered all test rows.");
  return { result: armOf(name, { tries: 1, usage: usageOf(campaign, name) }), contender: { answers } };
}

/** Logistic regression does not depend on a training seed: one try is all there is. */
async function probe(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  const recipe = { method: TuningMethod.PROBE };
  return await trained(
    campaign,
    name,
    { ...compared, tries: 1 },
    { rows: trainSource(campaign, compared.seed.version), recipe },
  );
}

async function noneMatched(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  const recipe = { exactSteps: compared.final.steps };
  return await trained(campaign, name, compared, { rows: trainSource(campaign, compared.seed.version), recipe });
}

/** Dev rows are trained on here, so that they cannot choose. */
async function noneAll(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  const { seed } = compared;
  if (seed.devRows === 0) return leftOut(name, "There are no dev rows to train on besides the seed rows.");
  const devRows = await rowsOf(campaign.services, campaign.projectId, seed.version.id, Split.DEV, campaign.signal);
  const rows = rowSource(seed.version, { rowIds: [...seed.seedRows, ...devRows].map((row) => row.id) });
  return await trained(campaign, name, { ...compared, seed: { ...seed, devRows: 0 }, tries: 1 }, { rows });
}

async function eda(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  return await trainedOn(campaign, name, compared, await edaRows(campaign, `arm/${name}`, compared));
}

async function auggpt(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  return await trainedOn(campaign, name, compared, await growByTeacher(campaign, "auggpt", compared));
}

async function random(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  return await trainedOn(campaign, name, compared, await growByTeacher(campaign, "random", compared));
}

async function oracle(campaign: Campaign, name: string, compared: Compared): Promise<Arm> {
  return await trainedOn(campaign, name, compared, await growByTeacher(campaign, "oracle", compared));
}

async function trainedOn(campaign: Campaign, name: string, compared: Compared, made: Made): Promise<Arm> {
  if ("leftOut" in made) return leftOut(name, made.leftOut);
  const rows = trainSource(campaign, made.version);
  return await trained(campaign, name, compared, { rows, madeRows: made.rows });
}

/** Arms may train on more rows than the returned student did. */
const slowerThanFinal = 1.5;

/** The best of an arm's students. */
async function trained(
  campaign: Campaign,
  name: string,
  { seed, tries, final }: Compared,
  { madeRows = 0, ...options }: { rows: RowSource; recipe?: Partial<Recipe>; madeRows?: number },
): Promise<Arm> {
  const prefix = `arm/${name}`;
  const isPaid = await campaign.step(`${prefix}/paid`, async () => {
    const left = (await campaign.spending.trainingSecondsLeft()) ?? 0;
    return tries * final.seconds * slowerThanFinal < left;
  });
  if (!isPaid) return leftOut(name, "The seconds of training that are left do not pay for it.");
  const students = await trainTries(campaign, seed, prefix, tries, options);
  const { student, devAccuracy } = bestOf(students);
  const result = armOf(name, {
    tries,
    checkpoint: student.checkpoint,
    trainingRunId: student.trainingRunId,
    trainRows: student.rows,
    steps: student.steps,
    choosingScore: devAccuracy,
    madeRows,
    usage: usageOf(campaign, name),
  });
  return { result, contender: { student: student.checkpoint } };
}

/** What the teacher used for it. */
function usageOf(campaign: Campaign, name: string): Usage | undefined {
  return campaign.spending.usageOf(`arm/${name}/`);
}

/** The base model of a student. */
function baseModel({ checkpoint }: Student): Answering {
  return { model: checkpoint.model, uri: "" };
}

/** An arm that is not measured. */
export function leftOut(name: string, why: string): Arm {
  return { result: armOf(name, { leftOut: why }), contender: undefined };
}

/** A result with what is known of it. */
export function armOf(name: string, known: Partial<ArmResult>): ArmResult {
  return {
    name,
    checkpoint: undefined,
    trainingRunId: "",
    trainRows: 0,
    steps: 0,
    tries: 0,
    choosingScore: undefined,
    testAccuracy: undefined,
    testEvaluationRunId: "",
    triesTestAccuracy: [],
    triesTestEvaluationRunIds: [],
    madeRows: 0,
    usage: undefined,
    leftOut: "",
    finalGain: undefined,
    ...known,
  };
}
