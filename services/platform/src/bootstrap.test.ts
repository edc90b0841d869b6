import { expect, test } from "vitest";
import { crossedBootstrap, standardDeviation } from "./bootstrap.js";

test("a constant difference has an interval of no width", () => {
  const table = [
    [0.5, 0.5],
    [0.5, 0.5],
  ];
  expect(crossedBootstrap(table)).toEqual({ mean: 0.5, ci95: [0.5, 0.5] });
});

test("with one replicate the interval is that of the rows, near the normal one", () => {
  const rows = Array.from({ length: 400 }, (_, index) => (index % 4 === 0 ? 1 : 0));
  const { mean, ci95 } = crossedBootstrap([rows]);
  expect(mean).toBe(0.25);
  const half = 1.96 * Math.sqrt((0.25 * 0.75) / 400);
  expect(ci95[0]).toBeCloseTo(0.25 - half, 2);
  expect(ci95[1]).toBeCloseTo(0.25 + half, 2);
});

test("replicates that disagree widen the interval", () => {
  const flat = (value: number) => Array.from({ length: 100 }, () => value);
  const { ci95 } = crossedBootstrap([flat(0), flat(0.1), flat(0.2)]);
  expect(ci95[1] - ci95[0]).toBeGreaterThan(0.1);
});

test("standard deviation by hand", () => {
  expect(standardDeviation([1, 2, 3, 4])).toBeCloseTo(Math.sqrt(5 / 3), 12);
  expect(standardDeviation([7])).toBe(0);
});
