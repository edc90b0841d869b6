/** Seed rows in doubt, and what was decided of them, as JSON. */
import { Disputes, ReviewKind, ReviewStatus } from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { rowSchema } from "./dataset-schemas.js";
import { enumName, nextCursor } from "./fields.js";

const opinion = z.object({
  answer: z.string(),
  probability: z.number().optional().describe("That they give to their answer"),
  output_probability: z.number().optional().describe("That they give to the row's output"),
  hit_rate: z.number().optional().describe("Of rows labelled as they answer, the share to which they give that label"),
  false_alarm_rate: z.number().optional().describe("Of other rows, the share to which they give it"),
});

export const reviewSchema = z
  .object({
    seed_row_id: z.string(),
    kind: enumName(ReviewKind).describe(
      "label: students and teacher contradict it; dispute: two readings of the answer are graded differently",
    ),
    status: enumName(ReviewStatus),
    row: rowSchema.optional().describe("As it came into doubt"),
    evidence: z.array(
      z.object({
        iteration: z.number().int(),
        students: opinion.optional(),
        teacher: opinion.optional().describe("Blind to the label; left out for a dispute"),
        text: z.string().describe("Of a dispute: the whole answer, of which that of students is the strict reading"),
        strict_correct: z.boolean().describe("Of a dispute: whether the strict reading is right"),
      }),
    ),
    proposed_output: z.string().describe("The label that both agree on instead; empty for a dispute"),
    output: z.string().describe("What it was relabelled with"),
    reading: enumName(Disputes).describe("Which reading decides its answers; of an accepted dispute"),
    opened_at: z.date().optional(),
    decided_at: z.date().optional(),
    decided_by: z.string(),
    acted_iteration: z
      .number()
      .int()
      .optional()
      .describe("Which took the decision up; the next one is the first to learn from it"),
    new_row_id: z.string().describe("The row that it became, once relabelled and taken up"),
  })
  .meta({ id: "Review" });

export const reviewPage = z.object({ reviews: z.array(reviewSchema), next_cursor: nextCursor });
