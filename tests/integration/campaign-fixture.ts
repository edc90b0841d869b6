/**
 * A stack for whole campaigns: every service as a process of its own, a real
 * Postgres, a real two-layer student, a teacher server that speaks OpenAI's
 * protocol and wants its key.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Stack, startStack } from "@tutelage/standalone/stack";
import { type LabelledRow, runTrial, type Trial } from "@tutelage/standalone/trial";
import { testDatabaseUrl } from "../support/database.js";
import { writeTinyModel } from "../support/realstudent.js";
import { noteRoutes } from "../support/routes.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";

export const slow = 240_000;
export const teacherKey = "canary-of-the-teachers-key";

/** Colours and numbers: a closed vocabulary, so that a two-layer student can learn it in seconds. */
const words = {
  NUM: ["four", "seven", "count", "many", "legs", "number", "times", "sum"],
  LOC: ["city", "river", "tower", "north", "street", "land", "hill", "coast"],
};
export const labels = Object.keys(words) as (keyof typeof words)[];
export const labelOf = (text: string) =>
  labels.reduce((best, label) => (hits(text, label) > hits(text, best) ? label : best), "NUM" as keyof typeof words);
const hits = (text: string, label: keyof typeof words) => words[label].filter((word) => text.includes(word)).length;

function rowsOf(perLabel: number, split: LabelledRow["split"], offset: number): LabelledRow[] {
  return labels.flatMap((label) =>
    Array.from({ length: perLabel }, (_, index) => {
      const pick = (step: number) => words[label][(index * step + offset + step) % words[label].length];
      return { input: `${split} ${offset + index} ${pick(1)} ${pick(3)} ${pick(5)} ?`, output: label, split };
    }),
  );
}
export const rows = [...rowsOf(6, "train", 0), ...rowsOf(6, "dev", 100), ...rowsOf(10, "test", 200)];

export const task = {
  name: "tiny",
  kind: "classification",
  prompt_template: "Question: {input}\nClass:",
  labels: [
    { name: "NUM", description: "questions that ask for a number" },
    { name: "LOC", description: "questions that ask for a place" },
  ],
  grader: "label",
  row_noun: "questions",
};
export const quick = { iterations: 2, folds: 2, rows_per_seed_row: 1, attempts_per_row: 1 };
export const profiles = { studentProfile: "tiny", teacherProfile: "scripted" };

export interface CampaignFixture {
  home: string;
  stack: Stack;
  teacher: TeacherServer;
  /** Runs a campaign with quick settings to its end. */
  trial(name: string, settings: object, use?: LabelledRow[]): Promise<Trial>;
  stop(): Promise<void>;
}

export async function startCampaignFixture(): Promise<CampaignFixture> {
  const home = await mkdtemp(join(tmpdir(), "tutelage-campaign-"));
  const teacher = await startTeacherServer({ labelOf });
  const model = await writeTinyModel(join(home, "tiny"));
  await mkdir(join(home, "profiles"));
  await writeFile(
    join(home, "profiles/students.yaml"),
    `profiles:
  tiny:
    description: Two random layers.
    model: ${model}
    recipe: { method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 4, min_steps: 20,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }
`,
  );
  await writeFile(
    join(home, "profiles/teachers.yaml"),
    `profiles:
  - name: scripted
    provider: openai-compatible
    description: The test's own server.
    model: test-model
    base_url: ${teacher.url}
    api_key: env:SCRIPTED_TEACHER_KEY
    api: chat
    prompt_form: chat
    max_retries: 1
    prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }
`,
  );
  const stack = await startStack({
    home,
    httpPort: 0,
    databaseUrl: await testDatabaseUrl(),
    environment: {
      STUDENT_PROFILES: join(home, "profiles/students.yaml"),
      TEACHER_PROFILES: join(home, "profiles/teachers.yaml"),
      STUDENT_THREADS: "1",
      SCRIPTED_TEACHER_KEY: teacherKey,
      // The gateway says then which requests it answered.
      LOG_LEVEL: "info",
    },
  });
  return {
    home,
    stack,
    teacher,
    trial: (name, settings, use = rows) =>
      runTrial(stack, { name, rows: use, task, settings: { ...quick, ...settings }, ...profiles }, () => {}),
    stop: async () => {
      await stack.stop();
      await noteRoutes(join(stack.logDirectory, "gateway.log"));
      await teacher.stop();
      await rm(home, { recursive: true, force: true });
    },
  };
}
