import { expect, test } from "vitest";
import { parseRetryAfter } from "./retryafter.js";

test("Retry-After is seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  expect(parseRetryAfter("7", now)).toBe(7_000);
  expect(parseRetryAfter(" 0.5 ", now)).toBe(500);
  expect(parseRetryAfter(["3", "9"], now)).toBe(3_000);
  expect(parseRetryAfter("Thu, 01 Jan 2026 00:00:30 GMT", now)).toBe(30_000);
  expect(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now)).toBe(0);
  expect([undefined, "", "soon", "-3x"].map((value) => parseRetryAfter(value, now))).toEqual(Array(4).fill(undefined));
});
