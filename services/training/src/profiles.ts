/** The students that an operator offers, from one YAML file. */
import { readFile } from "node:fs/promises";
import { TutelageError } from "@tutelage/platform/errors";
import { checkRecipe } from "@tutelage/platform/recipe";
import { TuningMethod } from "@tutelage/proto/student/v1/student";
import type { StudentProfile } from "@tutelage/proto/training/v1/training";
import { parse } from "yaml";
import { z } from "zod";

const methods = { lora: TuningMethod.LORA, full: TuningMethod.FULL, probe: TuningMethod.PROBE };

const recipeSchema = z
  .strictObject({
    method: z.enum(["lora", "full", "probe"]),
    lora_rank: z.number().default(0),
    lora_alpha: z.number().default(0),
    lora_dropout: z.number().default(0),
    trained_layers: z.number().default(0),
    epochs: z.number().default(0),
    min_steps: z.number().default(0),
    exact_steps: z.number().default(0),
    batch_rows: z.number(),
    micro_batch_tokens: z.number(),
    learning_rate: z.number(),
    warmup_share: z.number(),
    weight_decay: z.number(),
    max_grad_norm: z.number(),
    average_share: z.number().default(0),
  })
  .transform((recipe) => ({
    method: methods[recipe.method],
    loraRank: recipe.lora_rank,
    loraAlpha: recipe.lora_alpha,
    loraDropout: recipe.lora_dropout,
    trainedLayers: recipe.trained_layers,
    epochs: recipe.epochs,
    minSteps: recipe.min_steps,
    exactSteps: recipe.exact_steps,
    batchRows: recipe.batch_rows,
    microBatchTokens: recipe.micro_batch_tokens,
    learningRate: recipe.learning_rate,
    warmupShare: recipe.warmup_share,
    weightDecay: recipe.weight_decay,
    maxGradNorm: recipe.max_grad_norm,
    averageShare: recipe.average_share,
  }));

const fileSchema = z.strictObject({
  profiles: z
    .record(
      z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "use lower-case letters, digits, '.', '_' and '-'"),
      z.strictObject({
        description: z.string().default(""),
        /** Of the base weights, for the model card: an SPDX identifier, or a name. */
        license: z.string().max(200).default(""),
        model: z
          .string()
          .regex(
            /^(package:[\w.]+\/\S+\.gguf|file:\S+|hf:[\w.-]+\/[\w.-]+@\S+)$/,
            'must be "package:module/file.gguf", "file:/path" or "hf:org/name@revision"',
          ),
        recipe: recipeSchema,
      }),
    )
    .refine((profiles) => Object.keys(profiles).length > 0, "name at least one student"),
});

/** Profiles by name, sorted. Throws when the file cannot be read; names file, field and fix when it is wrong. */
export async function loadProfiles(path: string): Promise<ReadonlyMap<string, StudentProfile>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw wrongFile(path, `cannot be read (${(cause as NodeJS.ErrnoException).code}); set STUDENT_PROFILES.`, cause);
  }
  return parseProfiles(text, path);
}

/** The pure part of loadProfiles; `path` only names the file in errors. */
export function parseProfiles(text: string, path: string): ReadonlyMap<string, StudentProfile> {
  let yaml: unknown;
  try {
    yaml = parse(text);
  } catch (cause) {
    throw wrongFile(path, `is not YAML: ${(cause as Error).message}`, cause);
  }
  const parsed = fileSchema.safeParse(yaml);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(
      ({ path: field, message }) => `${field.join(".") || "the file"}: ${message}`,
    );
    throw wrongFile(path, problems.join("; "));
  }
  const names = Object.keys(parsed.data.profiles).sort();
  return new Map(
    names.map((name) => {
      const profile = { name, ...parsed.data.profiles[name] } as StudentProfile & { recipe: object };
      try {
        checkRecipe(profile.recipe, `profiles.${name}.recipe`);
      } catch (error) {
        throw wrongFile(path, (error as Error).message, error);
      }
      return [name, profile];
    }),
  );
}

function wrongFile(path: string, problem: string, cause?: unknown): TutelageError {
  return new TutelageError("failed_precondition", `Student profiles ${path}: ${problem}`, {
    reason: "student_profiles_wrong",
    cause,
  });
}
