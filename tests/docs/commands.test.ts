/**
 * Every command of README.md and docs/*.md, as it stands, against a real
 * server: each document in a shell of its own, in a copy of the tree. The
 * default student is a two-layer model here and the default teacher a server
 * that speaks OpenAI's protocol, so that a campaign takes seconds; the real
 * ones are in tests/e2e.
 */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { choosePorts } from "@tutelage/standalone/ports";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testDatabaseUrl } from "../support/database.js";
import { writeTinyModel } from "../support/realstudent.js";
import { startTeacherServer, type TeacherServer } from "../support/teacher-server.js";
import { commandsOf, missingLines } from "./blocks.js";
import { labelFinder } from "./labels.js";
import { type DocServer, startServer, startsServer } from "./server.js";
import { openShell, type Shell } from "./shell.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const commandMs = 420_000;
const startMs = 240_000;

const docs = [
  "README.md",
  ...(await readdir(join(root, "docs")))
    .filter((name) => name.endsWith(".md"))
    .sort()
    .map((name) => `docs/${name}`),
];
const documents = await Promise.all(
  docs.map(async (file) => ({ file, commands: commandsOf(file, await readFile(join(root, file), "utf8")) })),
);

let home: string;
let teacher: TeacherServer;
let shared: DocServer;
let environment: NodeJS.ProcessEnv;
/** A free address for each that a document gives to a service. */
const addresses = new Map<string, string>();

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-docs-"));
  const tree = join(home, "tree");
  await copyTree(tree);
  teacher = await startTeacherServer({ labelOf: labelFinder(home) });
  await mkdir(join(home, "profiles"));
  await mkdir(join(home, "bin"));
  const students = join(home, "profiles/students.yaml");
  const teachers = join(home, "profiles/teachers.yaml");
  await writeFile(students, tinyStudent(await writeTinyModel(join(home, "tiny"), 1_024)));
  await writeFile(teachers, scriptedTeacher(teacher.url));
  // A refusal of the server must fail a document's command, also where the reader's curl only prints it.
  await writeFile(join(home, "bin/curl"), '#!/bin/sh\nexec /usr/bin/curl --fail-with-body "$@"\n', { mode: 0o755 });
  environment = {
    ...process.env,
    HOME: home,
    PATH: `${join(home, "bin")}:${process.env.PATH}`,
    STUDENT_PROFILES: students,
    TEACHER_PROFILES: teachers,
    STUDENT_THREADS: "1",
    STUDENT_DEVICE: "cpu",
    // A warning of npm in a document's output helps nobody.
    npm_config_update_notifier: "false",
    npm_config_loglevel: "error",
  };
  shared = await startServer("npm start", tree, await ownServer("shared"));
}, startMs);
afterAll(async () => {
  await shared?.stop();
  await teacher?.stop();
  await rm(home, { recursive: true, force: true });
}, 60_000);

/** Home, port and database of a server, and everything else as the reader would have it. */
async function ownServer(name: string): Promise<NodeJS.ProcessEnv> {
  return {
    ...environment,
    TUTELAGE_HOME: join(home, `server-${name}`),
    TUTELAGE_PORT: "0",
    DATABASE_URL: await testDatabaseUrl(),
    LOG_LEVEL: "warn",
  };
}

/** The services' usual addresses, 127.0.0.1:50051 and so on, may be taken on the machine that runs this. */
async function withFreeAddresses(command: string): Promise<string> {
  for (const [usual] of command.matchAll(/127\.0\.0\.1:5005\d/g)) {
    if (!addresses.has(usual)) addresses.set(usual, `127.0.0.1:${(await choosePorts(1))[0]}`);
  }
  return command.replace(/127\.0\.0\.1:5005\d/g, (usual) => addresses.get(usual) ?? usual);
}

/** The examples are copied; what else commands name is the tree itself. */
async function copyTree(tree: string): Promise<void> {
  await mkdir(tree);
  for (const name of await readdir(root)) {
    if (name === "examples") await cp(join(root, name), join(tree, name), { recursive: true });
    else if (name !== ".git") await symlink(join(root, name), join(tree, name));
  }
}

for (const { file, commands } of documents) {
  if (commands.length === 0) continue;
  describe(file, () => {
    let shell: Shell | undefined;
    let server: DocServer | undefined;
    let block = 0;
    /** Of the commands of this block so far. */
    let said = "";
    beforeAll(async () => {
      if (commands.every(({ notRun }) => notRun !== undefined)) return;
      const folder = join(home, "shells", basename(file));
      await mkdir(folder, { recursive: true });
      // Each document begins in a fresh copy: what another one wrote is not there.
      const tree = join(folder, "tree");
      await copyTree(tree);
      shell = openShell(tree, folder, { ...environment, TUTELAGE_URL: shared.url });
    }, startMs);
    afterAll(async () => {
      await shell?.stop();
      await server?.stop();
    }, 60_000);

    for (const { line, text, notRun, fails, block: own, shows } of commands) {
      const name = `${file}:${line}: ${text.split("\n")[0]}`;
      test.skipIf(notRun !== undefined)(
        notRun === undefined ? name : `${name} (not run: ${notRun})`,
        async () => {
          if (shell === undefined) throw new Error("There is no shell.");
          if (startsServer(text)) {
            // The plain one is the shared server, which is running.
            if (text === "npm start") return;
            const tree = join(home, "shells", basename(file), "tree");
            await server?.stop();
            server = await startServer(await withFreeAddresses(text), tree, await ownServer(basename(file)));
            await shell.run(`export TUTELAGE_URL=${server.url}`, 5_000);
            return;
          }
          const here = (await withFreeAddresses(text)).replaceAll("http://127.0.0.1:8080", (server ?? shared).url);
          const { code, output } = await shell.run(here, commandMs);
          if ((code === 0) === fails) {
            const end = output.length > 4_000 ? `…${output.slice(-4_000)}` : output;
            const how = fails ? "succeeded, and was to fail" : `ended with exit code ${code}`;
            expect.fail(`${file}:${line}: the command ${how}.\n\n${text}\n\n${end}`);
          }
          said = own === block ? said + output : output;
          block = own;
          const missing = missingLines(shows, said);
          if (missing.length > 0) {
            expect.fail(
              `${file}:${line}: its output lacks what is shown:\n${missing.join("\n")}\n\n${text}\n\n${said}`,
            );
          }
        },
        Math.max(commandMs, startMs) + 10_000,
      );
    }
  });
}

/** The default student's name, two random layers, seconds to train. */
function tinyStudent(model: string): string {
  return `profiles:
  smollm2-135m:
    description: Two random layers.
    model: ${model}
    recipe: { method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0, trained_layers: 1, epochs: 1, min_steps: 10,
      exact_steps: 0, batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.01, warmup_share: 0.1, weight_decay: 0,
      max_grad_norm: 1, average_share: 0 }
`;
}

/** The default teacher's name, answered by the test's server. */
function scriptedTeacher(url: string): string {
  return `profiles:
  - name: gemma3-270m
    provider: openai-compatible
    description: The test's own server.
    model: test-model
    base_url: ${url}
    prices: { prompt_micro_usd_per_million_tokens: 1000000, completion_micro_usd_per_million_tokens: 2000000 }
`;
}
