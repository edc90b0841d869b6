/** Campaigns, iterations and candidates as JSON. */
import { SeedRowState } from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { overlapSchema, rowSchema } from "./dataset-schemas.js";
import { enumName, nextCursor, pageQuery, proportion, runSchema, wholeNumber } from "./fields.js";
import { settingsSchema } from "./settings-schemas.js";
import { messagesSchema, taskSchema } from "./task-schemas.js";

const checkpoint = z.object({
  uri: z.string(),
  sha256: z.string(),
  model: z.string(),
  model_digest: z.string(),
  size_bytes: z.number().int(),
  final_loss: z.number(),
  trained_tokens: z.number(),
});

const usageSchema = z.object({
  calls: z.number().int(),
  reused_calls: z.number().int(),
  prompt_tokens: z.number().int(),
  completion_tokens: z.number().int(),
  cost_micro_usd: z.number().int(),
  teacher_seconds: z.number(),
  saved_micro_usd: z.number().int().describe("What the replies had cost that were used again"),
});

export const pairedGain = z.object({
  gain: z.number().describe("Final minus the other, as a fraction"),
  ci95_low: z.number(),
  ci95_high: z.number(),
  n: z.number().int(),
  only_final_right: z.number().int(),
  only_baseline_right: z.number().int(),
});

const arm = z.object({
  name: z.string(),
  checkpoint: checkpoint.optional(),
  training_run_id: z.string(),
  train_rows: z.number().int(),
  steps: z.number().int(),
  tries: z.number().int(),
  choosing_score: proportion.optional(),
  test_accuracy: proportion.optional(),
  test_evaluation_run_id: z.string(),
  tries_test_accuracy: z.array(proportion).describe("Of every student tried, in order"),
  tries_test_evaluation_run_ids: z.array(z.string()).describe("The evaluations that say so, in order"),
  made_rows: z.number().int().describe("Rows that it made besides the seed rows"),
  usage: usageSchema.optional().describe("What the teacher used for it"),
  left_out: z.string().describe("Why it was not measured; empty where it was"),
  final_gain: pairedGain.optional().describe("The returned student minus this arm, paired, on the test rows"),
});

const outcome = z.object({
  stop_reason: z.string(),
  chosen_iteration: z.number().int().describe("-1 for the plain student"),
  plain_returned: z.boolean().describe("No iteration beat plain fine-tuning, so that student is returned"),
  summary: z.string(),
  baseline: arm.optional().describe("Plain fine-tuning on the seed rows with as many tries"),
  final: arm.optional().describe("The student that the campaign returns"),
  other_arms: z.array(arm),
  gain: pairedGain.optional().describe("The returned student minus plain fine-tuning, paired, on the test rows"),
  dataset_version_id: z.string(),
  wall_seconds: z.number(),
});

const resolvedRequest = z
  .object({
    name: z.string(),
    dataset_id: z.string().describe("The dataset that its rows came from"),
    dataset_version_id: z.string(),
    student_profile: z.string(),
    teacher_profile: z.string(),
    task: taskSchema.optional(),
    settings: settingsSchema.optional(),
  })
  .describe("What was asked, with every default resolved");

const forecastSchema = z.object({
  name: z
    .string()
    .describe(
      "teacher_calls, prompt_tokens, completion_tokens, cost_micro_usd, optimizer_steps, wall_seconds, or missing",
    ),
  low: z.number(),
  likely: z.number(),
  high: z.number(),
  basis: z.string().describe("What the numbers rest on"),
});

export const campaignEstimate = z
  .object({
    request: resolvedRequest.optional(),
    forecasts: z.array(forecastSchema),
  })
  .meta({ id: "CampaignEstimate" });

const teacherWait = z.object({
  profile: z.string(),
  code: z.string().describe("Of the failure, e.g. teacher_unavailable or teacher_rate_limited"),
  message: z.string(),
  since: z.date().optional(),
  until: z.date().optional().describe("When the teacher is tried next"),
});

export const campaignSchema = z
  .object({
    run: runSchema.optional(),
    request: resolvedRequest.optional(),
    dataset_id: z.string().describe("The dataset that holds this campaign's versions"),
    iteration: z.number().int(),
    phase: z.string(),
    usage: usageSchema.optional(),
    teacher_wait: teacherWait
      .optional()
      .describe("While the teacher does not answer: the campaign is queued, and goes on by itself"),
    outcome: outcome.optional().describe("What came of it, once it succeeded"),
    note: z.string(),
    tags: z.array(z.string()),
    training_seconds: z.number().describe("Of training so far, lost attempts included"),
    forked_from: z
      .object({
        campaign_id: z.string(),
        iteration: z.number().int().describe("The first that is the fork's own"),
        shared_usage: usageSchema.optional().describe("Paid by the campaign that it was made of, and not again"),
        shared_training_seconds: z.number(),
      })
      .optional()
      .describe("Where it comes from, when it is a fork"),
    shortfalls: z
      .array(
        z.object({
          name: z.string().describe("teacher_calls, teacher_tokens, cost_micro_usd or training_seconds"),
          scope: z.string().describe("campaign or project: whose cap it is"),
          used: z.number(),
          cap: z.number(),
          missing: forecastSchema
            .optional()
            .describe("By how much the cap should be raised; left out where that is not known"),
        }),
      )
      .describe("What its budget lacks, while it is exhausted"),
  })
  .meta({ id: "Campaign" });

export const campaignPage = z.object({ campaigns: z.array(campaignSchema), next_cursor: nextCursor });

export const iterationList = z.object({
  iterations: z.array(
    z.object({
      number: z.number().int(),
      dataset_version_id: z.string(),
      dataset_digest: z.string(),
      train_rows: z.number().int(),
      training_run_id: z.string(),
      checkpoint: checkpoint.optional(),
      cross_fit_accuracy: proportion.optional(),
      dev_accuracy: proportion.optional(),
      test_accuracy: proportion.optional(),
      mined: z.boolean().describe("Whether errors were looked for; they are not when the loop ends first"),
      errors: z.number().int(),
      candidates: z.number().int(),
      accepted: z.number().int(),
      rejected: z.record(z.string(), z.number()).describe("By reason"),
      overlaps_by_kind: z
        .record(z.string(), z.number())
        .describe("Those rejected as held_out_overlap: exact, ngram, near_duplicate"),
      seconds: z.number(),
      phase_seconds: z.record(z.string(), z.number()),
    }),
  ),
});

export const candidatesQuery = z.strictObject({
  ...pageQuery,
  iteration: wholeNumber(0, 1000).optional().describe("Only this iteration"),
  accepted: z
    .enum(["true", "false"])
    .transform((text) => text === "true")
    .optional()
    .describe("Only those that became rows, or only those that did not"),
  rejection: z.string().default("").describe("Only those rejected for this reason"),
  seed_row: z.string().default("").describe("Only those written from this seed row, by its id"),
});

export const candidatePage = z.object({
  candidates: z.array(
    z.object({
      number: z.number().int(),
      iteration: z.number().int(),
      seed_row_id: z.string(),
      wrong_answer: z.string(),
      call_id: z.string(),
      teacher_profile: z.string().describe("Who wrote it: the campaign's teacher, or the one that stood in for it"),
      input: z.string(),
      messages: messagesSchema.describe("A conversation instead of input"),
      output: z.string(),
      accepted: z.boolean(),
      rejection: z.string().describe("Why not; empty when accepted"),
      verdicts: z.array(
        z.object({
          checker: z.string(),
          label_probability: z.number(),
          answer: z.string(),
          reliability: z.number(),
        }),
      ),
      probability: z.number().describe("That its label is right, all checks together"),
      max_rouge_l: z.number(),
      overlap: overlapSchema.optional().describe("The dev or test row that it says again, if it does"),
      row_id: z.string().describe("The row it became; empty when rejected"),
    }),
  ),
  next_cursor: nextCursor,
});

export const seedRow = z.object({
  row: rowSchema.optional(),
  grades: z
    .array(
      z.object({
        iteration: z.number().int(),
        correct: z.boolean(),
        answer: z.string(),
        expected_probability: z.number().optional().describe("That the student gave to the expected output"),
      }),
    )
    .describe("In the order of the iterations; none where it was set aside or too long"),
  candidates: z.number().int().describe("Written from it"),
  accepted: z.number().int().describe("Of these, became rows"),
  state: enumName(SeedRowState).describe(
    "How its answers went over the mined iterations: known (all right), learned (last right), stubborn (all wrong), " +
      "forgotten (wrong, right, wrong again), regressed (first right, last wrong)",
  ),
});

export const seedRowPage = z.object({ rows: z.array(seedRow), next_cursor: nextCursor });
