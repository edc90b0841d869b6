/** The default models end to end, small: SmolLM2 as the student, Gemma as the teacher. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Stack, startStack } from "@tutelage/standalone/stack";
import { type LabelledRow, runTrial } from "@tutelage/standalone/trial";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../support/database.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const example = join(root, "examples/support-intents");
const slow = 600_000;
let home: string;
let stack: Stack;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-e2e-"));
  stack = await startStack({
    home,
    httpPort: 0,
    databaseUrl: await testDatabaseUrl(),
    environment: { LOG_LEVEL: "warn" },
  });
}, slow);
afterAll(async () => {
  await stack?.stop();
  await rm(home, { recursive: true, force: true });
}, slow);

/** The first rows of two labels of a file. */
async function few(file: string, split: LabelledRow["split"], perLabel: number): Promise<LabelledRow[]> {
  const lines = (await readFile(join(example, file), "utf8")).trim().split("\n");
  const rows = lines.map((line) => ({ ...(JSON.parse(line) as { input: string; output: string }), split }));
  return ["theft", "cancel"].flatMap((label) => rows.filter((row) => row.output === label).slice(0, perLabel));
}

test(
  "SmolLM2 learns from its own errors and Gemma's rows",
  async () => {
    const task = JSON.parse(await readFile(join(example, "task.json"), "utf8")) as { labels: { name: string }[] };
    const rows = [
      ...(await few("seed.jsonl", "train", 5)),
      ...(await few("dev.jsonl", "dev", 4)),
      ...(await few("test.jsonl", "test", 6)),
    ];
    const { outcome, iterations, campaign } = await runTrial(
      stack,
      {
        name: "small",
        rows,
        task: { ...task, labels: task.labels.filter(({ name }) => name === "theft" || name === "cancel") },
        settings: {
          iterations: 1,
          folds: 2,
          rows_per_seed_row: 0.6,
          attempts_per_row: 2,
          plain_tries: 1,
          preflight: "off",
          recipe: {
            method: "lora",
            lora_rank: 8,
            lora_alpha: 16,
            lora_dropout: 0,
            trained_layers: 4,
            epochs: 1,
            min_steps: 24,
            exact_steps: 0,
            batch_rows: 4,
            micro_batch_tokens: 2048,
            learning_rate: 0.002,
            warmup_share: 0.1,
            weight_decay: 0,
            max_grad_norm: 1,
            average_share: 0,
          },
        },
        studentProfile: "smollm2-135m",
        teacherProfile: "gemma3-270m",
      },
      () => {},
    );
    expect(iterations).toHaveLength(2);
    expect(iterations[0]?.candidates).toBeGreaterThanOrEqual(6);
    expect(outcome.final.test_accuracy?.n).toBe(12);
    // Theft or cancel: a student that has learnt anything is better than chance.
    expect(outcome.final.test_accuracy?.value).toBeGreaterThan(0.5);
    expect(campaign.usage?.calls).toBeGreaterThan(0);
  },
  slow,
);
