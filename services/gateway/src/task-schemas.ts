/** Tasks, recipes, profiles and predictions as JSON. */
import { type Decoding, type Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import {
  type ExtractionField,
  FieldType,
  Grader,
  type Task,
  TaskKind,
  type WorkedExample,
} from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import type { Snaked } from "./cases.js";
import { enumName } from "./fields.js";

/** One schema for each field of a message: a field that the contract gains cannot be forgotten here. */
export type Fields<Message> = Record<keyof Snaked<Message>, z.ZodType>;

const share = z.number().min(0).max(1);

export const extractionFieldSchema = z
  .strictObject({
    name: z.string().min(1).describe("The key in the JSON object"),
    type: enumName(FieldType),
    optional: z.boolean().default(false).describe("May be missing, where the input does not say it"),
    description: z.string().default("").describe("What it means, in plain words, for the teacher"),
  } satisfies Fields<ExtractionField>)
  .meta({ id: "ExtractionField" });

const workedExampleSchema = z
  .strictObject({
    input: z.string().min(1).describe("An example that a student got wrong"),
    output: z.string().min(1).describe("Its expected answer; of a classification, one of the labels"),
    wrong_answer: z.string().default("").describe("What the student answered instead"),
    new_input: z.string().min(1).describe("The new example: the same skill, other content and wording"),
    new_output: z.string().min(1).describe("Its answer; of a classification, the same label"),
  } satisfies Fields<WorkedExample>)
  .meta({ id: "WorkedExample" });

export const taskSchema = z
  .strictObject({
    name: z.string().min(1).max(100),
    kind: enumName(TaskKind),
    prompt_template: z
      .string()
      .refine((text) => text === "" || text.split("{input}").length === 2, {
        error: 'must contain "{input}" exactly once',
      })
      .default("")
      .describe('The student\'s prompt; contains "{input}" exactly once. Left out where all rows are conversations'),
    labels: z
      .array(z.strictObject({ name: z.string().min(1), description: z.string().default("") }))
      .default([])
      .describe("The closed label set of a classification task"),
    grader: enumName(Grader).default(Grader.UNSPECIFIED).describe("Derived from the kind when left out"),
    teacher_instructions: z.string().default("").describe("What the task is and what its rows look like"),
    max_answer_tokens: z.number().int().min(0).default(0).describe("0 picks the kind's default"),
    row_noun: z.string().default("").describe('What rows are called, plural: "questions"'),
    fields: z.array(extractionFieldSchema).max(64).default([]).describe("The fields of an extraction task's outputs"),
    rouge_l_threshold: share.default(0).describe("Least ROUGE-L F of a right answer, for grader rouge_l; 0 takes 0.5"),
    worked_example: workedExampleSchema
      .optional()
      .describe("One wrong example turned into a new one, shown to chat teachers; drawn from the rows when left out"),
  } satisfies Fields<Task>)
  .refine(({ kind, labels }) => kind !== TaskKind.CLASSIFICATION || labels.length >= 2, {
    error: "a classification task needs at least two labels",
    path: ["labels"],
  })
  .refine(({ kind, fields }) => kind !== TaskKind.EXTRACTION || fields.length > 0, {
    error: "an extraction task needs at least one field",
    path: ["fields"],
  })
  .meta({ id: "Task" });

export const taskName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,100}$/, 'must be 1 to 100 letters, digits, ".", "_" or "-"');

export const recipeSchema = z
  .strictObject({
    method: enumName(TuningMethod),
    lora_rank: z.number().int().min(0).default(0),
    lora_alpha: z.number().min(0).default(0),
    lora_dropout: share.default(0),
    trained_layers: z.number().int().min(0).default(0).describe("0 means all"),
    epochs: z.number().min(0).default(0),
    min_steps: z.number().int().min(0).default(0),
    exact_steps: z.number().int().min(0).default(0),
    batch_rows: z.number().int().min(1),
    micro_batch_tokens: z.number().int().min(1),
    learning_rate: z.number().positive(),
    warmup_share: share.default(0),
    weight_decay: z.number().min(0).default(0),
    max_grad_norm: z.number().min(0),
    average_share: share.default(0),
  } satisfies Fields<Recipe>)
  .meta({ id: "Recipe" });

export const decodingSchema = z
  .strictObject({
    score_labels: z.boolean().default(false).describe("Take the likeliest label; else generate"),
    temperature: z.number().min(0).default(0).describe("0 is greedy"),
    top_p: share.default(0),
    max_new_tokens: z.number().int().min(0).default(0),
    stop: z.array(z.string()).default([]),
    seed: z.number().int().default(0),
  } satisfies Fields<Decoding>)
  .meta({ id: "Decoding" });

export const studentProfiles = z.object({
  profiles: z.array(
    z.object({
      name: z.string(),
      model: z.string(),
      description: z.string(),
      license: z.string().describe("Of the base weights; empty where the operator did not say"),
      recipe: recipeSchema.optional(),
    }),
  ),
});

export const teacherProfile = z.object({
  name: z.string(),
  provider: z.string(),
  model: z.string(),
  description: z.string(),
  prompt_micro_usd_per_million_tokens: z.number(),
  completion_micro_usd_per_million_tokens: z.number(),
  scores_labels: z.boolean(),
  prompt_form: z.string().describe("chat, or list_continuation for a base model, which writes no conversations"),
  terms: z.string().describe("Under which its output may be used; empty where the operator did not say"),
  fallback: z.string().describe("The profile that is asked while this one's provider is away; empty for none"),
});

export const teacherProfiles = z.object({ profiles: z.array(teacherProfile) });

/** A conversation as JSON; its rules are the contract's, and whoever takes one checks them. */
export const messagesSchema = z.array(z.object({ role: z.string(), content: z.string() }));

const conversation = z
  .array(z.strictObject({ role: z.enum(["system", "user", "assistant"]), content: z.string() }))
  .min(1)
  .refine((messages) => messages.at(-1)?.role === "user", { error: "must end with a message of the user" });

export const predictBody = z
  .strictObject({
    inputs: z.array(z.string().min(1)).min(1).max(256).optional().describe("Texts to answer, 1 to 256"),
    conversations: z
      .array(conversation)
      .min(1)
      .max(256)
      .optional()
      .describe("Or conversations to go on with, 1 to 256"),
  })
  .refine(({ inputs, conversations }) => (inputs === undefined) !== (conversations === undefined), {
    error: "give either inputs or conversations",
    path: ["inputs"],
  });

export const predictResult = z.object({
  predictions: z
    .array(
      z.object({
        text: z.string().describe("The answer"),
        probability: z.number().describe("Of the answer, 0 to 1; over the label set where labels were scored"),
        log_probability: z.number(),
        label_scores: z.array(z.object({ label: z.string(), probability: z.number(), log_probability: z.number() })),
        too_long: z.boolean().describe("The input exceeds the model's context and was not answered"),
      }),
    )
    .describe("In the order of the inputs or conversations"),
});
