import { FieldType, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { type Grade, metricsOf } from "./metrics.js";

const labelled = (...labels: string[]) =>
  Task.fromPartial({ kind: TaskKind.CLASSIFICATION, labels: labels.map((name) => ({ name })) });

function grade(expected: string, answer: string | undefined, tooLong = false): Grade {
  return { expected, answer, correct: expected === answer, tooLong };
}

test("precision, recall and F1 by hand", () => {
  // a: 3 rows, 2 found; b: 2 rows, 1 found; one a was called b, one b could not be read; c: never.
  const metrics = metricsOf(
    [grade("a", "a"), grade("a", "a"), grade("a", "b"), grade("b", "b"), grade("b", undefined)],
    labelled("a", "b", "c"),
  );
  expect(metrics.accuracy).toMatchObject({ successes: 3, n: 5, value: 0.6 });
  expect(metrics.labels).toEqual([
    { label: "a", support: 3, precision: 1, recall: 2 / 3, f1: 0.8 },
    { label: "b", support: 2, precision: 0.5, recall: 0.5, f1: 0.5 },
    { label: "c", support: 0, precision: 0, recall: 0, f1: 0 },
  ]);
  expect(metrics.confusion).toEqual([
    { expected: "a", answered: "a", count: 2 },
    { expected: "a", answered: "b", count: 1 },
    { expected: "b", answered: "b", count: 1 },
    { expected: "b", answered: "", count: 1 },
  ]);
  expect(metrics.unreadableRows).toBe(1);
});

test("the cells add up to the rows, and a label's support to its cells", () => {
  const labels = ["x", "y", "z"];
  const grades = Array.from({ length: 300 }, (_, i) =>
    grade(labels[i % 3] as string, [...labels, undefined][(i * 7) % 4]),
  );
  const { confusion, labels: perLabel, accuracy } = metricsOf(grades, labelled(...labels));
  expect(confusion.reduce((sum, { count }) => sum + count, 0)).toBe(300);
  expect(perLabel.map(({ support }) => support)).toEqual([100, 100, 100]);
  const diagonal = confusion.filter(({ expected, answered }) => expected === answered);
  expect(diagonal.reduce((sum, { count }) => sum + count, 0)).toBe(accuracy?.successes);
});

test("a row beyond the context is wrong and counted apart from unreadable ones", () => {
  const metrics = metricsOf([grade("a", undefined, true), grade("a", "a")], labelled("a", "b"));
  expect(metrics).toMatchObject({ tooLongRows: 1, unreadableRows: 0, accuracy: { successes: 1, n: 2 } });
});

test("an expected output outside the label set has its own cell, after the labels", () => {
  const metrics = metricsOf([grade("odd", "a"), grade("b", "b")], labelled("a", "b"));
  expect(metrics.confusion.map(({ expected }) => expected)).toEqual(["b", "odd"]);
});

test("open answers have neither labels nor confusion", () => {
  expect(metricsOf([grade("4", "4")], Task.fromPartial({ kind: TaskKind.MATH }))).toMatchObject({
    labels: [],
    confusion: [],
    accuracy: { value: 1 },
  });
});

test("extraction: micro precision, recall and F1 over fields, and each field's accuracy", () => {
  const task = Task.fromPartial({
    kind: TaskKind.EXTRACTION,
    fields: [
      { name: "city", type: FieldType.STRING },
      { name: "guests", type: FieldType.NUMBER, optional: true },
    ],
  });
  const metrics = metricsOf(
    [
      grade('{"city": "Bern", "guests": 2}', '{"city": "bern.", "guests": 3}'),
      // Right to leave the guests out, and to answer with a field that nobody asked for is wrong.
      grade('{"city": "Oslo"}', '{"city": "Oslo", "hotel": "Ritz"}'),
      grade('{"city": "Rome", "guests": 4}', undefined),
      grade('{"city": "Lima"}', '{"city": "Quito", "guests": 1}'),
    ],
    task,
  );
  expect(metrics.extraction).toMatchObject({ expectedFields: 6, answeredFields: 6, rightFields: 2 });
  expect(metrics.extraction).toMatchObject({ precision: 2 / 6, recall: 2 / 6, f1: 2 / 6 });
  expect(metrics.extraction?.fields).toMatchObject([
    { field: "city", accuracy: { successes: 2, n: 4 } },
    { field: "guests", accuracy: { successes: 1, n: 4 } },
  ]);
  expect(metrics.meanRougeL).toBeUndefined();
});

test("free text: the mean ROUGE-L F counts rows without an answer as 0", () => {
  const grades = [
    { ...grade("a b c d", "a b"), rougeL: 2 / 3 },
    { ...grade("a b", undefined), rougeL: 0 },
  ];
  const metrics = metricsOf(grades, Task.fromPartial({ kind: TaskKind.TEXT }));
  expect(metrics.meanRougeL).toBeCloseTo(1 / 3);
  expect(metrics.extraction).toBeUndefined();
  expect(metricsOf([], Task.fromPartial({ kind: TaskKind.TEXT })).meanRougeL).toBeUndefined();
});
