import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Gate } from "./gate.js";

const never = new AbortController().signal;

test("an aborted waiter hands its turn on", async () => {
  const gate = new Gate(1);
  const first = gate.run(never, () => sleep(30));
  const leaving = new AbortController();
  const left = expect(gate.run(leaving.signal, async () => "left")).rejects.toThrow("gone");
  const stays = gate.run(never, async () => "stays");
  setTimeout(() => leaving.abort(new Error("gone")), 30);
  await first;
  await left;
  expect(await stays).toBe("stays");
});

test("a pause holds everybody back, also when nothing runs", async () => {
  const gate = new Gate(2);
  gate.pause(80);
  const began = performance.now();
  await Promise.all([1, 2, 3].map(() => gate.run(never, async () => {})));
  expect(performance.now() - began).toBeGreaterThan(75);
});

test("a failing call frees its place", async () => {
  const gate = new Gate(1);
  await expect(
    gate.run(never, async () => {
      throw new Error("no");
    }),
  ).rejects.toThrow("no");
  expect(await gate.run(never, async () => 1)).toBe(1);
});
