/** What a finished campaign of an experiment leaves in experiments/results: numbers and no row's text. */
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";

const count = z.number().int().min(0);
/** Whether each test row was answered rightly, in the order of the draw: "0110…". */
const correctness = z.string().regex(/^[01]+$/);

const arm = z.strictObject({
  train_rows: count,
  steps: count,
  /** One for each student; more than one where nothing chooses among them. */
  students: z.array(correctness).min(1),
  teacher_calls: count,
});

const iteration = z.strictObject({
  number: count,
  train_rows: count,
  errors: count,
  candidates: count,
  accepted: count,
  /** Shares, 0 to 1. */
  cross_fit_accuracy: z.number().optional(),
  dev_accuracy: z.number().optional(),
  test_accuracy: z.number().optional(),
  seconds: z.number(),
});

const result = z.strictObject({
  format: z.literal(1),
  experiment: z.string(),
  variant: z.string(),
  /** From 1; also the campaign's seed. */
  replicate: z.number().int().min(1),
  /** Of what was asked: the campaign, and how rows are drawn. */
  asked_digest: z.string(),
  /** Of the settings with every default resolved, without the seed; these settings. */
  settings_digest: z.string(),
  settings: z.record(z.string(), z.unknown()),
  student: z.string(),
  teacher: z.string(),
  /** Tested on rows of train.jsonl. */
  tuned: z.boolean(),
  seed_rows: count,
  test_rows: count,
  /** Of the rows as they were drawn. */
  rows_digest: z.string(),
  /** Of the checkout that ran it, empty outside of one; "+" where something was changed since. */
  commit: z.string(),
  started_at: z.string(),
  finished_at: z.string(),
  /** Of the campaign's own work, without test evaluation and arms. */
  wall_seconds: z.number(),
  training_seconds: z.number(),
  teacher_usage: z.strictObject({
    calls: count,
    reused_calls: count,
    prompt_tokens: count,
    completion_tokens: count,
    cost_micro_usd: count,
    seconds: z.number(),
  }),
  stop_reason: z.string(),
  chosen_iteration: z.number().int(),
  plain_returned: z.boolean(),
  /** Which of the plain students stands for plain fine-tuning in the campaign's own report. */
  plain_student: count,
  iterations: z.array(iteration),
  /** "returned" is the campaign's student, "none" plain fine-tuning; the others by their names. */
  arms: z.record(z.string(), arm),
  /** Arms that were asked for and not measured, with the reason. */
  left_out: z.record(z.string(), z.string()),
});

export type Result = z.output<typeof result>;
export type ResultArm = z.output<typeof arm>;

/** Where a replicate's result lies, below the folder of all results. */
export function resultPath(folder: string, experiment: string, variant: string, replicate: number): string {
  return join(folder, experiment, `${variant}-${String(replicate).padStart(2, "0")}.json`);
}

/** The result, or undefined where there is none yet. */
export async function readResult(path: string): Promise<Result | undefined> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  return text === undefined ? undefined : parseResult(text, path);
}

function parseResult(text: string, path: string): Result {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(`${path}: is not JSON.`);
  }
  const read = result.safeParse(value);
  if (!read.success) {
    const [issue] = read.error.issues;
    throw new Error(`${path}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
  }
  const lengths = Object.entries(read.data.arms).flatMap(([name, { students }]) =>
    students.map((one) => ({ name, rows: one.length })),
  );
  const odd = lengths.find(({ rows }) => rows !== read.data.test_rows);
  if (odd !== undefined) {
    throw new Error(`${path}: arms.${odd.name}: has ${odd.rows} rows, where test_rows is ${read.data.test_rows}.`);
  }
  return read.data;
}

/** Writes it whole or not at all. */
export async function writeResult(path: string, one: Result): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const draft = `${path}.tmp`;
  await writeFile(draft, `${JSON.stringify(one, null, 2)}\n`);
  await rename(draft, path);
}

/** All results below a folder, in order of experiment, variant and replicate. None where the folder is missing. */
export async function readResults(folder: string): Promise<Result[]> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const files = names.filter((name) => name.endsWith(".json")).sort();
  return await Promise.all(
    files.map(async (name) => parseResult(await readFile(join(folder, name), "utf8"), join(folder, name))),
  );
}
