import { RunStatus } from "@tutelage/proto/run/v1/run";
import { GenerationRun } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { TeacherNews } from "./teachernews.js";

const waiting = { profile: "t", code: "teacher_unavailable", message: "503" };
const look = (results: number, more: Parameters<typeof GenerationRun.fromPartial>[0] = {}) =>
  GenerationRun.fromPartial({ run: { status: RunStatus.RUNNING }, results, ...more });

test("a run that waits no more was answered once it has an answer, not when it was paused and goes on", () => {
  const news = new TeacherNews();
  expect(news.of(look(3, { waiting }))).toMatchObject(waiting);
  // Resumed: its wait begins anew, and the teacher is as dead as before.
  const resumed = new TeacherNews();
  expect(resumed.of(look(3))).toBeUndefined();
  expect(resumed.of(look(3, { usage: { calls: 4, completionTokens: 1_024 } }))).toBeUndefined();
  expect(resumed.of(look(4, { usage: { reusedCalls: 1 } }))).toBeUndefined();
  expect(resumed.of(look(4, { usage: { reusedCalls: 1 }, waiting }))).toMatchObject(waiting);
  expect(resumed.of(look(5, { usage: { reusedCalls: 1 } }))).toBe("answered");
});

test("a run that ended was answered or given up, though nobody watched", () => {
  expect(new TeacherNews().of(look(3, { run: { status: RunStatus.SUCCEEDED } }))).toBe("answered");
  for (const status of [RunStatus.FAILED, RunStatus.CANCELLED])
    expect(new TeacherNews().of(look(3, { run: { status } }))).toBe("given_up");
});
