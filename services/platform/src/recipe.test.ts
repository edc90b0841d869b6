import { type Recipe, TuningMethod } from "@tutelage/proto/student/v1/student";
import { expect, test } from "vitest";
import { checkRecipe } from "./recipe.js";

const recipe: Recipe = {
  method: TuningMethod.LORA,
  loraRank: 16,
  loraAlpha: 32,
  loraDropout: 0,
  trainedLayers: 0,
  epochs: 4,
  minSteps: 60,
  exactSteps: 0,
  batchRows: 8,
  microBatchTokens: 2_048,
  learningRate: 1e-3,
  warmupShare: 0.1,
  weightDecay: 0.01,
  maxGradNorm: 1,
  averageShare: 0.25,
};

test("a sensible recipe passes, so does a full one or a probe without adapter fields, or exact steps without epochs", () => {
  checkRecipe(recipe);
  checkRecipe({ ...recipe, method: TuningMethod.FULL, loraRank: 0, loraAlpha: 0 });
  checkRecipe({ ...recipe, method: TuningMethod.PROBE, loraRank: 0, loraAlpha: 0 });
  checkRecipe({ ...recipe, epochs: 0, minSteps: 0, exactSteps: 10 });
});

test.each<[Partial<Recipe>, string]>([
  [{ method: TuningMethod.UNSPECIFIED }, "method"],
  [{ loraRank: 0 }, "lora_rank"],
  [{ loraRank: 1.5 }, "lora_rank"],
  [{ loraAlpha: 0 }, "lora_alpha"],
  [{ loraDropout: 1 }, "lora_dropout"],
  [{ trainedLayers: -1 }, "trained_layers"],
  [{ epochs: Number.NaN }, "epochs"],
  [{ epochs: 0, minSteps: 0 }, "epochs"],
  [{ minSteps: -1 }, "min_steps"],
  [{ exactSteps: 2 ** 31 }, "exact_steps"],
  [{ batchRows: 0 }, "batch_rows"],
  [{ microBatchTokens: 0 }, "micro_batch_tokens"],
  [{ learningRate: 0 }, "learning_rate"],
  [{ learningRate: Number.NaN }, "learning_rate"],
  [{ warmupShare: 1.1 }, "warmup_share"],
  [{ weightDecay: -0.1 }, "weight_decay"],
  [{ maxGradNorm: 0 }, "max_grad_norm"],
  [{ averageShare: Number.POSITIVE_INFINITY }, "average_share"],
])("%j is refused and the field named", (change, field) => {
  expect(() => checkRecipe({ ...recipe, ...change })).toThrow(new RegExp(`^recipe\\.${field}: is `));
});
