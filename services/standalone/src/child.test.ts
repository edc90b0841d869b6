import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Child, type ChildEvent, tail } from "./child.js";
import { choosePorts, isFree } from "./ports.js";

let directory: string;
let child: Child | undefined;
const events: ChildEvent[] = [];
const signal = new AbortController().signal;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tutelage-child-"));
  events.length = 0;
});
afterEach(async () => {
  await child?.stop();
  await rm(directory, { recursive: true, force: true });
});

/** A child that runs a few lines of JavaScript. */
async function childOf(code: string, more: Partial<Child["plan"]> = {}): Promise<Child> {
  const script = join(directory, "child.mjs");
  await writeFile(script, code);
  const logFile = join(directory, "child.log");
  const plan = { name: "test", command: process.execPath, args: [script], env: process.env, logFile, stopMs: 500 };
  child = new Child({ ...plan, isHealthy: async () => true, ...more }, (event) => events.push(event));
  child.start();
  return child;
}

test("a killed child runs again under another process id", async () => {
  const running = await childOf("setInterval(() => {}, 1000)");
  await running.healthy(5_000, signal);
  const before = running.pid ?? 0;
  process.kill(before, "SIGKILL");
  await vi.waitFor(() => expect(running.pid).toSatisfy((pid) => pid !== undefined && pid !== before), 5_000);
  expect(events).toContainEqual({ type: "exited", name: "test", how: "signal SIGKILL", restartInMs: 250 });
});

test("a child that keeps dying is started ever more rarely", async () => {
  await childOf("process.exit(3)");
  await vi.waitFor(() => expect(events.filter(({ type }) => type === "exited").length).toBeGreaterThan(3), 10_000);
  const waits = events.flatMap((event) => (event.type === "exited" ? event.restartInMs : []));
  expect(waits.slice(0, 4)).toEqual([250, 500, 1_000, 2_000]);
});

test("a child that served and no longer answers is replaced, a slow starter is not", async () => {
  const file = join(directory, "answers");
  const isHealthy = async () => await readFile(file, "utf8").then(Boolean, () => false);
  const running = await childOf("setInterval(() => {}, 1000)", { isHealthy, replaceAfterLooks: 3 });
  const ended = new AbortController();
  const watched = running.watchHealth(ended.signal);
  const first = running.pid ?? 0;
  await sleep(2_500);
  expect(running.pid).toBe(first);
  await writeFile(file, "yes");
  await running.healthy(5_000, signal);
  // As it is when a library hangs: alive, and deaf to SIGTERM.
  process.kill(first, "SIGSTOP");
  await rm(file);
  await vi.waitFor(() => expect(running.pid).toSatisfy((pid) => pid !== undefined && pid !== first), 20_000);
  expect(events.map(({ type }) => type)).toContain("replaced");
  expect(events).toContainEqual(expect.objectContaining({ type: "exited", how: "signal SIGKILL" }));
  ended.abort();
  await watched;
}, 30_000);

test("whoever waits for a child that cannot start is told the end of its log", async () => {
  const running = await childOf('console.error("PORT is wrong"); process.exit(78)', { isHealthy: async () => false });
  await expect(running.healthy(10_000, signal)).rejects.toThrow(/exit code 78[\s\S]*PORT is wrong/);
});

test("a child that ignores SIGTERM is killed in time, and stays stopped", async () => {
  const code = 'process.on("SIGTERM", () => {}); console.log("up"); setInterval(() => {}, 1000)';
  const isHealthy = async () => (await tail(join(directory, "child.log"))).includes("up");
  const running = await childOf(code, { isHealthy });
  await running.healthy(5_000, signal);
  const began = Date.now();
  await running.stop();
  expect(Date.now() - began).toBeLessThan(2_000);
  expect(running.pid).toBeUndefined();
});

test("chosen ports are free, different, and below those that systems hand out", async () => {
  const ports = await choosePorts(50);
  expect(new Set(ports).size).toBe(50);
  expect(ports.every((port) => port >= 20_000 && port < 32_000)).toBe(true);
  const server = createServer();
  await new Promise<void>((done) => server.listen(ports[0], "127.0.0.1", done));
  expect(await isFree(ports[0] ?? 0)).toBe(false);
  await new Promise((done) => server.close(done));
  expect(await isFree(ports[0] ?? 0)).toBe(true);
});
