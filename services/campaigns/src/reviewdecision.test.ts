import { Disputes, Review, ReviewDecision, ReviewKind, ReviewStatus } from "@tutelage/proto/campaigns/v1/campaigns";
import { FieldType, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { decided } from "./reviewdecision.js";

const task = Task.fromPartial({
  kind: TaskKind.CLASSIFICATION,
  labels: [{ name: "refund" }, { name: "theft" }],
});
const review = Review.fromPartial({
  seedRowId: "r1",
  kind: ReviewKind.LABEL,
  status: ReviewStatus.OPEN,
  row: { id: "r1", input: "my bike is gone", output: "refund" },
});
const dispute = { ...review, kind: ReviewKind.DISPUTE };
const plain = { output: "", reading: Disputes.UNSPECIFIED, decidedBy: "" };
const accept = { ...plain, decision: ReviewDecision.ACCEPT };
const relabel = { ...plain, decision: ReviewDecision.RELABEL };

test("each decision has its status, and the same once more changes nothing", () => {
  const stored = decided(review, task, { ...relabel, output: "theft", decidedBy: "Ada" });
  expect(stored).toEqual({ ...plain, status: ReviewStatus.RELABELLED, output: "theft", decidedBy: "Ada" });
  expect(decided({ ...review, ...stored }, task, { ...relabel, output: "theft" })).toBeUndefined();
  expect(decided({ ...review, ...stored }, task, accept)).toMatchObject({ status: ReviewStatus.ACCEPTED, output: "" });
  const exclude = { ...plain, decision: ReviewDecision.EXCLUDE };
  expect(decided(review, task, exclude)).toMatchObject({ status: ReviewStatus.EXCLUDED });
});

test("what an iteration has taken up stands", () => {
  const acted = { ...review, status: ReviewStatus.ACCEPTED, actedIteration: 2 };
  expect(decided(acted, task, accept)).toBeUndefined();
  expect(() => decided(acted, task, { ...relabel, output: "theft" })).toThrow(/Iteration 2 has taken up/);
});

test.each([
  ["refunds", /"refunds" is no label of the task; it has: refund, theft. Did you mean "refund"\?/],
  ["refund", /what the row has already/],
  ["", /is empty/],
])("the label %j is refused with a fix", (output, message) => {
  expect(() => decided(review, task, { ...relabel, output })).toThrow(message);
});

const json = { name: "item", type: FieldType.STRING, optional: false, description: "" };
test.each([
  [TaskKind.MATH, "eighteen", /no number/],
  [TaskKind.MULTIPLE_CHOICE, "the second", /letter of a choice/],
  [TaskKind.EXTRACTION, "{}", /does not fit the task's fields/],
])("an output that %s's grader cannot read is refused", (kind, output, message) => {
  const other = Task.fromPartial({ kind, fields: kind === TaskKind.EXTRACTION ? [json] : [] });
  expect(() => decided(dispute, other, { ...relabel, output })).toThrow(message);
});

test("a dispute is accepted with the reading that counts, and only a dispute", () => {
  expect(() => decided(dispute, task, accept)).toThrow(/reading is missing|is missing; say which reading/);
  const lenient = { ...accept, reading: Disputes.LENIENT };
  expect(decided(dispute, task, lenient)).toMatchObject({ status: ReviewStatus.ACCEPTED, reading: Disputes.LENIENT });
  expect(() => decided(review, task, lenient)).toThrow(/for disputes/);
  expect(() => decided(dispute, task, { ...lenient, decision: ReviewDecision.EXCLUDE })).toThrow(/for disputes/);
  expect(() => decided(review, task, { ...accept, output: "theft" })).toThrow(/for "relabel" only/);
});
