/** Campaigns, iterations and candidates as JSON. */
import {
  Arm,
  Disputes,
  ErrorsFrom,
  HeldOutOverlaps,
  Mining,
  Priority,
  ReviewKind,
  ReviewStatus,
  Schedule,
  SeedAudit,
  SeedRowState,
  Selection,
  type Settings,
  StartFrom,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { overlapCounts, overlapSchema, rowOverlaps, rowSchema } from "./dataset-schemas.js";
import { enumName, nextCursor, pageQuery, proportion, runSchema, wholeNumber } from "./fields.js";
import { decodingSchema, type Fields, messagesSchema, recipeSchema, taskName, taskSchema } from "./task-schemas.js";

/** A switch is true or false ("on" and "off" are understood, too); left out, it takes its default. */
const switchFlag = z
  .codec(z.union([z.boolean(), z.enum(["on", "off"])]), z.enum(Switch), {
    decode: (value) => (value === true || value === "on" ? Switch.ON : Switch.OFF),
    encode: (value) => value === Switch.ON,
  })
  .meta({ type: "boolean", anyOf: undefined, enum: undefined });

const count = z.number().int().min(0);

/** Bounds and defaults are the campaigns service's: it answers with one problem for each wrong setting. */
export const settingsSchema = z
  .strictObject({
    schedule: enumName(Schedule).describe(
      "What settings that are left open resolve to: what measures best here, or what the paper ran",
    ),
    iterations: count.describe("Rounds of training, mining and generating; 1 to 20"),
    mining: enumName(Mining).describe("How errors are found"),
    folds: count.describe("Folds of cross-fitting; 2 to 10"),
    selection: enumName(Selection).describe("How errors become teacher calls"),
    examples_per_error: count.describe(
      "New rows per selected row and iteration (errors_only, uncertain, all); 1 to 20",
    ),
    uncertain_below: z.number().describe("Select rows whose expected output is less probable (uncertain); 0.01 to 1"),
    priority: enumName(Priority).describe(
      "Which rows get calls where max_teacher_calls, with finish_at_budget, does not pay for all of them",
    ),
    rows_per_seed_row: z.number().describe("New rows per iteration as a multiple of the seed rows (balanced)"),
    attempts_per_row: count.describe("Calls per wanted row before it is given up; 1 to 10"),
    start_from: enumName(StartFrom).describe("From which weights an iteration's student starts"),
    errors_from: enumName(ErrorsFrom).describe("Whose errors are augmented"),
    disputes: enumName(Disputes).describe(
      "Seed rows whose answer a strict and a lenient reading grade differently: set aside, or decided by one of them",
    ),
    held_out_overlaps: enumName(HeldOutOverlaps).describe(
      "Train rows that say what a dev or test row says: tell of them, leave them out, or do not start",
    ),
    seed_audit: enumName(SeedAudit).describe(
      "Seed rows whose label cross-fitted students and teacher both contradict: not looked for, set aside for review, or " +
        "waited for until each is decided",
    ),
    max_rouge_l: z.number().describe("A candidate nearer than this to a kept row is dropped; 0 to 1"),
    check_students: switchFlag.describe("Check labels by the cross-fitted students"),
    check_teacher: switchFlag.describe("Check labels by a blind second labelling of the teacher"),
    accept_probability: z.number().describe("Least probability of a right label; 0 to 1"),
    target_accuracy: z.number().describe("Stop when accuracy reaches this; 0 for never"),
    patience: count.describe("Stop after this many iterations without gain; 0 for never"),
    max_teacher_calls: count.describe("Most teacher calls in all; 0 for no cap"),
    max_teacher_tokens: count.describe("Most teacher tokens in all, sent and received; 0 for no cap"),
    max_cost_micro_usd: count.describe("Most money for the teacher, in micro-USD; 0 for no cap"),
    max_training_seconds: count.describe("Most seconds of training in all; 0 for no cap"),
    finish_at_budget: switchFlag.describe(
      "At a cap of the teacher, end with what there is; else stop whole (budget_exhausted), and go on when it is raised",
    ),
    preflight_min_parse_rate: z.number().describe("Smallest share of pre-flight replies that parse"),
    preflight_min_agreement_over_chance: z.number().describe("Smallest agreement on gold labels, in units of chance"),
    preflight: switchFlag.describe("Try the teacher on a few seed rows first"),
    seed: z.number().int().describe("Seed of every random choice; from 1"),
    recipe: recipeSchema.describe("Replaces the student profile's recipe"),
    decoding: decodingSchema.describe("How students answer when they are evaluated"),
    arms: z
      .array(enumName(Arm))
      .max(20)
      .describe("What the campaign is compared with on the same test rows, besides plain fine-tuning (none)"),
    oracle_teacher_profile: z.string().max(200).describe("The teacher profile of the arm oracle"),
    plain_tries: count.describe("Plain students to try; 0 for as many as the campaign has to choose from"),
    reuse_replies: switchFlag.describe("Use replies again that the project's other campaigns paid for"),
    teacher_patience_seconds: count.describe("How long to wait for a teacher that does not answer; 1 to 2678400"),
  } satisfies Fields<Settings>)
  .partial()
  .meta({ id: "CampaignSettings" });

/** On the wire 0 is "left out": where it does not mean "off" it is refused here, not silently replaced. */
const neverZero = [
  "iterations",
  "folds",
  "examples_per_error",
  "rows_per_seed_row",
  "attempts_per_row",
  "uncertain_below",
  "max_rouge_l",
  "accept_probability",
  "preflight_min_parse_rate",
  "preflight_min_agreement_over_chance",
  "seed",
  "teacher_patience_seconds",
] as const satisfies (keyof z.input<typeof settingsSchema>)[];

const askedSettings = settingsSchema.check(({ value, issues }) => {
  for (const name of neverZero) {
    if (value[name] !== 0) continue;
    const message = "is 0; it must be greater. Leave it out for the default";
    issues.push({ code: "custom", input: 0, path: [name], message });
  }
});

export const startCampaignBody = z
  .strictObject({
    name: z.string().max(200).optional().describe("A name for people; the task's when left out"),
    dataset: z.string().optional().describe("Id or name of a dataset; its newest version is taken"),
    dataset_version_id: z.uuid().optional().describe("Or one version"),
    task: z
      .union([taskName, taskSchema])
      .describe("The task, or the name of one: a preset or one that was stored with PUT /v1/tasks/{name}"),
    student_profile: z.string().min(1),
    teacher_profile: z.string().min(1),
    settings: askedSettings.default({}).describe("What is left out takes its default"),
  })
  .refine((body) => (body.dataset === undefined) !== (body.dataset_version_id === undefined), {
    error: "give either dataset or dataset_version_id",
    path: ["dataset"],
  });

export const forkBody = z.strictObject({
  iteration: z.number().int().min(1).describe("The first that is the fork's own; those before are shared"),
  name: z.string().max(200).optional().describe("A name for people; the other's, marked as a fork, when left out"),
  settings: askedSettings.default({}).describe("What changes from that iteration on; what is left out stays"),
});

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

const pairedGain = z.object({
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

const seedRow = z.object({
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

export const report = z
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
