/**
 * A stack for whole campaigns: every service as a process of its own, a real
 * Postgres, a real two-layer student, a teacher server that speaks OpenAI's
 * protocol and wants its key.
 */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Stack, startStack } from "@tutelage/standalone/stack";
import {
  type CampaignView,
  call,
  type LabelledRow,
  runTrial,
  startTrial,
  type Trial,
} from "@tutelage/standalone/trial";
import { testDatabaseUrl } from "../support/database.js";
import { writeTinyModel } from "../support/realstudent.js";
import { noteRoutes } from "../support/routes.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { labelOf, labels, task, words } from "../support/tinytask.js";
import { until } from "../support/waiting.js";

export const slow = 240_000;
export const teacherKey = "canary-of-the-teachers-key";

function rowsOf(perLabel: number, split: LabelledRow["split"], offset: number): LabelledRow[] {
  return labels.flatMap((label) =>
    Array.from({ length: perLabel }, (_, index) => {
      const pick = (step: number) => words[label][(index * step + offset + step) % words[label].length];
      return { input: `${split} ${offset + index} ${pick(1)} ${pick(3)} ${pick(5)} ?`, output: label, split };
    }),
  );
}
export const rows = [...rowsOf(6, "train", 0), ...rowsOf(6, "dev", 100), ...rowsOf(10, "test", 200)];

export const quick = { iterations: 2, folds: 2, rows_per_seed_row: 1, attempts_per_row: 1 };
export const profiles = { studentProfile: "tiny", teacherProfile: "scripted" };

async function withoutTemplate(home: string): Promise<string> {
  const folder = join(home, "bare");
  await cp(join(home, "tiny"), folder, { recursive: true });
  await rm(join(folder, "chat_template.jinja"), { force: true });
  const config = join(folder, "tokenizer_config.json");
  const { chat_template: _, ...rest } = JSON.parse(await readFile(config, "utf8"));
  await writeFile(config, JSON.stringify(rest));
  return `file:${folder}`;
}

/** Hours of training, for a test that ends it before. */
export const longRecipe = {
  method: "lora",
  lora_rank: 8,
  lora_alpha: 16,
  trained_layers: 1,
  epochs: 1,
  exact_steps: 500_000,
  batch_rows: 8,
  micro_batch_tokens: 2048,
  learning_rate: 0.001,
  max_grad_norm: 1,
};

export interface CampaignFixture {
  home: string;
  databaseUrl: string;
  stack: Stack;
  teacher: TeacherServer;
  /** Runs a campaign with quick settings to its end. */
  trial(name: string, settings: object, use?: LabelledRow[]): Promise<Trial>;
  /** Starts one, and gives its id. */
  begin(name: string, settings: object): Promise<string>;
  /** Waits until a campaign has one of these statuses. */
  untilStatus(id: string, ...statuses: string[]): Promise<CampaignView>;
  stop(): Promise<void>;
}

/** Under which names the tiny student and the scripted teacher are offered, and what the student can read. */
interface FixtureOptions {
  student?: string;
  teachers?: string[];
  contextTokens?: number;
  /** The same model again, without its chat template. */
  bareStudent?: string;
  /** More variables for every service. */
  environment?: NodeJS.ProcessEnv;
  /** A database of the test's own, which it may take away. */
  databaseUrl?: string;
}

const recipe = `{ method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 4, min_steps: 20,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }`;

export async function startCampaignFixture(options: FixtureOptions = {}): Promise<CampaignFixture> {
  const { student = "tiny", teachers = ["scripted"], contextTokens = 128 } = options;
  const home = await mkdtemp(join(tmpdir(), "tutelage-campaign-"));
  const teacher = await startTeacherServer({ labelOf });
  const model = await writeTinyModel(join(home, "tiny"), contextTokens);
  await mkdir(join(home, "profiles"));
  const profileOf = (name: string, reference: string) =>
    `  ${name}:\n    description: Two random layers.\n    model: ${reference}\n    recipe: ${recipe}\n`;
  const bare = options.bareStudent === undefined ? "" : profileOf(options.bareStudent, await withoutTemplate(home));
  await writeFile(join(home, "profiles/students.yaml"), `profiles:\n${profileOf(student, model)}${bare}`);
  await writeFile(
    join(home, "profiles/teachers.yaml"),
    `profiles:
${teachers
  .map(
    (name) => `  - name: ${name}
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
  )
  .join("")}`,
  );
  const databaseUrl = options.databaseUrl ?? (await testDatabaseUrl());
  const stack = await startStack({
    home,
    httpPort: 0,
    databaseUrl,
    environment: {
      STUDENT_PROFILES: join(home, "profiles/students.yaml"),
      TEACHER_PROFILES: join(home, "profiles/teachers.yaml"),
      STUDENT_THREADS: "1",
      SCRIPTED_TEACHER_KEY: teacherKey,
      // The gateway says then which requests it answered.
      LOG_LEVEL: "info",
      ...options.environment,
    },
  });
  return {
    home,
    databaseUrl,
    stack,
    teacher,
    trial: (name, settings, use = rows) =>
      runTrial(stack, { name, rows: use, task, settings: { ...quick, ...settings }, ...profiles }, () => {}),
    begin: (name, settings) =>
      startTrial(stack, { name, rows, task, settings: { ...quick, ...settings }, ...profiles }),
    untilStatus: async (id, ...statuses) => {
      let now: CampaignView | undefined;
      await until(async () => {
        now = await call<CampaignView>(stack, "GET", `/v1/campaigns/${id}`);
        return statuses.includes(now.run.status);
      }, slow);
      return now as CampaignView;
    },
    stop: async () => {
      await stack.stop();
      await noteRoutes(join(stack.logDirectory, "gateway.log"));
      await teacher.stop();
      await rm(home, { recursive: true, force: true });
    },
  };
}
