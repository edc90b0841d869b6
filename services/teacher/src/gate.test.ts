import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Gate } from "./gate.js";

const never = new AbortController().signal;
setMaxListeners(0, never);

test("an aborted waiter hands its turn on", async () => {
  const gate = new Gate(() => 1);
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
  const gate = new Gate(() => 2);
  gate.pause(80);
  const began = performance.now();
  await Promise.all([1, 2, 3].map(() => gate.run(never, async () => {})));
  expect(performance.now() - began).toBeGreaterThan(75);
});

test("a failing call frees its place", async () => {
  const gate = new Gate(() => 1);
  await expect(
    gate.run(never, async () => {
      throw new Error("no");
    }),
  ).rejects.toThrow("no");
  expect(await gate.run(never, async () => 1)).toBe(1);
});

test("a limit that changes holds from the next call on", async () => {
  let limit = 1;
  const gate = new Gate(() => limit);
  let most = 0;
  const calls = Array.from({ length: 12 }, (_, index) =>
    gate.run(never, async () => {
      most = Math.max(most, gate.underWay);
      if (index === 3) limit = 4;
      await sleep(5);
    }),
  );
  await Promise.all(calls.slice(0, 3));
  expect(most).toBe(1);
  await Promise.all(calls);
  expect(most).toBe(4);
});
