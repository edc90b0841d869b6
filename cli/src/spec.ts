/** campaign.yaml: what it may hold, and where a mistake in it stands. */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { apiSchema } from "./apischema.js";
import { exitCodes, Stop } from "./exit.js";
import { mostShare } from "./holdback.js";
import { type SchemaNode, unknownNames } from "./knownnames.js";

const path = z.string().min(1);

const columns = z
  .strictObject({
    input: z
      .string()
      .default("input")
      .describe('Column or JSON key of the input; a JSON row with "messages" is a conversation, whatever stands here'),
    output: z
      .string()
      .default("output")
      .describe("Column or JSON key of the expected output; a conversation may end with it instead"),
    split: z.string().optional().describe("Column or JSON key that says train, dev or test"),
  })
  .describe("Where a row's parts stand");

const data = z
  .strictObject({
    train: path.optional().describe("File of seed rows: .jsonl or .csv, relative to this file"),
    dev: path.optional().describe("File of rows that choose the best iteration; without it cross-fitting does"),
    test: path.optional().describe("File of rows that only measure"),
    hold_back: z
      .number()
      .min(0.05)
      .max(mostShare)
      .optional()
      .describe("Share of the train file's rows to hold back as test rows, when there is no test file"),
    columns: columns.prefault({}),
    dataset: z.string().optional().describe("Instead of files: a dataset that the server has, by name or id"),
  })
  .refine((one) => (one.train === undefined) !== (one.dataset === undefined), {
    error: "name either a train file or a dataset",
    path: ["train"],
  })
  .refine((one) => one.hold_back === undefined || one.test === undefined, {
    error: "there is a test file already; leave hold_back out",
    path: ["hold_back"],
  });

const label = z.union([
  z.string().min(1),
  z.strictObject({ name: z.string().min(1), description: z.string().default("") }),
]);

const extractionField = z.strictObject({
  name: z.string().min(1).describe("The key in the JSON object"),
  type: z.enum(["string", "number", "boolean", "string_list"]),
  optional: z.boolean().optional().describe("May be missing, where the input does not say it"),
  description: z.string().optional().describe("What it means, in plain words, for the teacher"),
});

const taskName = z.string().regex(/^[A-Za-z0-9._-]{1,100}$/, 'a name is 1 to 100 letters, digits, ".", "_" or "-"');

const taskObject = z.looseObject({
  name: z.string().optional(),
  kind: z.enum(["classification", "multiple_choice", "math", "text", "extraction"]),
  prompt_template: z
    .string()
    .optional()
    .describe('The student\'s prompt; contains "{input}" exactly once. Conversations need none'),
  labels: z.array(label).optional().describe("The closed label set: names, or names with descriptions"),
  fields: z
    .array(extractionField)
    .min(1)
    .optional()
    .describe("The fields of an extraction task's outputs, in their order"),
  grader: z
    .enum(["exact", "normalized_text", "label", "choice_letter", "final_number", "json_fields", "rouge_l"])
    .optional()
    .describe("How answers are compared; the kind has its own"),
  rouge_l_threshold: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe("Least ROUGE-L F of a right answer, for grader rouge_l; 0.5 when left out"),
  row_noun: z.string().optional().describe('What rows are called, plural, e.g. "questions"'),
  teacher_instructions: z.string().optional().describe("What the task is, and what its rows look like"),
});

export type TaskSpec = z.output<typeof taskObject>;

/** The file. Task and settings are the API's own: their names are known here, what they may hold is checked there. */
export const campaignSpec = z
  .strictObject({
    name: z.string().min(1).max(200).describe("A name for people"),
    data,
    student: z.string().default("smollm2-135m").describe("Student profile"),
    teacher: z.string().default("gemma3-270m").describe("Teacher profile"),
    task: z
      .union([taskName, taskObject])
      .describe("What is learnt: a task, or the name of one that the server has (tutelage tasks list)"),
    settings: z
      .record(z.string(), z.unknown())
      .default({})
      .describe("Campaign settings; what is left out has a default"),
  })
  .meta({ title: "Tutelage campaign", description: "A campaign for `tutelage run`" });

export type CampaignSpec = z.output<typeof campaignSpec>;

/** The JSON Schema of campaign.yaml, for editors: the file's own form around what the API says of settings and task. */
export function campaignJsonSchema(): SchemaNode {
  const own = z.toJSONSchema(campaignSpec, { io: "input", target: "draft-2020-12" }) as SchemaNode;
  const { settings, task, ...rest } = own.properties ?? {};
  return {
    ...own,
    properties: { ...rest, task: { ...task, anyOf: task?.anyOf?.map(withApiTask) ?? [] }, settings: ofApi(settings) },
    $defs: apiSchema,
  };
}

function ofApi({ description = "", default: otherwise }: SchemaNode = {}): SchemaNode {
  return { $ref: "#/$defs/CampaignSettings", description, default: otherwise };
}

/** A task's fields are the API's; labels may be bare names here, and the campaign's name is the task's. */
function withApiTask(branch: SchemaNode): SchemaNode {
  if (branch.type !== "object") return branch;
  const { labels, name } = branch.properties ?? {};
  const properties = { ...apiSchema.Task?.properties, ...(labels && { labels }), ...(name && { name }) };
  return { ...branch, properties, additionalProperties: false };
}

/** Reads the file; data paths become absolute. Throws Stop naming every mistake with its line. */
export async function readSpec(file: string): Promise<CampaignSpec> {
  const text = await readFile(file, "utf8").catch(() => {
    throw new Stop(`There is no file ${file}. "tutelage init DATA" writes one.`, exitCodes.noInput);
  });
  const spec = parseSpec(text, file);
  const absolute = (one: string | undefined) => (one === undefined ? undefined : resolve(dirname(file), one));
  const { train, dev, test } = spec.data;
  return { ...spec, data: { ...spec.data, train: absolute(train), dev: absolute(dev), test: absolute(test) } };
}

/** Reads the text of a campaign.yaml; `file` is for messages. */
export function parseSpec(text: string, file: string): CampaignSpec {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => `${file}:${lines.linePos(offset).line}`;
  if (document.errors.length > 0) {
    const told = document.errors.map((error) => `${at(error.pos[0])}: ${error.message}`);
    throw new Stop(told.join("\n"), exitCodes.refused);
  }
  const value: unknown = document.toJS() ?? {};
  const parsed = campaignSpec.safeParse(value);
  const unknown = unknownNames(value, campaignJsonSchema());
  if (parsed.success && unknown.length === 0) return parsed.data;
  const issues = parsed.success ? [] : parsed.error.issues.flatMap(meant);
  const told = [
    ...unknown.map(({ path, meant: name }) => {
      const fix = name === undefined ? "" : `; did you mean "${name}"?`;
      return `${lineOf(document, path, at) ?? file}: ${path.join(".")} is not a known field${fix}`;
    }),
    // An unknown name has been told of.
    ...issues
      .filter(({ code }) => code !== "unrecognized_keys")
      .map(({ path, message }) => `${lineOf(document, path, at) ?? file}: ${path.join(".") || "the file"}: ${message}`),
  ];
  throw new Stop(told.join("\n"), exitCodes.refused);
}

type Issue = z.core.$ZodIssue;

/** Of a value that may be one of several things, what is wrong with the one that was meant: whose form fits. */
function meant(issue: Issue): Issue[] {
  if (issue.code !== "invalid_union") return [issue];
  const inside = issue.errors.find((issues) =>
    issues.some(({ code, path }) => path.length > 0 || code === "unrecognized_keys"),
  );
  return inside === undefined
    ? [issue]
    : inside.flatMap((one) => meant({ ...one, path: [...issue.path, ...one.path] } as Issue));
}

/** Where a field, or the nearest one above it that is there, stands. */
function lineOf(
  document: ReturnType<typeof parseDocument>,
  keys: readonly PropertyKey[],
  at: (offset: number) => string,
): string | undefined {
  for (let length = keys.length; length > 0; length -= 1) {
    const node = document.getIn(keys.slice(0, length), true) as { range?: [number, number, number] } | undefined;
    if (node?.range !== undefined) return at(node.range[0]);
  }
  return undefined;
}
