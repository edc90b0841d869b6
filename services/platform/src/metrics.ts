/** What grades add up to. */

import type { ConfusionCell, ExtractionMetrics, LabelMetrics, Metrics } from "@tutelage/proto/evaluation/v1/evaluation";
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { proportion } from "./interval.js";
import { gradeFields } from "./jsonfields.js";

/** The part of a graded prediction that metrics are made of. */
export interface Grade {
  /** The expected answer as the grader reads it. */
  expected: string;
  /** The answer; undefined when unreadable. */
  answer: string | undefined;
  correct: boolean;
  tooLong: boolean;
  /** ROUGE-L F of answer and expected output, 0 to 1; free text only. */
  rougeL?: number | undefined;
  /** Two readers of its text disagree whether it is right. */
  disputed?: boolean;
}

/** Metrics over all grades; per label where there is a label set, per field where there are fields. */
export function metricsOf(grades: readonly Grade[], task: Pick<Task, "kind" | "labels" | "fields">): Metrics {
  const labels = task.labels.map(({ name }) => name);
  const correct = grades.filter((grade) => grade.correct).length;
  const confusion = labels.length === 0 ? [] : confusionOf(grades, labels);
  return {
    accuracy: proportion(correct, grades.length),
    labels: labels.map((label) => labelMetrics(label, confusion)),
    confusion,
    unreadableRows: grades.filter((grade) => grade.answer === undefined && !grade.tooLong).length,
    tooLongRows: grades.filter((grade) => grade.tooLong).length,
    disputedRows: grades.filter((grade) => grade.disputed).length,
    extraction: task.kind === TaskKind.EXTRACTION ? extractionMetrics(grades, task.fields) : undefined,
    meanRougeL:
      task.kind === TaskKind.TEXT && grades.length > 0
        ? grades.reduce((sum, grade) => sum + (grade.rougeL ?? 0), 0) / grades.length
        : undefined,
  };
}

/** Micro-averaged over the fields of all rows; an undeclared field counts as a wrong answer. */
function extractionMetrics(grades: readonly Grade[], fields: Task["fields"]): ExtractionMetrics {
  const byRow = grades.map(({ answer, expected }) => gradeFields(answer, expected, fields));
  const all = byRow.flat();
  const expected = all.filter((one) => one.expected).length;
  const answered = all.filter((one) => one.answered).length;
  const right = all.filter((one) => one.right && one.expected).length;
  return {
    expectedFields: expected,
    answeredFields: answered,
    rightFields: right,
    precision: answered === 0 ? 0 : right / answered,
    recall: expected === 0 ? 0 : right / expected,
    f1: expected + answered === 0 ? 0 : (2 * right) / (expected + answered),
    fields: fields.map(({ name }, index) => ({
      field: name,
      accuracy: proportion(byRow.filter((row) => row[index]?.right).length, grades.length),
    })),
  };
}

/** Cells that occur, in the order of the labels; "" (outside the set) last. */
function confusionOf(grades: readonly Grade[], labels: readonly string[]): ConfusionCell[] {
  const order = new Map(labels.map((label, index) => [label, index]));
  const rank = (label: string) => order.get(label) ?? labels.length;
  const cells = new Map<string, ConfusionCell>();
  for (const { expected, answer } of grades) {
    const answered = answer !== undefined && order.has(answer) ? answer : "";
    const key = JSON.stringify([expected, answered]);
    const cell = cells.get(key);
    if (cell === undefined) cells.set(key, { expected, answered, count: 1 });
    else cell.count += 1;
  }
  return [...cells.values()].sort(
    (a, b) =>
      rank(a.expected) - rank(b.expected) ||
      (a.expected < b.expected ? -1 : a.expected > b.expected ? 1 : 0) ||
      rank(a.answered) - rank(b.answered),
  );
}

function labelMetrics(label: string, confusion: readonly ConfusionCell[]): LabelMetrics {
  let support = 0;
  let answered = 0;
  let correct = 0;
  for (const cell of confusion) {
    if (cell.expected === label) support += cell.count;
    if (cell.answered === label) answered += cell.count;
    if (cell.expected === label && cell.answered === label) correct += cell.count;
  }
  return {
    label,
    support,
    precision: answered === 0 ? 0 : correct / answered,
    recall: support === 0 ? 0 : correct / support,
    // 2PR / (P + R) with the counts put in: no division by zero in between.
    f1: support + answered === 0 ? 0 : (2 * correct) / (support + answered),
  };
}
