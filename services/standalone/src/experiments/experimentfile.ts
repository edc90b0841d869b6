/** experiments/NAME.yaml: a campaign as users write them, and how it is varied and replicated. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { taskOf } from "tutelage/run";
import { campaignSpec } from "tutelage/spec";
import { parse } from "yaml";
import { z } from "zod";

const name = z.string().regex(/^[a-z0-9_-]{1,60}$/, "use small letters, digits, _ and -");
const settings = z.record(z.string(), z.unknown());

/** A campaign.yaml whose data is drawn anew for each replicate. */
const experimentSpec = campaignSpec.omit({ data: true }).extend({
  name,
  experiment: z.strictObject({
    data: z.string().min(1).describe("Folder of the task, below the data folder: it holds train.jsonl and dev.jsonl"),
    seed_rows: z.number().int().min(1).describe("Seed rows that each replicate draws from train.jsonl"),
    test_rows: z.number().int().min(1).optional().describe("Rows of dev.jsonl to test on; all when left out"),
    replicates: z.number().int().min(1).describe("Replicates of each variant"),
    arms: z.array(name).default([]).describe("What the campaign with the file's own settings is compared with"),
    variants: z
      .record(name, settings)
      .default({})
      .describe("Whole campaigns on the same rows: the settings that change, by name"),
  }),
});

export type Experiment = z.output<typeof experimentSpec>;

/** The variant with the file's own settings, and the arms. */
export const defaultVariant = "default";

/** A variant of an experiment, ready to be asked for. */
export interface Variant {
  name: string;
  task: object | string;
  settings: Record<string, unknown>;
  /** Of everything that shapes its campaigns, but for the replicate. */
  digest: string;
}

/** Throws with the file, the field and what it should be. */
export async function readExperiment(file: string): Promise<Experiment> {
  const text = await readFile(file, "utf8").catch(() => {
    throw new Error(`There is no file ${file}.`);
  });
  const read = experimentSpec.safeParse(parse(text));
  if (read.success && read.data.name !== basename(file, ".yaml")) {
    throw new Error(`${file}: name is "${read.data.name}"; name it as the file is named, for its results.`);
  }
  if (read.success && !(defaultVariant in read.data.experiment.variants)) return read.data;
  const issues = read.error?.issues ?? [];
  const told = issues.map(({ path, message }) => `${file}: ${path.join(".") || "the file"}: ${message}`);
  if (read.success)
    told.push(`${file}: experiment.variants.${defaultVariant}: is the campaign as it stands; rename it.`);
  throw new Error(told.join("\n"));
}

/** The campaign as it stands, then its variants, in the file's order. */
export function variantsOf(experiment: Experiment, tune: boolean): Variant[] {
  const { student, teacher, experiment: plan } = experiment;
  const task =
    typeof experiment.task === "string" ? experiment.task : taskOf({ name: experiment.name, task: experiment.task });
  const arms = {
    ...(plan.arms.length === 0 ? {} : { arms: plan.arms }),
    ...(plan.arms.includes("oracle") ? { oracle_teacher_profile: oracleProfile } : {}),
  };
  const all = { [defaultVariant]: arms, ...plan.variants };
  return Object.entries(all).map(([variant, changed]) => {
    const settings = { ...experiment.settings, ...changed };
    const drawn = { data: plan.data, seed_rows: plan.seed_rows, test_rows: plan.test_rows, tune };
    const digest = digestOf({ student, teacher, task, settings, drawn });
    return { name: variant, task, settings, digest };
  });
}

/** The teacher profile of the arm "oracle": the runner's own endpoint. */
export const oracleProfile = "oracle";

/** sha256 of a value as JSON, whatever the order of its keys. */
export function digestOf(value: unknown): string {
  const ordered = JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
  return createHash("sha256").update(ordered).digest("hex");
}
