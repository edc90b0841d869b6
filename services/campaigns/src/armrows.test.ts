import type { WriteOrder } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { inPortions } from "./armrows.js";

const order = (count: number, maxAttempts: number) => ({ count, maxAttempts, firstAttempt: 3 }) as WriteOrder;

test("a large order becomes portions that ask for as much, each attempt once", () => {
  for (const [count, maxAttempts] of [
    [1, 1],
    [100, 200],
    [101, 101],
    [250, 375],
    [480, 960],
  ] as const) {
    const portions = inPortions(order(count, maxAttempts));
    expect(portions.reduce((sum, one) => sum + one.count, 0)).toBe(count);
    expect(portions.reduce((sum, one) => sum + one.maxAttempts, 0)).toBe(maxAttempts);
    let next = 3;
    for (const one of portions) {
      expect(one.count).toBeLessThanOrEqual(100);
      expect(one.maxAttempts).toBeGreaterThanOrEqual(one.count);
      expect(one.firstAttempt).toBe(next);
      next += one.maxAttempts;
    }
  }
});
