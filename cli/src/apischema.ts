/** The API's parts of a campaign.yaml as JSON Schema, written by tools/apischema.mjs: change the gateway's schemas. */
import type { SchemaNode } from "./knownnames.js";

export const apiSchema: Record<string, SchemaNode> = {
  CampaignSettings: {
    type: "object",
    properties: {
      schedule: {
        type: "string",
        enum: ["tutelage", "paper"],
        description: "What settings that are left open resolve to: what measures best here, or what the paper ran",
      },
      iterations: { type: "integer", minimum: 0, description: "Rounds of training, mining and generating; 1 to 20" },
      mining: { type: "string", enum: ["in_sample", "cross_fit"], description: "How errors are found" },
      folds: { type: "integer", minimum: 0, description: "Folds of cross-fitting; 2 to 10" },
      selection: {
        type: "string",
        enum: ["errors_only", "balanced", "uncertain", "all"],
        description: "How errors become teacher calls",
      },
      examples_per_error: {
        type: "integer",
        minimum: 0,
        description: "New rows per selected row and iteration (errors_only, uncertain, all); 1 to 20",
      },
      uncertain_below: {
        type: "number",
        description: "Select rows whose expected output is less probable (uncertain); 0.01 to 1",
      },
      priority: {
        type: "string",
        enum: ["hardest", "most_often_wrong", "label_balanced"],
        description:
          "Which rows get calls where max_teacher_calls, with finish_at_budget, does not pay for all of them",
      },
      rows_per_seed_row: {
        type: "number",
        description: "New rows per iteration as a multiple of the seed rows (balanced)",
      },
      attempts_per_row: {
        type: "integer",
        minimum: 0,
        description: "Calls per wanted row before it is given up; 1 to 10",
      },
      start_from: {
        type: "string",
        enum: ["base", "previous"],
        description: "From which weights an iteration's student starts",
      },
      errors_from: { type: "string", enum: ["seed", "all"], description: "Whose errors are augmented" },
      disputes: {
        type: "string",
        enum: ["aside", "strict", "lenient"],
        description:
          "Seed rows whose answer a strict and a lenient reading grade differently: set aside, or decided by one of them",
      },
      held_out_overlaps: {
        type: "string",
        enum: ["warn", "drop", "refuse"],
        description: "Train rows that say what a dev or test row says: tell of them, leave them out, or do not start",
      },
      seed_audit: {
        type: "string",
        enum: ["off", "aside", "wait"],
        description:
          "Seed rows whose label cross-fitted students and teacher both contradict: not looked for, set aside for review, or waited for until each is decided",
      },
      max_rouge_l: { type: "number", description: "A candidate nearer than this to a kept row is dropped; 0 to 1" },
      check_students: { type: "boolean", description: "Check labels by the cross-fitted students" },
      check_teacher: { type: "boolean", description: "Check labels by a blind second labelling of the teacher" },
      accept_probability: { type: "number", description: "Least probability of a right label; 0 to 1" },
      target_accuracy: { type: "number", description: "Stop when accuracy reaches this; 0 for never" },
      patience: {
        type: "integer",
        minimum: 0,
        description: "Stop after this many iterations without gain; 0 for never",
      },
      max_teacher_calls: { type: "integer", minimum: 0, description: "Most teacher calls in all; 0 for no cap" },
      max_teacher_tokens: {
        type: "integer",
        minimum: 0,
        description: "Most teacher tokens in all, sent and received; 0 for no cap",
      },
      max_cost_micro_usd: {
        type: "integer",
        minimum: 0,
        description: "Most money for the teacher, in micro-USD; 0 for no cap",
      },
      max_training_seconds: {
        type: "integer",
        minimum: 0,
        description: "Most seconds of training in all; 0 for no cap",
      },
      finish_at_budget: {
        type: "boolean",
        description:
          "At a cap of the teacher, end with what there is; else stop whole (budget_exhausted), and go on when it is raised",
      },
      preflight_min_parse_rate: { type: "number", description: "Smallest share of pre-flight replies that parse" },
      preflight_min_agreement_over_chance: {
        type: "number",
        description: "Smallest agreement on gold labels, in units of chance",
      },
      preflight: { type: "boolean", description: "Try the teacher on a few seed rows first" },
      seed: { type: "integer", description: "Seed of every random choice; from 1" },
      recipe: { description: "Replaces the student profile's recipe", $ref: "#/$defs/Recipe" },
      decoding: { description: "How students answer when they are evaluated", $ref: "#/$defs/Decoding" },
      arms: {
        maxItems: 20,
        type: "array",
        items: {
          type: "string",
          enum: [
            "none",
            "zero_shot",
            "few_shot",
            "teacher",
            "probe",
            "none_matched",
            "none_all",
            "eda",
            "auggpt",
            "random",
            "oracle",
          ],
        },
        description: "What the campaign is compared with on the same test rows, besides plain fine-tuning (none)",
      },
      oracle_teacher_profile: { type: "string", maxLength: 200, description: "The teacher profile of the arm oracle" },
      plain_tries: {
        type: "integer",
        minimum: 0,
        description: "Plain students to try; 0 for as many as the campaign has to choose from",
      },
      reuse_replies: { type: "boolean", description: "Use replies again that the project's other campaigns paid for" },
      teacher_patience_seconds: {
        type: "integer",
        minimum: 0,
        description: "How long to wait for a teacher that does not answer; 1 to 2678400",
      },
    },
    additionalProperties: false,
  },
  Recipe: {
    type: "object",
    properties: {
      method: { type: "string", enum: ["lora", "full", "probe"] },
      lora_rank: { default: 0, type: "integer", minimum: 0 },
      lora_alpha: { default: 0, type: "number", minimum: 0 },
      lora_dropout: { default: 0, type: "number", minimum: 0, maximum: 1 },
      trained_layers: { default: 0, description: "0 means all", type: "integer", minimum: 0 },
      epochs: { default: 0, type: "number", minimum: 0 },
      min_steps: { default: 0, type: "integer", minimum: 0 },
      exact_steps: { default: 0, type: "integer", minimum: 0 },
      batch_rows: { type: "integer", minimum: 1 },
      micro_batch_tokens: { type: "integer", minimum: 1 },
      learning_rate: { type: "number", exclusiveMinimum: 0 },
      warmup_share: { default: 0, type: "number", minimum: 0, maximum: 1 },
      weight_decay: { default: 0, type: "number", minimum: 0 },
      max_grad_norm: { type: "number", minimum: 0 },
      average_share: { default: 0, type: "number", minimum: 0, maximum: 1 },
    },
    required: ["method", "batch_rows", "micro_batch_tokens", "learning_rate", "max_grad_norm"],
    additionalProperties: false,
  },
  Decoding: {
    type: "object",
    properties: {
      score_labels: { default: false, description: "Take the likeliest label; else generate", type: "boolean" },
      temperature: { default: 0, description: "0 is greedy", type: "number", minimum: 0 },
      top_p: { default: 0, type: "number", minimum: 0, maximum: 1 },
      max_new_tokens: { default: 0, type: "integer", minimum: 0 },
      stop: { default: [], type: "array", items: { type: "string" } },
      seed: { default: 0, type: "integer" },
    },
    additionalProperties: false,
  },
  Task: {
    type: "object",
    properties: {
      name: { type: "string", minLength: 1, maxLength: 100 },
      kind: { type: "string", enum: ["classification", "multiple_choice", "math", "text", "extraction"] },
      prompt_template: {
        default: "",
        description:
          'The student\'s prompt; contains "{input}" exactly once. Left out where all rows are conversations',
        type: "string",
      },
      labels: {
        default: [],
        description: "The closed label set of a classification task",
        type: "array",
        items: {
          type: "object",
          properties: { name: { type: "string", minLength: 1 }, description: { default: "", type: "string" } },
          required: ["name"],
          additionalProperties: false,
        },
      },
      grader: {
        description: "Derived from the kind when left out",
        type: "string",
        enum: ["exact", "normalized_text", "label", "choice_letter", "final_number", "json_fields", "rouge_l"],
      },
      teacher_instructions: {
        default: "",
        description: "What the task is and what its rows look like",
        type: "string",
      },
      max_answer_tokens: { default: 0, description: "0 picks the kind's default", type: "integer", minimum: 0 },
      row_noun: { default: "", description: 'What rows are called, plural: "questions"', type: "string" },
      fields: {
        description: "The fields of an extraction task's outputs",
        maxItems: 64,
        type: "array",
        items: { $ref: "#/$defs/ExtractionField" },
      },
      rouge_l_threshold: {
        default: 0,
        description: "Least ROUGE-L F of a right answer, for grader rouge_l; 0 takes 0.5",
        type: "number",
        minimum: 0,
        maximum: 1,
      },
      worked_example: {
        description:
          "One wrong example turned into a new one, shown to chat teachers; drawn from the rows when left out",
        $ref: "#/$defs/WorkedExample",
      },
    },
    required: ["name", "kind"],
    additionalProperties: false,
  },
  ExtractionField: {
    type: "object",
    properties: {
      name: { type: "string", minLength: 1, description: "The key in the JSON object" },
      type: { type: "string", enum: ["string", "number", "boolean", "string_list"] },
      optional: { default: false, description: "May be missing, where the input does not say it", type: "boolean" },
      description: { default: "", description: "What it means, in plain words, for the teacher", type: "string" },
    },
    required: ["name", "type"],
    additionalProperties: false,
  },
  WorkedExample: {
    type: "object",
    properties: {
      input: { type: "string", minLength: 1, description: "An example that a student got wrong" },
      output: {
        type: "string",
        minLength: 1,
        description: "Its expected answer; of a classification, one of the labels",
      },
      wrong_answer: { default: "", description: "What the student answered instead", type: "string" },
      new_input: {
        type: "string",
        minLength: 1,
        description: "The new example: the same skill, other content and wording",
      },
      new_output: { type: "string", minLength: 1, description: "Its answer; of a classification, the same label" },
    },
    required: ["input", "output", "new_input", "new_output"],
    additionalProperties: false,
  },
};
