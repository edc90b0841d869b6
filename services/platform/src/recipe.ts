/** The ranges of a fine-tuning recipe. */

import { type Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { invalidField } from "./errors.js";

/** Throws invalid_argument that names the first field out of range, below `field`. */
export function checkRecipe(recipe: Recipe, field = "recipe"): void {
  const lora = recipe.method === TuningMethod.LORA;
  const known = [TuningMethod.LORA, TuningMethod.FULL, TuningMethod.PROBE].includes(recipe.method);
  const int32 = (value: number, least: number) => Number.isInteger(value) && value >= least && value < 2 ** 31;
  // Written so that NaN, which compares false with everything, is refused too.
  const rules: [name: string, value: unknown, right: boolean, fix: string][] = [
    ["method", recipe.method, known, "use lora, full or probe"],
    ["lora_rank", recipe.loraRank, !lora || (int32(recipe.loraRank, 1) && recipe.loraRank <= 1024), "use 1 to 1024"],
    ["lora_alpha", recipe.loraAlpha, !lora || (recipe.loraAlpha > 0 && recipe.loraAlpha <= 1e6), "use more than 0"],
    [
      "lora_dropout",
      recipe.loraDropout,
      !lora || (recipe.loraDropout >= 0 && recipe.loraDropout < 1),
      "use 0 to below 1",
    ],
    ["trained_layers", recipe.trainedLayers, int32(recipe.trainedLayers, 0), "use 0 (all) or a number of layers"],
    ["epochs", recipe.epochs, recipe.epochs >= 0 && recipe.epochs <= 10_000, "use 0 to 10000"],
    ["min_steps", recipe.minSteps, int32(recipe.minSteps, 0), "use 0 (none) or more"],
    ["exact_steps", recipe.exactSteps, int32(recipe.exactSteps, 0), "use 0 (none) or more"],
    [
      "epochs",
      recipe.epochs,
      recipe.epochs > 0 || recipe.minSteps > 0 || recipe.exactSteps > 0,
      "set epochs, min_steps or exact_steps, or nothing is trained",
    ],
    ["batch_rows", recipe.batchRows, int32(recipe.batchRows, 1) && recipe.batchRows <= 65_536, "use 1 to 65536"],
    ["micro_batch_tokens", recipe.microBatchTokens, int32(recipe.microBatchTokens, 1), "use 1 or more, e.g. 2048"],
    [
      "learning_rate",
      recipe.learningRate,
      recipe.learningRate > 0 && recipe.learningRate <= 1,
      "use more than 0, at most 1",
    ],
    ["warmup_share", recipe.warmupShare, isShare(recipe.warmupShare), "use 0 to 1"],
    ["weight_decay", recipe.weightDecay, recipe.weightDecay >= 0 && recipe.weightDecay <= 10, "use 0 to 10"],
    [
      "max_grad_norm",
      recipe.maxGradNorm,
      recipe.maxGradNorm > 0 && recipe.maxGradNorm <= 1e9,
      "use more than 0, e.g. 1",
    ],
    ["average_share", recipe.averageShare, isShare(recipe.averageShare), "use 0 to 1"],
  ];
  for (const [name, value, right, fix] of rules) {
    if (!right) throw invalidField(`${field}.${name}`, `is ${value}; ${fix}.`);
  }
}

function isShare(value: number): boolean {
  return value >= 0 && value <= 1;
}
