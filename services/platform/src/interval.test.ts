import { expect, test } from "vitest";
import { proportion } from "./interval.js";

// R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
test.each([
  [81, 263, 0.2553, 0.3662],
  [15, 148, 0.0624, 0.1605],
  [0, 20, 0, 0.1611],
  [1, 29, 0.0061, 0.1718],
])("%i of %i lies between %f and %f", (successes, n, low, high) => {
  const { value, ci95Low, ci95High } = proportion(successes, n);
  expect(value).toBe(successes / n);
  expect(ci95Low).toBeCloseTo(low, 4);
  expect(ci95High).toBeCloseTo(high, 4);
});

test("by hand: 0 of n reaches from 0 to z²/(n + z²), n of n from n/(n + z²) to 1", () => {
  const square = 1.959963984540054 ** 2;
  expect(proportion(0, 20)).toMatchObject({ value: 0, ci95Low: 0 });
  expect(proportion(0, 20).ci95High).toBeCloseTo(square / (20 + square), 12);
  expect(proportion(29, 29)).toMatchObject({ value: 1, ci95High: 1 });
  expect(proportion(29, 29).ci95Low).toBeCloseTo(29 / (29 + square), 12);
  expect(proportion(1, 1).ci95Low).toBeCloseTo(1 / (1 + square), 12);
});

test("at each end the score test is just significant: |p̂ − p| = z·√(p(1−p)/n)", () => {
  for (const [successes, n] of [
    [1, 2],
    [7, 9],
    [780, 872],
  ] as const) {
    const { value, ci95Low, ci95High } = proportion(successes, n);
    for (const p of [ci95Low, ci95High]) {
      expect(Math.abs(value - p)).toBeCloseTo(1.959963984540054 * Math.sqrt((p * (1 - p)) / n), 12);
    }
  }
});

test("no rows tell nothing", () => {
  expect(proportion(0, 0)).toEqual({ successes: 0, n: 0, value: 0, ci95Low: 0, ci95High: 1 });
});

test("the interval holds the value and narrows with n", () => {
  let width = 1;
  for (const n of [10, 100, 1_000, 100_000]) {
    const { value, ci95Low, ci95High } = proportion(0.3 * n, n);
    expect(ci95Low).toBeLessThan(value);
    expect(ci95High).toBeGreaterThan(value);
    expect(ci95High - ci95Low).toBeLessThan(width);
    width = ci95High - ci95Low;
  }
});
