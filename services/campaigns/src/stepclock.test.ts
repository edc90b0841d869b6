import { expect, test } from "vitest";
import { StepClock } from "./stepclock.js";

test("a step that runs alone takes the time that passes, however long nothing ran before", () => {
  let now = 100;
  const clock = new StepClock(() => now);
  now = 200;
  const end = clock.begin();
  now = 205;
  expect(end()).toBe(5);
});

test("steps side by side share the time, so that they add up to it", () => {
  let now = 0;
  const clock = new StepClock(() => now);
  const endFirst = clock.begin();
  now = 10;
  const endSecond = clock.begin();
  now = 16;
  expect(endFirst()).toBe(13);
  now = 18;
  expect(endSecond()).toBe(5);
});
