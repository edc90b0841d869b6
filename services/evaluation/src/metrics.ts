/** What grades add up to. */

import { proportion } from "@tutelage/platform/interval";
import type { ConfusionCell, LabelMetrics, Metrics } from "@tutelage/proto/evaluation/v1/evaluation";

/** The part of a graded prediction that metrics are made of. */
export interface Grade {
  /** The expected answer as the grader reads it. */
  expected: string;
  /** The answer; undefined when unreadable. */
  answer: string | undefined;
  correct: boolean;
  tooLong: boolean;
}

/** Metrics over all grades; per label where there is a label set. */
export function metricsOf(grades: readonly Grade[], labels: readonly string[]): Metrics {
  const correct = grades.filter((grade) => grade.correct).length;
  const confusion = labels.length === 0 ? [] : confusionOf(grades, labels);
  return {
    accuracy: proportion(correct, grades.length),
    labels: labels.map((label) => labelMetrics(label, confusion)),
    confusion,
    unreadableRows: grades.filter((grade) => grade.answer === undefined && !grade.tooLong).length,
    tooLongRows: grades.filter((grade) => grade.tooLong).length,
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
