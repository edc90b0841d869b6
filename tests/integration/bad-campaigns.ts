/** Campaigns that cannot be started, and questions that one cannot answer. */

import type { Ask, Case } from "./bad-input-ask.js";
import { nobody } from "./bad-input-ask.js";
import { campaignBody } from "./gateway-fixture.js";

const { task } = campaignBody;

export const badCampaigns = ({ api, estimate, get, campaign }: Ask): Case[] => [
  [
    "a setting with a typing error",
    () => estimate({ settings: { iteratons: 1 } }),
    400,
    "invalid_request",
    "settings.iteratons",
    /did you mean "iterations"\?/,
  ],
  [
    "a name with U+0000",
    () => estimate({ name: "sup\u0000port" }),
    400,
    "invalid_argument",
    "name",
    /holds the character U\+0000; remove it/,
  ],
  [
    "a label's description with half a character, in a campaign to be started",
    () =>
      api()
        .post("/v1/campaigns")
        .set("content-type", "application/json")
        .send(
          JSON.stringify({ ...campaignBody, task: { ...task, labels: [{ name: "a", description: "?" }] } }).replace(
            '"?"',
            '"\\ud83d"',
          ),
        ),
    400,
    "invalid_argument",
    "task.labels.0.description",
    /lone surrogate\); remove it/,
  ],
  [
    "a setting out of range",
    () => estimate({ settings: { iterations: 99 } }),
    400,
    "invalid_settings",
    "settings.iterations",
    /from 1 to 20/,
  ],
  [
    "half an iteration",
    () => estimate({ settings: { iterations: 1.5 } }),
    400,
    "invalid_request",
    "settings.iterations",
    /whole number/,
  ],
  [
    "a seed of 0",
    () => estimate({ settings: { seed: 0 } }),
    400,
    "invalid_request",
    "settings.seed",
    /must be greater\. Leave it out for the default/,
  ],
  [
    "a switch that is a word",
    () => estimate({ settings: { check_teacher: "yes" } }),
    400,
    "invalid_request",
    "settings.check_teacher",
    /true or false/,
  ],
  [
    "a way of mining by another name",
    () => estimate({ settings: { mining: "crossfit" } }),
    400,
    "invalid_request",
    "settings.mining",
    /did you mean "cross_fit"\?/,
  ],
  [
    "a recipe that trains nothing",
    () =>
      estimate({
        settings: {
          recipe: {
            method: "lora",
            lora_rank: 8,
            lora_alpha: 8,
            batch_rows: 8,
            micro_batch_tokens: 512,
            learning_rate: 0.001,
            max_grad_norm: 1,
          },
        },
      }),
    400,
    "invalid_argument",
    "settings.recipe.epochs",
    /set epochs, min_steps or exact_steps/,
  ],
  [
    "a negative learning rate",
    () =>
      estimate({
        settings: {
          recipe: { method: "lora", batch_rows: 8, micro_batch_tokens: 512, learning_rate: -1, max_grad_norm: 1 },
        },
      }),
    400,
    "invalid_request",
    "settings.recipe.learning_rate",
    /more than 0/,
  ],
  [
    "a template without {input}",
    () => estimate({ task: { ...task, prompt_template: "Intent:" } }),
    400,
    "invalid_request",
    "task.prompt_template",
    /"\{input\}" exactly once/,
  ],
  [
    "a kind with a typing error",
    () => estimate({ task: { ...task, kind: "clasification" } }),
    400,
    "invalid_request",
    "task.kind",
    /did you mean "classification"\?/,
  ],
  [
    "a single label",
    () => estimate({ task: { ...task, labels: [{ name: "billing" }] } }),
    400,
    "invalid_request",
    "task.labels",
    /at least two labels/,
  ],
  [
    "a label named twice",
    () => estimate({ task: { ...task, labels: [...task.labels, { name: "billing" }] } }),
    400,
    "invalid_argument",
    "task.labels[2].name",
    /"billing"; name it once/,
  ],
  [
    "a label that the task lacks",
    () => estimate({ task: { ...task, labels: [{ name: "billing" }, { name: "return" }] } }),
    400,
    "unknown_label",
    "task.labels",
    /does not name "returns", the output of "text 1".*add the label/,
  ],
  [
    "an unknown student",
    () => estimate({ student_profile: "smolm2-135m" }),
    400,
    "unknown_profile",
    "student_profile",
    /Did you mean "smollm2-135m"\?/,
  ],
  [
    "an unknown teacher",
    () => estimate({ teacher_profile: "gpt" }),
    400,
    "unknown_profile",
    "teacher_profile",
    /the operator offers: gemma3-270m/,
  ],
  [
    "no student",
    () => estimate({ student_profile: undefined }),
    400,
    "invalid_request",
    "student_profile",
    /is missing; give a text/,
  ],
  [
    "neither dataset nor version",
    () => estimate({ dataset: undefined }),
    400,
    "invalid_request",
    "dataset",
    /either dataset or dataset_version_id/,
  ],
  [
    "a dataset that is none",
    () => estimate({ dataset: "nothing" }),
    404,
    "dataset_not_found",
    "",
    /no dataset "nothing".*correct it/,
  ],
  [
    "a dataset without rows",
    () => estimate({ dataset: "empty" }),
    400,
    "dataset_empty",
    "dataset",
    /import some first/,
  ],
  [
    "too few rows",
    () => estimate({ dataset: "few" }),
    400,
    "too_few_seed_rows",
    "dataset",
    /at least 4 seed rows\. Import more/,
  ],
  [
    "a test row that is trained on",
    () => estimate({ dataset: "overlap" }),
    400,
    "split_overlap",
    "dataset",
    /"TEXT 1".*each text in one split only/,
  ],
  [
    "a version id that is none",
    () => estimate({ dataset: undefined, dataset_version_id: "7" }),
    400,
    "invalid_request",
    "dataset_version_id",
    /must be a UUID/,
  ],
  [
    "a key of another campaign",
    () =>
      api()
        .post("/v1/campaigns")
        .set("idempotency-key", "campaign")
        .send({ ...campaignBody, dataset: "good", name: "other" }),
    409,
    "idempotency_key_reused",
    "",
    /use a new key/,
  ],
  [
    "a campaign that is none",
    () => get(`/v1/campaigns/${nobody}`),
    404,
    "campaign_not_found",
    "",
    /no campaign.*correct it/,
  ],
  [
    "a report before there is one",
    () => get(campaign("/report")),
    409,
    "campaign_not_finished",
    "",
    /before it has succeeded/,
  ],
  [
    "a model of a campaign that failed",
    () => get(campaign("/model")),
    409,
    "campaign_without_student",
    "",
    /its failure says why/,
  ],
  [
    "nothing to predict",
    () => api().post(campaign("/predict")).send({ inputs: [] }),
    400,
    "invalid_request",
    "inputs",
    /give at least 1/,
  ],
  [
    "too much to predict",
    () =>
      api()
        .post(campaign("/predict"))
        .send({ inputs: Array(257).fill("a") }),
    400,
    "invalid_request",
    "inputs",
    /give at most 256/,
  ],
  [
    "an event id that is none",
    () => get(campaign("/events")).set("last-event-id", "abc"),
    400,
    "invalid_request",
    "last-event-id",
    /must be a whole number/,
  ],
  [
    "an iteration before the first",
    () => get(campaign("/candidates?iteration=-1")),
    400,
    "invalid_request",
    "iteration",
    /from 0 to 1000/,
  ],
];
