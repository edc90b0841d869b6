/**
 * The way of a new user, with the command line alone: a spreadsheet, a campaign
 * whose server is killed in the middle, the report, the student at home. The
 * student is a two-layer model and the teacher a server that speaks OpenAI's
 * protocol, so that it takes a minute; embedded.test.ts has the real models.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { choosePorts } from "@tutelage/standalone/ports";
import { startPostgres } from "@tutelage/standalone/postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelFinder } from "../docs/labels.js";
import { writeTinyModel } from "../support/realstudent.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { until } from "../support/waiting.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const command = join(root, "cli/bin/tutelage.mjs");
const slow = 600_000;
/** Calls of the profile that may be under way when the teacher's service dies. */
const mostUnderWay = 8;

let home: string;
/** Where the user is. */
let desk: string;
let teacher: TeacherServer;
let environment: NodeJS.ProcessEnv;
let server: ChildProcess | undefined;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-journey-"));
  await chmod(home, 0o755);
  desk = join(home, "desk");
  await mkdir(desk);
  await cp(join(root, "examples/support-intents/tickets.csv"), join(desk, "tickets.csv"));
  teacher = await startTeacherServer({ labelOf: labelFinder(desk), delayMs: 30 });
  const [port] = await choosePorts(1);
  await writeFile(join(home, "students.yaml"), student(await writeTinyModel(join(home, "tiny"), 1_024)));
  await writeFile(
    join(home, "teachers.yaml"),
    `profiles: [{ name: gemma3-270m, provider: openai-compatible, model: test-model, base_url: "${teacher.url}",
  max_concurrency: ${mostUnderWay} }]`,
  );
  environment = {
    ...process.env,
    TUTELAGE_HOME: join(home, "data"),
    TUTELAGE_PORT: String(port),
    TUTELAGE_URL: `http://127.0.0.1:${port}`,
    STUDENT_PROFILES: join(home, "students.yaml"),
    TEACHER_PROFILES: join(home, "teachers.yaml"),
    STUDENT_THREADS: "1",
  };
  await startServer();
}, slow);
afterAll(async () => {
  if (server !== undefined && server.exitCode === null) {
    server.kill("SIGTERM");
    await once(server, "exit");
  }
  await teacher?.stop();
  const postgres = await startPostgres(join(home, "data"));
  await postgres.stop();
  await rm(home, { recursive: true, force: true });
}, slow);

const student = (model: string) => `profiles:
  smollm2-135m:
    model: ${model}
    recipe: { method: lora, lora_rank: 8, lora_alpha: 16, trained_layers: 1, epochs: 1, min_steps: 30, batch_rows: 8,
      micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0, max_grad_norm: 1 }
`;

async function startServer(): Promise<void> {
  const child = spawn(process.execPath, [join(root, "services/standalone/dist/main.js")], { env: environment });
  server = child;
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
  }
  await until(() => {
    if (child.exitCode !== null) throw new Error(said);
    return said.includes("Ctrl-C stops it.");
  }, slow);
}

interface Told {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the command to its end. */
function tutelage(...args: string[]): Promise<Told> {
  return new Promise((done) => {
    const options = { cwd: desk, env: environment, maxBuffer: 64 * 1024 * 1024 };
    execFile(process.execPath, [command, ...args], options, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

/** What was told on standard output of a command that must succeed. */
async function told(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await tutelage(...args);
  expect(code, `tutelage ${args.join(" ")}\n${stderr}`).toBe(0);
  return stdout;
}

test(
  "from a spreadsheet to a student at home, with the server killed on the way",
  async () => {
    // What is in the file?
    const guessed = await told("init", "tickets.csv");
    expect(guessed).toContain("What they wrote → Sorted into");
    expect(guessed).toContain("account, billing, cancel, delivery, pause, repair, swap, theft");
    const file = join(desk, "campaign.yaml");
    await writeFile(file, (await readFile(file, "utf8")).replace("iterations: 3", "iterations: 1"));

    // What will it take?
    const forecast = await tutelage("estimate", "campaign.yaml");
    expect(forecast.stderr).toMatch(/^tickets\.csv: \d+ rows as train\ntickets\.csv: \d+ rows as test$/m);
    expect(forecast.stdout).toMatch(/^teacher_calls +[\d,]+ +[\d,]+ +[\d,]+ +\S/m);
    expect(teacher.calls).toHaveLength(0);

    // Begun, and in the middle of it the machine dies: past the pre-flight's 16 rows, twice asked about.
    const running = tutelage("run", "campaign.yaml");
    await until(() => teacher.calls.length > 45, slow);
    server?.kill("SIGKILL");
    const cut = await running;
    expect(cut.code).toBe(69);
    // As the kill meets it: between two questions, or in the middle of an answer.
    expect(cut.stderr).toMatch(/Nobody answers at|The connection to \S+ broke/);
    const id = /Campaign ([0-9a-f-]{36})/.exec(cut.stderr)?.[1] ?? "";

    // The same command goes on with the same campaign, and what the teacher has answered is not asked again.
    await startServer();
    const again = await tutelage("run", "campaign.yaml");
    expect(again.code, again.stderr).toBe(0);
    expect(again.stderr).toContain(`Campaign ${id}`);
    expect(again.stdout).toMatch(/^iteration +rows +errors/m);
    const campaign = JSON.parse(await told("campaigns", "get", id, "--json"));
    expect(campaign.run.status).toBe("succeeded");
    expect(teacher.calls.length - campaign.usage.calls).toBeLessThanOrEqual(mostUnderWay);
    expect(JSON.parse(await told("campaigns", "list", "--json"))).toHaveLength(1);

    // What came of it?
    expect(await told("report", id)).toContain(campaign.outcome.summary);
    await told("report", id, "--out", "report.html");
    const page = await readFile(join(desk, "report.html"), "utf8");
    expect(page).toContain("<!doctype html>");
    expect(page).toContain(campaign.outcome.summary);
    expect(page).not.toMatch(/<script|https?:\/\/(?!127\.0\.0\.1)/);

    // Ask it here, take it home, ask it there: the same answer.
    const text = "my saddle is loose";
    const [answer] = JSON.parse(await told("predict", id, text, "--json"));
    await told("export", id, "--out", "student.tar");
    const athome = join(desk, "student");
    await mkdir(athome);
    await python("-m", ["tarfile", "-e", join(desk, "student.tar"), athome]);
    expect((await readdir(athome, { recursive: true })).some((name) => name.endsWith(".safetensors"))).toBe(true);
    const { task } = campaign.request;
    const labels = task.labels.map(({ name }: { name: string }) => name);
    const asked = { prompt: task.prompt_template.replace("{input}", text), labels };
    const theirs = JSON.parse(
      await python(join(root, "tests/e2e/ask_student.py"), [join(home, "tiny"), athome], JSON.stringify(asked)),
    );
    expect(labels).toContain(answer.text);
    // The files are float32, the student here may compute in bfloat16: its logits have 8 bits, and .030 apart was seen.
    for (const { label, probability } of answer.label_scores)
      expect(Math.abs(theirs[label] - probability), label).toBeLessThan(0.06);
  },
  slow,
);

/** Runs a program of the user's own Python; gives what it printed. */
async function python(program: string, args: string[], input = ""): Promise<string> {
  const child = spawn(join(root, ".venv/bin/python"), [program, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(input);
  let printed = "";
  child.stdout.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
  });
  const [code] = await once(child, "close");
  expect(code).toBe(0);
  return printed;
}
