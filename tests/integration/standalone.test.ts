/** npm start as a user meets it: the real process tree, with the real student and an embedded Postgres of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Holder, startOf } from "@tutelage/standalone/homelock";
import { startPostgres } from "@tutelage/standalone/postgres";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

const main = fileURLToPath(import.meta.resolve("@tutelage/standalone/main"));
const slow = 240_000;

let home: string;
let current: Running | undefined;

interface Running {
  process: ChildProcess;
  /** Standard output and standard error so far. */
  output(): string;
  exit: Promise<[code: number | null, signal: string | null]>;
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-standalone-"));
  await chmod(home, 0o755);
});
afterAll(async () => {
  current?.process.kill("SIGTERM");
  await current?.exit;
  const postgres = await startPostgres(home);
  await postgres.stop();
  await rm(home, { recursive: true, force: true });
}, slow);

function startMain(environment: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(process.execPath, [main], {
    env: { ...process.env, TUTELAGE_HOME: home, TUTELAGE_PORT: "0", ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  const exit = once(child, "exit") as Running["exit"];
  return { process: child, output: () => text, exit };
}

async function ready(running: Running): Promise<string> {
  await Promise.race([
    vi.waitFor(() => expect(running.output()).toContain("Ctrl-C stops it."), { timeout: slow, interval: 200 }),
    running.exit.then(() => Promise.reject(new Error(running.output()))),
  ]);
  return /API\s+(http:\S+)\/v1/.exec(running.output())?.[1] ?? "";
}

async function holder(): Promise<Required<Holder>> {
  return JSON.parse(await readFile(join(home, "stack.lock"), "utf8"));
}

async function living(children: Holder["children"] = []): Promise<string[]> {
  const alive = await Promise.all(
    children.map(async ({ name, pid, started }) => ((await startOf(pid)) === started ? [name] : [])),
  );
  return alive.flat();
}

async function readyStatus(url: string): Promise<number> {
  return await fetch(`${url}/ready`).then(
    ({ status }) => status,
    () => 0,
  );
}

test(
  "it starts, says where to look, keeps its services alive, admits no second start, and stops on Ctrl-C",
  async () => {
    current = startMain({ MY_TEACHERS_KEY: "canary" });
    const url = await ready(current);
    expect(current.output()).toContain(`${url}/docs`);
    expect(current.output()).toContain(home);
    expect(current.output()).toContain("Gemma Terms of Use");
    expect(await readyStatus(url)).toBe(200);
    const headers = { "content-type": "application/json" };
    const made = await fetch(`${url}/v1/datasets`, { method: "POST", headers, body: '{"name": "kept"}' });
    expect(made.status).toBe(201);

    const second = startMain();
    expect(await second.exit).toEqual([1, null]);
    expect(second.output()).toContain(`already runs on ${home} (process ${current.process.pid}, ${url})`);

    const victim = (await holder()).children.find(({ name }) => name === "datasets");
    process.kill(victim?.pid ?? 0, "SIGKILL");
    await vi.waitFor(async () => expect((await fetch(`${url}/v1/datasets/kept`)).status).toBe(200), {
      timeout: 30_000,
      interval: 200,
    });
    expect(current.output()).toContain("datasets died (signal SIGKILL); starting it again");

    const { children } = await holder();
    expect(await living(children)).toHaveLength(7);
    if (process.platform === "linux") {
      const environments = await Promise.all(children.map(({ pid }) => readFile(`/proc/${pid}/environ`, "utf8")));
      const knowing = children.filter((_, index) => environments[index]?.includes("canary"));
      expect(knowing.map(({ name }) => name)).toEqual(["teacher"]);
    }
    const began = Date.now();
    current.process.kill("SIGINT");
    expect(await current.exit).toEqual([0, null]);
    expect(Date.now() - began).toBeLessThan(12_000);
    expect(await living(children)).toEqual([]);
    current = undefined;
  },
  slow,
);

test(
  "after a SIGKILL of the parent its children end, and the next start finds everything as it was",
  async () => {
    current = startMain();
    await ready(current);
    const { children } = await holder();
    current.process.kill("SIGKILL");
    await current.exit;
    // All notice that they are orphans.
    await vi.waitFor(async () => expect(await living(children)).toEqual([]), { timeout: 30_000, interval: 200 });

    current = startMain();
    const url = await ready(current);
    expect(current.output()).toContain("postgres was running already");
    expect(await living(children)).toEqual([]);
    expect((await fetch(`${url}/v1/datasets/kept`)).status).toBe(200);
    current.process.kill("SIGTERM");
    expect(await current.exit).toEqual([0, null]);
    current = undefined;
  },
  slow,
);

test("a port that is taken is named together with the variable that changes it", async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  const running = startMain({ TUTELAGE_PORT: String(port) });
  expect(await running.exit).toEqual([1, null]);
  expect(running.output()).toContain(`Port ${port} is taken. Set TUTELAGE_PORT`);
  await new Promise((done) => server.close(done));
});

test("a wrong variable is named with what it should be", async () => {
  const running = startMain({ TUTELAGE_PORT: "http" });
  expect(await running.exit).toEqual([78, null]);
  expect(running.output()).toContain('TUTELAGE_PORT is "http": must be a port number');
});
