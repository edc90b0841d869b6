/** What may be decided of a review. Pure. */
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { readFields } from "@tutelage/platform/extraction";
import { nearest } from "@tutelage/platform/suggestion";
import {
  type DecideReviewRequest,
  Disputes,
  type Review,
  ReviewDecision,
  ReviewKind,
  ReviewStatus,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import type { Decided } from "./reviewstore.js";

const maxNameLength = 200;
const maxOutputLength = 100_000;

const statusOf: Readonly<Partial<Record<ReviewDecision, ReviewStatus>>> = {
  [ReviewDecision.ACCEPT]: ReviewStatus.ACCEPTED,
  [ReviewDecision.RELABEL]: ReviewStatus.RELABELLED,
  [ReviewDecision.EXCLUDE]: ReviewStatus.EXCLUDED,
};

/**
 * The decision as it is stored; undefined where the review says so already.
 * Throws invalid_argument, and failed_precondition "review_acted_on".
 */
export function decided(
  review: Review,
  task: Task,
  asked: Pick<DecideReviewRequest, "decision" | "output" | "reading" | "decidedBy">,
): Decided | undefined {
  const { decision, output, reading, decidedBy } = asked;
  const status = statusOf[decision];
  if (status === undefined) throw invalidField("decision", "is missing; give accept, relabel or exclude.");
  if (decidedBy.length > maxNameLength)
    throw invalidField("decided_by", `has ${decidedBy.length} characters; at most ${maxNameLength} fit.`);
  checkReading(review.kind, decision, reading);
  if (decision === ReviewDecision.RELABEL) checkOutput(review, task, output);
  else if (output !== "") throw invalidField("output", 'is for "relabel" only; leave it out.');
  if (review.status === status && review.output === output && review.reading === reading) return undefined;
  if (review.actedIteration !== undefined) {
    throw new TutelageError(
      "failed_precondition",
      `Iteration ${review.actedIteration} has taken up what was decided of row ${review.seedRowId}, and later ones rest on ` +
        "it. Fork the campaign at that iteration, or start another one with the row corrected.",
      { reason: "review_acted_on" },
    );
  }
  return { status, output, reading, decidedBy };
}

function checkReading(kind: ReviewKind, decision: ReviewDecision, reading: Disputes): void {
  const wanted = kind === ReviewKind.DISPUTE && decision === ReviewDecision.ACCEPT;
  if (!wanted && reading !== Disputes.UNSPECIFIED)
    throw invalidField("reading", "is for disputes that are accepted only; leave it out.");
  if (wanted && reading !== Disputes.STRICT && reading !== Disputes.LENIENT) {
    throw invalidField("reading", 'is missing; say which reading of the answers counts: "strict" or "lenient".');
  }
}

/** Throws invalid_argument unless the task's grader can take the output as the expected one. */
function checkOutput({ row }: Review, task: Task, output: string): void {
  const refuse = (description: string) => invalidField("output", description);
  if (output.trim() === "") throw refuse("is empty; give the output that the row should have.");
  if (output.length > maxOutputLength) throw refuse(`has ${output.length} characters; at most ${maxOutputLength} fit.`);
  if (output === row?.output) throw refuse('is what the row has already; decide "accept" instead.');
  const labels = task.labels.map(({ name }) => name);
  if (labels.length > 0 && !labels.includes(output)) {
    const meant = nearest(output, labels);
    throw refuse(
      `"${output}" is no label of the task; it has: ${labels.join(", ")}.${meant === undefined ? "" : ` Did you mean "${meant}"?`}`,
    );
  }
  if (task.kind === TaskKind.MULTIPLE_CHOICE && !/^\W*[A-Za-z]\W*$/.test(output))
    throw refuse(`"${output}" is not the letter of a choice; give one letter.`);
  if (task.kind === TaskKind.MATH && !/\d/.test(output))
    throw refuse("has no number in it, and the last number is the answer; give one.");
  if (task.kind === TaskKind.EXTRACTION) {
    const read = readFields(output, task.fields);
    if ("problem" in read) throw refuse(`does not fit the task's fields: ${read.problem.message}`);
  }
}
