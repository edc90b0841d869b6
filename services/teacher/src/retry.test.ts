import { expect, test } from "vitest";
import { isRetryableStatus, retryDelayMs } from "./retry.js";

test("the delay has full jitter under a bound that doubles up to half a minute", () => {
  expect([1, 2, 3, 4, 20].map((retry) => retryDelayMs(retry, undefined, () => 1))).toEqual([
    500, 1_000, 2_000, 4_000, 30_000,
  ]);
  expect([1, 2, 3].map((retry) => retryDelayMs(retry, undefined, () => 0))).toEqual([0, 0, 0]);
});

test("never sooner than the provider asked, and never later than a minute", () => {
  expect(retryDelayMs(1, 3_000, () => 0)).toBe(3_000);
  expect(retryDelayMs(5, 3_000, () => 1)).toBe(3_500);
  expect(retryDelayMs(1, 86_400_000, () => 0)).toBe(60_000);
});

test("only what may pass by itself is retried", () => {
  expect([200, 302, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 529].filter(isRetryableStatus)).toEqual([
    408, 409, 429, 500, 502, 529,
  ]);
});
