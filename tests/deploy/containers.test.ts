/**
 * The Dockerfile and the compose file, as far as they can be tried without an
 * engine: what they copy is there, what they run is what runs here, and each
 * service starts with exactly its environment and becomes healthy.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { settings as campaigns } from "@tutelage/campaigns/start";
import { settings as datasets } from "@tutelage/datasets/start";
import { settings as evaluation } from "@tutelage/evaluation/start";
import { gatewaySettings as gateway } from "@tutelage/gateway/start";
import { choosePorts } from "@tutelage/standalone/ports";
import { settings as teacher } from "@tutelage/teacher/start";
import { settings as training } from "@tutelage/training/start";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { testDatabaseUrl } from "../support/database.js";
import { copiesOf, inherited, isIgnored, readDockerfile, type Stage } from "./dockerfile.js";

interface Service {
  image?: string;
  build?: { target: string; args?: Record<string, string> };
  command?: string[];
  environment: Record<string, string>;
  secrets?: string[];
  healthcheck: { test: string[] };
  depends_on?: Record<string, { condition: string }>;
  ports?: string[];
}

const root = fileURLToPath(new URL("../../", import.meta.url));
const run = promisify(execFile);
const settings: Record<string, object> = { campaigns, datasets, evaluation, gateway, teacher, training };
const targets = ["services", "student", "standalone"];
const names = ["postgres", "datasets", "training", "evaluation", "teacher", "campaigns", "student", "gateway"];

let stages: Stage[];
let services: Record<string, Service>;
let compose: { secrets: Record<string, object>; volumes: Record<string, unknown> };
let ignored: string[];
let folder: string;
const children: ChildProcess[] = [];

beforeAll(async () => {
  stages = await readDockerfile(join(root, "Dockerfile"));
  const read = parse(await readFile(join(root, "deploy/compose.yaml"), "utf8"), { merge: true });
  compose = read;
  services = read.services;
  ignored = (await readFile(join(root, ".dockerignore"), "utf8"))
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  folder = await mkdtemp(join(tmpdir(), "tutelage-deploy-"));
});
afterAll(async () => {
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(children.map((child) => child.exitCode ?? child.signalCode ?? once(child, "exit")));
  await rm(folder, { recursive: true, force: true });
}, 60_000);

const serviceOf = (name: string) => services[name] as Service;
const portOf = (address: string | undefined) => address?.split(":").at(-1) ?? "";
const ownListen = (name: string) => serviceOf(name).environment[`${name.toUpperCase()}_LISTEN`];

test("every file that an image copies is there and reaches the builder; every stage that it names is above", () => {
  for (const [index, stage] of stages.entries()) {
    const above = stages.slice(0, index).map(({ name }) => name);
    if (!stage.from.includes(":")) expect(above).toContain(stage.from);
    for (const { from, sources } of copiesOf(stage)) {
      if (from !== undefined) expect(above).toContain(from);
      else {
        for (const source of sources) {
          expect(existsSync(join(root, source)), source).toBe(true);
          expect(isIgnored(ignored, source), source).toBe(false);
        }
      }
    }
  }
  for (const out of [".git/config", ".env", "node_modules/x", "services/student/tests/a.py", "proto/generated/a.ts"]) {
    expect(isIgnored(ignored, out), out).toBe(true);
  }
});

test("every package of the workspace is in the images, so that npm ci agrees with the lock file", async () => {
  const { workspaces } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  expect(workspaces).toEqual(["proto", "services/*", "cli"]);
  const { references } = JSON.parse(await readFile(join(root, "tsconfig.json"), "utf8"));
  const copied = stages.find(({ name }) => name === "manifests") as Stage;
  const sources = copiesOf(copied).flatMap((copy) => copy.sources);
  for (const { path } of references) expect(sources).toContain(`${path}/package.json`);
});

test("what an image runs is what the set-up of the tests runs", async () => {
  const { stepNames } = await import("../../tools/setup.mjs" as string);
  const known = [
    /^apt-get update && apt-get install --yes --no-install-recommends [\w -]+ && rm -rf \/var\/lib\/apt\/lists\/\*$/,
    /^npm ci --omit=dev --ignore-scripts --no-audit --no-fund$/,
    /^\.venv\/bin\/python services\/student\/generate\.py$/,
    /^install --directory --owner=1000 --group=1000 \/var\/lib\/tutelage$/,
  ];
  const taken: string[] = [];
  for (const { instructions } of stages) {
    for (const { text } of instructions.filter(({ name }) => name === "RUN")) {
      const command = text.replace(/^--mount=\S+ /, "").replace(/^TUTELAGE_TORCH=\$TORCH /, "");
      const [, steps] = /^node tools\/setup\.mjs --only="([^"]+)"$/.exec(command) ?? [];
      if (steps === undefined)
        expect(
          known.some((one) => one.test(command)),
          command,
        ).toBe(true);
      else taken.push(...steps.split(","));
    }
  }
  expect(taken.sort()).toEqual([...stepNames].sort());
});

test("npm installs what runs, from the lock file alone", async () => {
  for (const stage of stages.filter(({ name }) => name === "manifests")) {
    for (const source of copiesOf(stage).flatMap((copy) => copy.sources)) {
      const target = join(folder, "npm", source);
      await run("mkdir", ["-p", dirname(target)]);
      await run("cp", [join(root, source), target]);
    }
  }
  const args = [
    "ci",
    "--omit=dev",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--dry-run",
    "--offline",
    "--loglevel=notice",
  ];
  const { stdout } = await run("npm", args, { cwd: join(folder, "npm") });
  expect(stdout).toMatch(/added \d+ packages/);
}, 60_000);

test("the CPU build of PyTorch leaves out what only CUDA needs, and nothing else", async () => {
  const { withoutCuda } = await import("../../tools/setup.mjs" as string);
  const requirements = await readFile(join(root, "services/student/requirements.txt"), "utf8");
  const { others, torch } = withoutCuda(requirements);
  const listed = (text: string) => [...text.matchAll(/^([\w.-]+)==/gm)].map(([, name]) => name);
  const left = listed(requirements).filter((name) => !listed(others).includes(name));
  expect(torch).toMatch(/^torch==\d/);
  expect(left).toEqual(expect.arrayContaining(["torch", "triton"]));
  for (const name of left) expect(name).toMatch(/^(torch|triton|nvidia-|cuda-)/);
  expect(listed(others)).toEqual(expect.arrayContaining(["transformers", "peft", "safetensors"]));
  await expect(
    run(process.execPath, [join(root, "tools/setup.mjs"), "--only=no such step"], { cwd: root }),
  ).rejects.toMatchObject({ stderr: expect.stringContaining('There is no step "no such step"') });
});

test("each target runs as an ordinary user, says whether it is healthy, and holds no secret", () => {
  for (const target of targets) {
    const stage = stages.find(({ name }) => name === target) as Stage;
    expect(inherited(stages, stage, "USER").at(-1)).toBe("1000:1000");
    expect(inherited(stages, stage, "HEALTHCHECK")).toHaveLength(1);
    const command = JSON.parse(inherited(stages, stage, "CMD").at(-1) ?? "[]") as string[];
    expect(command.length).toBeGreaterThan(1);
  }
  for (const { instructions } of stages) {
    for (const { name, text } of instructions) {
      if (name === "ENV" || name === "ARG") expect(text).not.toMatch(/TOKEN|PASSWORD|SECRET|KEY/);
    }
  }
});

test("the compose file names each service once, with targets, variables, ports and health that agree", async () => {
  expect(Object.keys(services).sort()).toEqual([...names].sort());
  const code =
    "from tutelage_student.settings import Settings\nfor n, f in Settings.model_fields.items(): print(f.validation_alias or 'STUDENT_' + n.upper())";
  const { stdout } = await run(join(root, ".venv/bin/python"), ["-c", code], { cwd: join(root, "services/student") });
  const studentVariables = stdout.trim().split("\n");
  for (const name of names.filter((one) => one !== "postgres")) {
    const service = serviceOf(name);
    expect(targets).toContain(service.build?.target);
    const known = name === "student" ? studentVariables : Object.keys(settings[name] ?? {});
    expect(known, name).toEqual(expect.arrayContaining(Object.keys(service.environment)));
    expect(service.secrets).toEqual(Object.keys(compose.secrets));
    expect(service.environment.TUTELAGE_TOKEN_FILE).toBe(`/run/secrets/${service.secrets?.[0]}`);
    expect(portOf(service.healthcheck.test.at(-1)).replace("/health", "")).toBe(portOf(ownListen(name)));
    for (const [variable, address] of Object.entries(service.environment)) {
      const [, other = ""] = /^(\w+)_ADDRESS$/.exec(variable) ?? [];
      if (other !== "") expect(address).toBe(`${other.toLowerCase()}:${portOf(ownListen(other.toLowerCase()))}`);
    }
    // What it calls has to be there first: directly, or behind what it waits for.
    for (const { condition } of Object.values(service.depends_on ?? {})) expect(condition).toBe("service_healthy");
  }
  expect(serviceOf("gateway").ports).toEqual([`127.0.0.1:8080:${portOf(ownListen("gateway"))}`]);
});

test("each service starts with exactly its environment, and the whole becomes healthy and ready", async () => {
  const token = "a-token-of-the-compose-test";
  await writeFile(join(folder, "token"), `${token}\n`);
  const databaseUrl = await testDatabaseUrl();
  const own = names.filter((name) => name !== "postgres");
  const free = await choosePorts(own.length);
  const ports = new Map(own.map((name, index) => [portOf(ownListen(name)), String(free[index])]));
  // Only places differ: this machine has other ports, another root and no names for containers.
  const placed = (value: string) =>
    value
      .replace(/^postgres:\/\/.*/, databaseUrl)
      .replace(/^\/run\/secrets\/tutelage_token$/, join(folder, "token"))
      .replace("/var/lib/tutelage", join(folder, "home"))
      .replace(/^\/app\//, root)
      .replace(new RegExp(`^(${own.join("|")}):`), "127.0.0.1:")
      .replace(/:(\d+)(?=$|\/health$)/, (_, port: string) => `:${ports.get(port) ?? port}`);
  const folderOf = (name: string) => (name === "student" ? join(root, "services/student") : root);
  const logs = new Map<string, string>();
  for (const name of own) {
    const { command = [], environment } = serviceOf(name);
    const [program = "", ...args] = command.map(placed);
    const child = spawn(program === "node" ? process.execPath : program, args, {
      cwd: folderOf(name),
      env: Object.fromEntries(Object.entries(environment).map(([key, value]) => [key, placed(value)])),
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk: Buffer) => logs.set(name, `${logs.get(name) ?? ""}${chunk}`));
    }
    children.push(child);
  }
  const deadline = Date.now() + 300_000;
  await Promise.all(
    own.map(async (name, index) => {
      const [, program = "", ...args] = serviceOf(name).healthcheck.test.map(placed);
      for (;;) {
        const healthy = await run(program === "node" ? process.execPath : program, args, { cwd: folderOf(name) }).then(
          () => true,
          () => false,
        );
        if (healthy) return;
        expect(children[index]?.exitCode, `${name} ended: ${logs.get(name)}`).toBeNull();
        if (Date.now() > deadline) throw new Error(`${name} is not healthy: ${logs.get(name)}`);
        await sleep(1_000);
      }
    }),
  );
  const url = `http://127.0.0.1:${ports.get("8080")}`;
  await request(url).get("/ready").expect(200);
  await request(url).get("/v1/profiles/students").expect(401);
  const { body } = await request(url).get("/v1/profiles/students").set("authorization", `Bearer ${token}`).expect(200);
  expect(body.profiles[0].name).toBe("smollm2-135m");
  for (const log of logs.values()) expect(log).not.toContain(token);
}, 400_000);

test("the standalone image starts only with a token, and then everything in it listens for whoever has it", async () => {
  const stage = stages.find(({ name }) => name === "standalone") as Stage;
  const variables = inherited(stages, stage, "ENV").flatMap((text) => text.split(/\s+/).map((pair) => pair.split("=")));
  const [, ...args] = JSON.parse(inherited(stages, stage, "CMD").at(-1) ?? "[]") as string[];
  const [port] = await choosePorts(1);
  const env = {
    PATH: process.env.PATH,
    ...Object.fromEntries(variables),
    TUTELAGE_HOME: join(folder, "standalone"),
    HF_HOME: join(folder, "hub"),
    TUTELAGE_PORT: String(port),
    DATABASE_URL: await testDatabaseUrl(),
  };
  expect(env.TUTELAGE_HOST).toBe("0.0.0.0");
  await expect(run(process.execPath, args, { cwd: root, env })).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("Set TUTELAGE_TOKEN"),
  });
  const token = "a-token-of-the-standalone-test";
  const child = spawn(process.execPath, args, { cwd: root, env: { ...env, TUTELAGE_TOKEN: token }, stdio: "pipe" });
  children.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk));
  for (let ready = false; !ready; await sleep(1_000)) {
    expect(child.exitCode, said).toBeNull();
    ready = await fetch(`http://127.0.0.1:${port}/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  }
  const students = request(`http://127.0.0.1:${port}`).get("/v1/profiles/students");
  await students.set("authorization", `Bearer ${token}`).expect(200);
  await request(`http://127.0.0.1:${port}`).get("/v1/profiles/students").expect(401);
  child.kill("SIGTERM");
  expect((await once(child, "exit"))[0]).toBe(0);
  expect(said).not.toContain(token);
}, 400_000);
