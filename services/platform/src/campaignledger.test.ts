import { expect, test } from "vitest";
import { ledgerPage, purposeOf, runKeyPrefix } from "./campaignledger.js";

const id = "0b2c9f8e-0000-4000-8000-000000000000";

test.each([
  ["preflight/write", "preflight_write", -1],
  ["preflight/label", "preflight_label", -1],
  ["teacher_record", "check_record", -1],
  ["iteration/0/generate", "write", 0],
  ["iteration/12/check/teacher", "check", 12],
  ["iteration/1/something/new", "something/new", 1],
  ["arm/random/write/1", "arm_random_write", -1],
  ["arm/random/check/teacher", "arm_random_check", -1],
  ["arm/teacher/answer", "arm_teacher_answer", -1],
  ["something_new", "something_new", -1],
])("a run of step %s was for %s", (step, purpose, iteration) => {
  expect(purposeOf(`${runKeyPrefix(id)}${step}`)).toEqual({ purpose, iteration });
});

test("totals are summed by purpose, over iterations", () => {
  const usage = (calls: number) => ({
    calls,
    reusedCalls: 1,
    promptTokens: 10 * calls,
    completionTokens: calls,
    costMicroUsd: 100 * calls,
    teacherSeconds: 0.5,
    savedMicroUsd: 5,
  });
  const run = (step: string, calls: number) => ({ runKey: `${id}/${step}`, usage: usage(calls), failedCalls: 1 });
  const runs = [run("iteration/0/generate", 3), run("teacher_record", 7), run("iteration/1/generate", 2)];
  expect(ledgerPage({ calls: [], nextCursor: "7", runs })).toEqual({
    entries: [],
    nextCursor: "7",
    totals: [
      {
        purpose: "write",
        failedCalls: 2,
        usage: { ...usage(5), reusedCalls: 2, teacherSeconds: 1, savedMicroUsd: 10 },
      },
      { purpose: "check_record", failedCalls: 1, usage: usage(7) },
    ],
  });
});
