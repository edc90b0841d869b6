/** What a campaign is asked for, as JSON: its settings, and what it is started and forked with. */
import {
  Arm,
  Disputes,
  ErrorsFrom,
  HeldOutOverlaps,
  Mining,
  Priority,
  Schedule,
  SeedAudit,
  Selection,
  type Settings,
  StartFrom,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { enumName } from "./fields.js";
import { decodingSchema, type Fields, recipeSchema, taskName, taskSchema } from "./task-schemas.js";

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
