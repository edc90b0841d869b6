import { expect, test } from "vitest";
import { Concurrency } from "./concurrency.js";

const answer = (concurrency: Concurrency, times: number, latencyMs = 100, kind = "chat") => {
  for (let reply = 0; reply < times; reply += 1) concurrency.answered(kind, latencyMs);
};

test("a refusal halves it once for all calls that were under way, down to one; each round of replies adds one", () => {
  const concurrency = new Concurrency(16);
  expect(concurrency.limit).toBe(16);
  for (let call = 0; call < 16; call += 1) concurrency.refused(0, 10 + call);
  expect(concurrency.limit).toBe(8);
  answer(concurrency, 9);
  expect(concurrency.limit).toBe(9);
  for (let round = 0; round < 9; round += 1) concurrency.refused(100 * (round + 1), 100 * (round + 1) + 1);
  expect(concurrency.limit).toBe(1);
  answer(concurrency, 1_000);
  expect(concurrency.limit).toBe(16);
});

test("a provider that becomes three times slower gets less, one whose calls differ does not", () => {
  const concurrency = new Concurrency(16);
  // Labels are quick, rows are slow: each is compared with its like.
  for (let round = 0; round < 20; round += 1) {
    answer(concurrency, 8, 50, "label");
    answer(concurrency, 8, 900, "row");
  }
  expect(concurrency.limit).toBe(16);
  answer(concurrency, 64, 4_000, "row");
  expect(concurrency.limit).toBeLessThan(13);
  const slowed = concurrency.limit;
  // It stays slow: in time that is usual, and no reason to ask for less.
  answer(concurrency, 4_000, 4_000, "row");
  expect(concurrency.limit).toBeGreaterThan(slowed);
});

test("after an absence it begins with one", () => {
  const concurrency = new Concurrency(4);
  concurrency.restart();
  expect(concurrency.limit).toBe(1);
  answer(concurrency, 8);
  expect(concurrency.limit).toBe(4);
});
