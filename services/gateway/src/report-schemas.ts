/** A campaign's report as JSON. */
import { z } from "zod";
import { campaignSchema, candidatePage, iterationList, pairedGain, seedRow } from "./campaign-schemas.js";
import { overlapCounts, rowOverlaps } from "./dataset-schemas.js";
import { proportion } from "./fields.js";
import { reviewSchema } from "./review-schemas.js";

const metrics = z.object({
  accuracy: proportion.optional(),
  labels: z.array(
    z.object({
      label: z.string(),
      support: z.number().int(),
      precision: z.number(),
      recall: z.number(),
      f1: z.number(),
    }),
  ),
  confusion: z.array(z.object({ expected: z.string(), answered: z.string(), count: z.number().int() })),
  unreadable_rows: z.number().int(),
  too_long_rows: z.number().int(),
  disputed_rows: z.number().int().describe("Rows whose answer a strict and a lenient reading grade differently"),
  extraction: z
    .object({
      expected_fields: z.number().int(),
      answered_fields: z.number().int(),
      right_fields: z.number().int(),
      precision: z.number(),
      recall: z.number(),
      f1: z.number(),
      fields: z.array(z.object({ field: z.string(), accuracy: proportion.optional() })),
    })
    .optional()
    .describe("Fields of all rows together, and each by itself; extraction only"),
  mean_rouge_l: z.number().optional().describe("Mean ROUGE-L F of answers and expected outputs; free text only"),
});

export const reportSchema = z
  .object({
    campaign: campaignSchema.optional(),
    iterations: iterationList.shape.iterations,
    seed_rows: z.array(seedRow).describe("At most 1000"),
    candidates: candidatePage.shape.candidates.describe(
      "At most 1000; without text where it says a dev or test row again",
    ),
    candidate_count: z.number().int(),
    baseline_metrics: metrics.optional().describe("Plain fine-tuning on the test rows"),
    final_metrics: metrics.optional().describe("The returned student on the test rows"),
    loss_curves: z.array(z.object({ name: z.string(), steps: z.array(z.number().int()), losses: z.array(z.number()) })),
    advice: z.array(z.string()).describe("What to try next, the most promising first"),
    departures: z.array(z.string()).describe("Where a campaign under the paper's schedule differs from the paper"),
    comparisons: z
      .array(
        z.object({
          arm: z.string(),
          gain: pairedGain.optional().describe("The returned student minus the arm"),
          mcnemar_p: z.number().describe("Two-sided; exact below 25 discordant rows, mid-p from there on"),
          holm_p: z.number().describe("After Holm's correction over all comparisons"),
          detectable_gain: z.number().describe("Smallest true difference found with 80 % probability, as a fraction"),
        }),
      )
      .describe("The returned student against each arm, on the test rows"),
    claims: z.array(z.string()).describe("Which claims the test rows support, and which they do not"),
    split_overlaps: z
      .object({
        counts: overlapCounts,
        overlaps: rowOverlaps.describe("The first 1000, by their ids"),
        dropped_rows: z.number().int().describe("Train rows that were left out for it"),
      })
      .optional()
      .describe("How the user's own splits overlap"),
    reviews: z.array(reviewSchema).describe("Seed rows in doubt, and what was decided; at most 1000"),
  })
  .meta({ id: "CampaignReport" });
