/** npm run experiment as a person runs it: the real process tree on an embedded Postgres, killed, stopped and resumed. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Result } from "@tutelage/standalone/experiments/resultfile";
import { erasePostgres } from "@tutelage/standalone/postgres";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { writeTinyModel } from "../support/realstudent.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { labelOf, labels, words } from "../support/tinytask.js";

const main = fileURLToPath(import.meta.resolve("@tutelage/standalone/experiments/main"));
const slow = 600_000;
const patience = { timeout: 200_000, interval: 50 };

let folder: string;
let teacher: TeacherServer;
let environment: NodeJS.ProcessEnv;
const running = new Set<ChildProcess>();

const experiment = `name: tiny
student: tiny
teacher: scripted
task:
  kind: classification
  prompt_template: "Question: {input}\\nClass:"
  labels: [{ name: NUM, description: questions that ask for a number }, { name: LOC, description: questions that ask for a place }]
  grader: label
  row_noun: questions
settings: { iterations: 1, folds: 2, rows_per_seed_row: 1, attempts_per_row: 1, plain_tries: 2, arms: [none_matched] }
experiment:
  data: tiny
  seed_rows: 16
  test_rows: 20
  replicates: 3
`;

/** Every fifth row has the other label's words, so that there is something to get wrong. */
function rowsOf(count: number, offset: number): string {
  return Array.from({ length: count }, (_, index) => {
    const label = labels[index % 2] ?? "NUM";
    const said = words[labels[(index + Number(index % 5 === 0)) % 2] ?? "NUM"];
    const pick = (step: number) => said[(index * step + offset + step) % said.length];
    return `${JSON.stringify({ input: `${offset + index} ${pick(1)} ${pick(3)} ${pick(5)} ?`, output: label })}\n`;
  }).join("");
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-experiment-"));
  // Postgres runs as another user where this one is root.
  await chmod(folder, 0o755);
  await mkdir(join(folder, "data/tiny"), { recursive: true });
  await writeFile(join(folder, "data/tiny/train.jsonl"), rowsOf(80, 0));
  await writeFile(join(folder, "data/tiny/dev.jsonl"), rowsOf(24, 1_000));
  await writeFile(join(folder, "tiny.yaml"), experiment);
  const model = await writeTinyModel(join(folder, "tiny"), 128);
  const recipe = `{ method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 4, min_steps: 20,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }`;
  await writeFile(
    join(folder, "students.yaml"),
    `profiles:\n  tiny:\n    description: Two random layers.\n    model: ${model}\n    recipe: ${recipe}\n`,
  );
  // Slow enough that a kill meets calls under way.
  teacher = await startTeacherServer({ labelOf, delayMs: 200 });
  await writeFile(
    join(folder, "teachers.yaml"),
    `profiles:
  - name: scripted
    provider: openai-compatible
    description: The test's own server.
    model: test-model
    base_url: ${teacher.url}
    api: chat
    prompt_form: chat
    seed_field: seed
    prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }
`,
  );
  environment = {
    ...process.env,
    STUDENT_PROFILES: join(folder, "students.yaml"),
    TEACHER_PROFILES: join(folder, "teachers.yaml"),
    STUDENT_THREADS: "1",
  };
});
afterAll(async () => {
  for (const child of running) child.kill("SIGTERM");
  await Promise.all([...running].map((child) => once(child, "exit")));
  for (const home of ["whole", "broken"]) await erasePostgres(join(folder, home));
  await teacher.stop();
  await rm(folder, { recursive: true, force: true });
}, slow);

interface Run {
  child: ChildProcess;
  /** Standard error so far. */
  progress(): string;
  exit: Promise<number | string>;
  /** The JSON line at the end. */
  line(): unknown;
}

/** Runs replicate 1 with a home and a folder of results of that name. */
function run(name: string, ...more: string[]): Run {
  const at = (part: string) => join(folder, part);
  const args = ["--json", "--home", at(name), "--results", at(`${name}-results`), "--data", at("data"), ...more];
  const child = spawn(process.execPath, [main, at("tiny.yaml"), "--replicates", "1", ...args], {
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  const text = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => {
    text.out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    text.err += chunk.toString();
  });
  const exit = once(child, "close").then(([code, signal]) => {
    running.delete(child);
    return (code ?? signal) as number | string;
  });
  return { child, progress: () => text.err, exit, line: () => JSON.parse(text.out.trimEnd().split("\n").at(-1) ?? "") };
}

async function resultOf(name: string): Promise<{ text: string; result: Result }> {
  const text = await readFile(join(folder, `${name}-results/tiny/default-01.json`), "utf8");
  return { text, result: JSON.parse(text) as Result };
}

/** What may differ between two runs of the same: times, and calls that were under way when it was killed. */
function lasting({ started_at, finished_at, wall_seconds, training_seconds, teacher_usage, ...rest }: Result): object {
  return { ...rest, iterations: rest.iterations.map(({ seconds, ...one }) => one) };
}

test(
  "an experiment that is killed and stopped midway goes on, and its result is that of one that was not",
  async () => {
    const whole = run("whole");
    expect(await whole.exit, whole.progress()).toBe(0);
    expect(whole.line()).toMatchObject({ experiment: "tiny", kept: 0 });
    const { text, result } = await resultOf("whole");
    expect(Object.keys(result.arms).sort()).toEqual(["none", "none_matched", "returned"]);
    expect(result.arms.none?.students).toHaveLength(2);
    expect(result).toMatchObject({ seed_rows: 16, test_rows: 20, replicate: 1, tuned: false });
    expect(result.settings).toMatchObject({ iterations: 1, folds: 2 });
    expect(result.iterations).toHaveLength(2);
    // Numbers and names, and not a word of a row.
    for (const word of Object.values(words).flat()) expect(text).not.toMatch(new RegExp(`\\b${word}\\b.*\\?`));

    const written = () => teacher.calls.filter(({ wants }) => wants === "write").length;
    const before = written();
    const killed = run("broken");
    await vi.waitFor(() => expect(written()).toBeGreaterThan(before + 4), patience);
    killed.child.kill("SIGKILL");
    await killed.exit;
    const stopped = run("broken");
    await vi.waitFor(() => expect(stopped.progress()).toContain("default 1: iteration"), patience);
    stopped.child.kill("SIGTERM");
    expect(await stopped.exit).toBe(130);
    expect(stopped.progress()).toContain("The same command goes on from here.");
    const last = run("broken");
    expect(await last.exit, last.progress()).toBe(0);
    const resumed = await resultOf("broken");
    expect(lasting(resumed.result)).toEqual(lasting(result));
  },
  slow,
);

test("what has its result is not run again, and settings that changed since are refused", async () => {
  const again = run("whole");
  expect(await again.exit).toBe(0);
  expect(again.line()).toEqual({ experiment: "tiny", written: [], kept: 1 });
  await writeFile(join(folder, "tiny.yaml"), experiment.replace("folds: 2", "folds: 3"));
  const changed = run("whole");
  expect(await changed.exit).toBe(1);
  expect(changed.progress()).toMatch(/default-01\.json was made with other settings.*move it away/);
  const unknown = run("whole", "--variants", "nothing");
  expect(await unknown.exit).toBe(1);
  expect(unknown.progress()).toContain('no variant "nothing"; there are default');
  const away = run("whole", "--data", join(folder, "nowhere"));
  expect(await away.exit).toBe(66);
});

test("summary needs the results only, and ends with one JSON line", async () => {
  const out = join(folder, "results.md");
  const args = [main, "summary", "--json", "--results", join(folder, "whole-results"), "--out", out];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  expect((await once(child, "close"))[0]).toBe(0);
  const { tiny } = JSON.parse(text).tasks;
  expect(tiny.arms.default).toMatchObject({
    replicates: 1,
    n: 20,
    mean: expect.any(Number),
    ci95: [expect.any(Number), expect.any(Number)],
  });
  expect(tiny.gain_over_none_matched).toMatchObject({ holm_p: expect.any(Number) });
  expect(tiny).toMatchObject({ gain_over_random: null, share_of_oracle_gain: null });
  expect(await readFile(out, "utf8")).toContain("## tiny");
});
