/** The default models end to end, small: SmolLM2 as the student, Gemma as the teacher; and the README's commands. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Stack, startStack } from "@tutelage/standalone/stack";
import { type CampaignView, call, type LabelledRow, runTrial } from "@tutelage/standalone/trial";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../support/database.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const example = join(root, "examples/support-intents");
const slow = 600_000;
let home: string;
let stack: Stack;
let campaignId: string;

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
    campaignId = campaign.run.id;
    expect(iterations).toHaveLength(2);
    expect(iterations[0]?.candidates).toBeGreaterThanOrEqual(6);
    expect(outcome.final.test_accuracy?.n).toBe(12);
    // Theft or cancel: a student that has learnt anything is better than chance.
    expect(outcome.final.test_accuracy?.value).toBeGreaterThan(0.5);
    expect(campaign.usage?.calls).toBeGreaterThan(0);
  },
  slow,
);

test(
  "the README's commands run as they stand",
  async () => {
    const readme = await readFile(join(root, "README.md"), "utf8");
    const block = /```sh\nurl=[\s\S]*?```/.exec(readme)?.[0] ?? "";
    const [setUp = "", follow = ""] = block.replace(/```(sh)?\n?/g, "").split(/^# 3\..*$/m);
    const shell = async (script: string) =>
      (await promisify(execFile)("bash", ["-euc", script], { cwd: root, maxBuffer: 64 * 1024 * 1024 })).stdout;
    const here = (script: string) => script.replace(/^url=.*$/m, `url=${stack.url}`);

    const id = (await shell(`${here(setUp)}\necho; echo "$id"`)).trim().split("\n").at(-1) ?? "";
    const started = await call<CampaignView>(stack, "GET", `/v1/campaigns/${id}`);
    expect(["queued", "running"]).toContain(started.run.status);
    const versions = await call<object>(stack, "GET", "/v1/datasets/my-intents/versions");
    expect(JSON.stringify(versions)).toContain('"test":240');
    await call(stack, "POST", `/v1/campaigns/${id}/cancel`, {});

    // A campaign of the real size takes minutes: its last commands are tried on the small one.
    const archive = join(home, "student.tar");
    const preamble = `url=${stack.url}\njson='content-type: application/json'\nid=${campaignId}\n`;
    const inHome = follow
      .replace("> student.tar", `> ${archive}`)
      .replace("> report.html", `> ${join(home, "report.html")}`);
    const told = await shell(preamble + inHome);
    expect(told).toContain("campaign.finished");
    expect(told).toContain('"predictions"');
    expect((await stat(archive)).size).toBeGreaterThan(10_000);
    expect(await readFile(join(home, "report.html"), "utf8")).toContain("<!doctype html>");

    const commands = /```sh\n(npx tutelage[\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const file = join(home, "support.yaml");
    const listed = await shell(`export TUTELAGE_URL=${stack.url}\n${commands.replaceAll("support.yaml", file)}`);
    expect(listed).toContain("teacher_calls");
    const [, detached = ""] = /^([0-9a-f]{8}-[0-9a-f-]{27})$/m.exec(listed) ?? [];
    expect(listed).toMatch(new RegExp(`^${detached}  (queued|running)`, "m"));
    await call(stack, "POST", `/v1/campaigns/${detached}/cancel`, {});
  },
  slow,
);
