import { expect, test } from "vitest";
import { longestRetryAfterMs, probeDelayMs, Strikes } from "./breaker.js";

const settings = { failures: 3, first_probe_ms: 1_000, longest_probe_ms: 60_000 };

test("each probe waits twice as long, up to the longest, and no shorter than the provider asks", () => {
  expect([0, 1, 2, 5, 6, 1_000].map((failed) => probeDelayMs(settings, failed))).toEqual([
    1_000, 2_000, 4_000, 32_000, 60_000, 60_000,
  ]);
  expect(probeDelayMs(settings, 0, 90_000)).toBe(90_000);
  expect(probeDelayMs(settings, 3, 2_000)).toBe(8_000);
  expect(probeDelayMs(settings, 0, 10 ** 12)).toBe(longestRetryAfterMs);
});

test("failures of calls that were under way together are one strike", () => {
  const strikes = new Strikes(3);
  // Sixty calls of one moment, cut at another.
  for (let call = 0; call < 60; call += 1) expect(strikes.failed(100, 200 + call)).toBe(false);
  // The first failed at 200; who began before it does not count again.
  expect(strikes.failed(199, 300)).toBe(false);
  expect(strikes.failed(210, 310)).toBe(false);
  expect(strikes.failed(310, 320)).toBe(true);
});

test("an answer forgives what was before", () => {
  const strikes = new Strikes(2);
  expect(strikes.failed(0, 1)).toBe(false);
  strikes.answered();
  expect(strikes.failed(2, 3)).toBe(false);
  expect(strikes.failed(4, 5)).toBe(true);
});
