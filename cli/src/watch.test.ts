import { expect, test } from "vitest";
import type { Campaign } from "./api.js";
import { iterationLine, table } from "./show.js";
import { liveLine } from "./watch.js";

test("the live line has a bar, what is done now, the time left and what it cost", () => {
  const campaign: Campaign = {
    run: {
      id: "c",
      status: "running",
      progress: { done: 1, total: 3, eta_seconds: 130, message: "iteration/1/train: 12/60 steps, 5 s left" },
    },
    iteration: 1,
    phase: "train",
    usage: { calls: 42, cost_micro_usd: 12_300 },
  };
  expect(liveLine(campaign)).toBe(
    "█████░░░░░░░░░░░░░░░ iteration 1/3 · train 12/60 steps, 5 s left · about 2 min left · 42 teacher calls · $0.0123",
  );
  const queued: Campaign = { run: { id: "c", status: "queued" }, iteration: 0, phase: "" };
  expect(liveLine(queued)).toContain("queued");
  const waiting = { ...queued, teacher_wait: { profile: "api", message: "The teacher cannot answer now. HTTP 503" } };
  expect(liveLine(waiting)).toContain('waiting for teacher "api": The teacher cannot answer now. HTTP 503');
});

test("an iteration is one line, with what it was judged by", () => {
  const accuracy = { n: 80, value: 0.75, ci95_low: 0.6, ci95_high: 0.8 };
  expect(
    iterationLine({
      number: 1,
      train_rows: 90,
      mined: true,
      errors: 7,
      candidates: 40,
      accepted: 30,
      dev_accuracy: accuracy,
      seconds: 100,
    }),
  ).toBe("iteration 1: 90 rows, 7 errors, 30 of 40 candidates kept, dev 75.0 %, 2 min");
});

test("table columns are as wide as their widest cell", () => {
  expect(
    table(
      ["a", "b"],
      [
        ["long", "x"],
        ["y", "zz"],
      ],
    ),
  ).toBe("a     b\nlong  x\ny     zz");
});
