import { expect, test } from "vitest";
import { type Machine, studentCount } from "./studentcount.js";

const laptop: Machine = { cores: 8, memoryBytes: 16e9, hasGpu: false };

test.each<[string, Partial<Machine>, number]>([
  ["two cores and memory for two", { cores: 2 }, 2],
  ["one core", { cores: 1 }, 1],
  ["little memory", { memoryBytes: 8e9 }, 1],
  ["a GPU, which one student fills", { hasGpu: true }, 1],
])("%s", (_, machine, count) => {
  expect(studentCount("", { ...laptop, ...machine })).toBe(count);
});

test("whoever says how many gets as many, and hears of what is no number", () => {
  expect(studentCount("4", { ...laptop, cores: 1 })).toBe(4);
  for (const wrong of ["0", "1.5", "many", "65"]) {
    expect(() => studentCount(wrong, laptop)).toThrow(
      `TUTELAGE_STUDENTS is "${wrong}"; give a whole number from 1 to 64`,
    );
  }
});
