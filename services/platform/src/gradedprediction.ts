/** An answer with its grade: of the evaluation service, and of whoever checks what it stored. Pure. */
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Prediction } from "@tutelage/proto/student/v1/student";
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { gradingOf } from "./grader.js";
import type { Grade } from "./metrics.js";
import { rougeL } from "./rouge.js";

/**
 * One prediction with its grade. The expected output is read by the same grader as the answer, and the answer as it is
 * stored, so that a stored one has the same grade.
 */
export function gradePrediction(
  prediction: Pick<Prediction, "rowId" | "text" | "logProbability" | "labelScores" | "tooLong">,
  expectedOutput: string,
  task: Task,
): { graded: GradedPrediction; grade: Grade } {
  const grading = gradingOf(task);
  const { rowId, logProbability, labelScores, tooLong } = prediction;
  const text = storable(prediction.text);
  const answer = tooLong ? undefined : grading.read(text, task);
  const expected = grading.read(expectedOutput, task);
  const isRight = (one: string | undefined) =>
    one !== undefined && expected !== undefined && grading.equal(one, expected, task);
  const correct = isRight(answer);
  const other = tooLong ? undefined : grading.readLeniently?.(text, task);
  const disputed = other !== undefined && isRight(other) !== correct;
  const near = task.kind === TaskKind.TEXT ? rougeL(tooLong ? "" : text, expectedOutput) : undefined;
  return {
    graded: {
      rowId,
      text,
      answer: answer ?? "",
      expected: expectedOutput,
      correct,
      logProbability,
      labelScores,
      tooLong,
      rougeL: near,
      disputed,
    },
    grade: { expected: expected ?? expectedOutput, answer, correct, tooLong, rougeL: near, disputed },
  };
}

/** Postgres has no NUL in text, but a student may write one. */
export function storable(text: string): string {
  return text.replaceAll("\0", "\uFFFD");
}
