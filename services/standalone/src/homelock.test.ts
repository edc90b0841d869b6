import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { HomeInUse, lockHome, startOf } from "./homelock.js";

let home: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-lock-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await rm(home, { recursive: true, force: true });
});

async function idle(): Promise<{ child: ChildProcess; pid: number; started: string }> {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  children.push(child);
  const pid = child.pid ?? 0;
  return { child, pid, started: (await startOf(pid)) ?? "" };
}

test("a home is held once, and its holder is named", async () => {
  const lock = await lockHome(home);
  await lock.note({ url: "http://127.0.0.1:8080" });
  const refused = await lockHome(home).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(HomeInUse);
  expect((refused as Error).message).toContain(`process ${process.pid}, http://127.0.0.1:8080`);
  await lock.release();
  await (await lockHome(home)).release();
  expect(await readdir(home)).toEqual([]);
});

test("a lock whose process is gone is taken over, and what it left running is ended", async () => {
  const holder = await idle();
  holder.child.kill("SIGKILL");
  await once(holder.child, "exit");
  const orphan = await idle();
  const exited = once(orphan.child, "exit");
  const content = {
    pid: holder.pid,
    started: holder.started,
    children: [{ name: "student", ...orphan, child: undefined }],
  };
  await writeFile(join(home, "stack.lock"), JSON.stringify(content));
  const lock = await lockHome(home);
  expect(await exited).toEqual([null, "SIGTERM"]);
  await lock.release();
});

test("a process that merely has the id of the holder, or of a child, is neither waited for nor ended", async () => {
  const stranger = await idle();
  const children = [{ name: "student", pid: stranger.pid, started: "another time" }];
  const content = { pid: stranger.pid, started: "another time", children };
  await writeFile(join(home, "stack.lock"), JSON.stringify(content));
  const lock = await lockHome(home);
  expect(await startOf(stranger.pid)).toBe(stranger.started);
  await lock.release();
});

test("a damaged lock does not keep anybody out", async () => {
  await writeFile(join(home, "stack.lock"), '{"pid": 1');
  await (await lockHome(home)).release();
});

test("of many starts that find a stale lock, one gets the home", async () => {
  await writeFile(join(home, "stack.lock"), JSON.stringify({ pid: 999_999_999, started: "0" }));
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => lockHome(home)));
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
});
