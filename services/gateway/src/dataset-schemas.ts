/** Datasets, versions and rows as JSON. */
import { FileLayout, OverlapKind, RowChangeKind } from "@tutelage/proto/datasets/v1/datasets";
import { RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { z } from "zod";
import { enumName, nextCursor, pageQuery, queryFlag, wholeNumber } from "./fields.js";
import { extractionFieldSchema, messagesSchema } from "./task-schemas.js";

export const splitName = enumName(Split);
const columnName = z.string().max(200);

export const datasetName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,100}$/, 'must be 1 to 100 letters, digits, ".", "_" or "-"');

export const datasetSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    latest_version_id: z.string().describe("Empty before the first import"),
    created_at: z.date().optional(),
  })
  .meta({ id: "Dataset" });

export const versionSchema = z
  .object({
    id: z.string(),
    dataset_id: z.string(),
    parent_version_id: z.string().describe("Empty for the first"),
    digest: z.string().describe("SHA-256 over the ids of its rows in order"),
    row_count: z.number().int(),
    added_row_count: z.number().int().describe("Rows that are not the parent's"),
    splits: z.object({ train: z.number().int(), dev: z.number().int(), test: z.number().int() }).optional(),
    artifact_uri: z.string(),
    artifact_sha256: z.string(),
    created_at: z.date().optional(),
  })
  .meta({ id: "DatasetVersion" });

export const rowSchema = z
  .object({
    id: z.string(),
    input: z.string(),
    messages: messagesSchema.describe("A conversation instead of input"),
    output: z.string(),
    split: splitName,
    origin: enumName(RowOrigin),
    root_row_id: z.string().describe("The seed row that it grew from; empty for a seed row"),
    parent_row_id: z.string(),
    iteration: z.number().int(),
    metadata: z.record(z.string(), z.string()),
  })
  .meta({ id: "Row" });

export const datasetPage = z.object({ datasets: z.array(datasetSchema), next_cursor: nextCursor });
export const versionPage = z.object({ versions: z.array(versionSchema), next_cursor: nextCursor });
export const rowPage = z.object({ rows: z.array(rowSchema), next_cursor: nextCursor });

export const rowsQuery = z.strictObject({
  ...pageQuery,
  split: splitName.optional(),
  origin: enumName(RowOrigin).optional(),
  output: z.string().default("").describe("Only rows with exactly this output"),
  root: z.string().default("").describe("Only what grew from this seed row, by its id"),
  iteration: wholeNumber(0, 1000).optional().describe("Only rows that this iteration added; 0 for seed rows"),
  contains: z.string().default("").describe("Only rows with this text in their input, whatever its case"),
});

const changeKind = enumName(RowChangeKind);
const rowCount = z.number().int();

export const diffQuery = z.strictObject({
  ...pageQuery,
  against: z.uuid().optional().describe("The version to compare with; the version's parent when left out"),
  change: changeKind.optional().describe("Only added, or only removed rows"),
});

export const versionDiff = z
  .object({
    against_version_id: z.string().describe("The version that it was compared with; empty for none"),
    changes: z
      .array(z.object({ kind: changeKind, row: rowSchema.optional() }))
      .describe("Added rows in the order of the version, then removed ones in the order of the other"),
    next_cursor: nextCursor,
    summary: z
      .object({
        added_rows: rowCount,
        removed_rows: rowCount,
        unchanged_rows: rowCount,
        counts: z.array(z.object({ kind: changeKind, split: splitName, origin: enumName(RowOrigin), rows: rowCount })),
      })
      .optional()
      .describe("On the first page only"),
  })
  .meta({ id: "VersionDiff" });

const overlapKind = enumName(OverlapKind).describe(
  "exact (but for case, white space and punctuation), ngram (long runs of words, or the whole row), near_duplicate " +
    "(the same rare words)",
);

export const overlapSchema = z.object({
  kind: overlapKind,
  row_id: z.string().describe("The dev or test row"),
  split: splitName.describe("Its split"),
  strength: z.number().describe("0 to 1: share of its words in shared runs, or likeness of the words; 1 when exact"),
});

export const overlapCounts = z.array(
  z.object({
    split: splitName.describe("Whose rows are counted"),
    against: splitName.describe("The split that they are compared with"),
    kind: overlapKind,
    rows: rowCount,
  }),
);

export const rowOverlaps = z.array(
  z.object({
    row_id: z.string(),
    split: splitName.describe("train or dev"),
    overlap: overlapSchema.optional().describe("The row of another split that it says again"),
  }),
);

export const overlapsQuery = z.strictObject({
  limit: pageQuery.limit.describe("Most rows to list; the counts are of all"),
});

export const versionOverlaps = z
  .object({
    counts: overlapCounts.describe("Of all; empty where the splits say different things"),
    overlaps: rowOverlaps.describe(
      "The first, in the version's order; one that says a dev row and a test row is there twice",
    ),
  })
  .meta({ id: "VersionOverlaps" });

export const exportQuery = z.strictObject({ split: splitName.optional() });

/** How a JSON list of texts begins: a label may begin with a bracket, too. */
const jsonLabels = /^\s*\[\s*["\]]/;

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const importQuery = z.strictObject({
  layout: enumName(FileLayout)
    .default(FileLayout.UNSPECIFIED)
    .describe(
      "Public task whose files are read as they are published, whatever their content type; columns, format and fields " +
        "are its own then",
    ),
  input_column: columnName.default("").describe('Column or JSON key of the input; "input" when left out'),
  output_column: columnName.default("").describe('Column or JSON key of the output; "output" when left out'),
  split_column: columnName.default("").describe("Column or JSON key of the split (train, dev, test)"),
  default_split: z
    .enum(["train", "dev", "test"])
    .default("train")
    .transform((name) => Split[name.toUpperCase() as "TRAIN" | "DEV" | "TEST"])
    .describe("Split of rows that name none"),
  strict: queryFlag.describe("Refuse the whole file when one row is bad"),
  append: queryFlag.describe("Start from the newest version, else from nothing"),
  labels: z
    .string()
    .default("")
    .transform((text, context) => {
      if (!jsonLabels.test(text)) return text.split(",").filter((label) => label !== "");
      const list = z.array(z.string()).safeParse(jsonOf(text));
      if (list.success) return list.data;
      const message = 'begins as a JSON list and is none; give ["one, with a comma", "two"], or labels between commas';
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    })
    .describe("Allowed outputs, between commas or, where one holds a comma, as a JSON list; all when left out"),
  fields: z
    .string()
    .default("[]")
    .transform((text, context) => {
      const value = jsonOf(text);
      if (value !== undefined) return value;
      context.addIssue({ code: "custom", message: "is not JSON; give a JSON array of fields" });
      return z.NEVER;
    })
    .pipe(z.array(extractionFieldSchema).max(64))
    .describe(
      "Fields that every output must have, as JSON in the form of an extraction task's fields: " +
        '[{"name": "city", "type": "string"}]. Outputs may then be objects, too',
    ),
});

export const importResult = z
  .object({
    version: versionSchema.optional(),
    imported_rows: z.number().int(),
    rejected_rows: z.number().int(),
    rejects: z
      .array(z.object({ line: z.number().int(), code: z.string(), field: z.string(), message: z.string() }))
      .describe("The first 1,000 rows that were left out"),
  })
  .meta({ id: "ImportResult" });
