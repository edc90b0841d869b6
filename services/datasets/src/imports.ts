/**
 * Imports a file: the bytes are received into a spool first, so that everything
 * after is free of the client: the key is looked up by the file's digest, and
 * the reading can start over when the dataset moved on meanwhile. A key stands
 * for a version: an import that made none, because no row was good or new, or
 * strict refused, is not remembered and may be sent again, mended, with the same key.
 */
import { createHash, type Hash } from "node:crypto";
import { invalidField, notFound, TutelageError } from "@tutelage/platform/errors";
import { requireFields } from "@tutelage/platform/extraction";
import { requireProject } from "@tutelage/platform/project";
import { identify } from "@tutelage/platform/rowidentity";
import {
  FileFormat,
  FileLayout,
  ImportHeader,
  type ImportRowsRequest,
  type ImportRowsResponse,
} from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { versionMessage } from "./answers.js";
import { type Dependencies, Draft } from "./draft.js";
import { requireKey, requireUuid, requireWhole } from "./fields.js";
import { csv, type FileForm, jsonl, layoutForm, rowsOf } from "./fileform.js";
import { layouts } from "./layouts.js";
import type { Mapping, RowProblem } from "./rowreader.js";
import { SeenRows } from "./seenrows.js";
import { Spool } from "./spool.js";
import type { CommitRecord, VersionRecord } from "./store.js";
import type { ImportResult } from "./tables.js";

const maxChunkBytes = 1024 * 1024;
const maxFileBytes = 16 * 1024 ** 3;
const maxListedRejects = 1_000;
/** Each lost race means that another import was committed. */
const maxAttempts = 20;

/** A header whose fields are checked. */
interface Job {
  projectId: string;
  datasetId: string;
  idempotencyKey: string;
  form: FileForm;
  mapping: Mapping;
  strict: boolean;
  append: boolean;
}

export async function importRows(
  dependencies: Dependencies,
  requests: AsyncIterable<ImportRowsRequest>,
  signal: AbortSignal,
): Promise<ImportRowsResponse> {
  const file = await Spool.open(dependencies.spoolDirectory);
  try {
    const { job, requestSha256 } = await receive(dependencies, requests, file, signal);
    const before = await dependencies.store.commitOf(job.projectId, job.datasetId, job.idempotencyKey);
    if (before !== undefined) return await answerAgain(dependencies, before, requestSha256);
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const answer = await attemptImport(dependencies, job, requestSha256, file, signal);
      if (answer !== undefined) return answer;
    }
    throw new TutelageError("aborted", "Other imports to this dataset came first again and again; try later.", {
      reason: "dataset_busy",
    });
  } finally {
    await file.close();
  }
}

/** Reads the stream to its end. The digest stands for the header, without its key, and the file. */
async function receive(
  dependencies: Dependencies,
  requests: AsyncIterable<ImportRowsRequest>,
  file: Spool,
  signal: AbortSignal,
) {
  let job: Job | undefined;
  let sha256: Hash | undefined;
  let end: number | undefined;
  for await (const { part } of requests) {
    if (part?.$case === "header") {
      if (job !== undefined) throw invalidField("header", "came twice; send it once, first.");
      job = checkHeader(part.value);
      if ((await dependencies.store.datasetById(job.projectId, job.datasetId)) === undefined) {
        throw notFound("dataset", job.datasetId);
      }
      sha256 = createHash("sha256").update(ImportHeader.encode({ ...part.value, idempotencyKey: "" }).finish());
    } else if (part?.$case === "chunk") {
      if (sha256 === undefined) throw invalidField("header", "must be the first message of the stream.");
      if (part.value.byteLength > maxChunkBytes) {
        throw invalidField("chunk", `must be at most ${maxChunkBytes} bytes; send the file in smaller pieces.`);
      }
      sha256.update(part.value);
      await file.append(part.value);
      if (file.sizeBytes > maxFileBytes) {
        throw new TutelageError("resource_exhausted", "The file is larger than 16 GiB; split it.", {
          reason: "file_too_large",
        });
      }
    } else if (part?.$case === "end") {
      end = part.value.sizeBytes;
    }
  }
  signal.throwIfAborted();
  if (job === undefined || sha256 === undefined) {
    throw invalidField("header", "is missing; send it as the first message of the stream.");
  }
  requireWhole(end, file.sizeBytes, "bytes");
  return { job, requestSha256: sha256.digest("hex") };
}

function checkHeader(header: ImportHeader): Job {
  for (const [index, label] of header.allowedLabels.entries()) {
    if (label.trim() === "")
      throw invalidField(`allowed_labels[${index}]`, "is empty; give the label or leave it out.");
  }
  return {
    projectId: requireProject(header.projectId),
    datasetId: requireUuid("dataset_id", header.datasetId),
    idempotencyKey: requireKey(header.idempotencyKey),
    ...(header.layout === FileLayout.UNSPECIFIED ? formatReading(header) : layoutReading(header, header.layout)),
    strict: header.strict,
    append: header.append,
  };
}

type Reading = Pick<Job, "form" | "mapping">;

function formatReading(header: ImportHeader): Reading {
  if (header.format === FileFormat.UNSPECIFIED) throw invalidField("format", "must be JSONL or CSV.");
  // As a header row's names are read; a JSON key may have white space around it.
  const asked = (name: string) => (header.format === FileFormat.CSV ? name.trim() : name);
  const inputColumn = asked(header.inputColumn) || "input";
  const outputColumn = asked(header.outputColumn) || "output";
  const splitColumn = asked(header.splitColumn);
  if (inputColumn === outputColumn) throw invalidField("output_column", "must differ from input_column.");
  if (splitColumn === inputColumn || splitColumn === outputColumn) {
    throw invalidField("split_column", "must differ from input_column and output_column.");
  }
  if (splitColumn === "" && header.defaultSplit === Split.UNSPECIFIED) {
    throw invalidField("default_split", "must be TRAIN, DEV or TEST when there is no split_column.");
  }
  requireFields(header.fields, "fields");
  return {
    form: header.format === FileFormat.CSV ? csv : jsonl,
    mapping: {
      inputColumn,
      outputColumn,
      splitColumn,
      defaultSplit: header.defaultSplit,
      allowedLabels: new Set(header.allowedLabels),
      fields: header.fields,
    },
  };
}

function layoutReading(header: ImportHeader, name: keyof typeof layouts): Reading {
  const given = [
    ["format", header.format !== FileFormat.UNSPECIFIED],
    ["input_column", header.inputColumn !== ""],
    ["output_column", header.outputColumn !== ""],
    ["split_column", header.splitColumn !== ""],
    ["fields", header.fields.length > 0],
  ] as const;
  for (const [field, isGiven] of given) {
    if (isGiven) throw invalidField(field, "does not go with a layout, which says it itself; leave one of them out.");
  }
  if (header.defaultSplit === Split.UNSPECIFIED) {
    throw invalidField("default_split", "must be TRAIN, DEV or TEST: files of a layout do not say it.");
  }
  const layout = layouts[name];
  const { inputColumn, outputColumn } = layout;
  return {
    form: layoutForm(layout),
    mapping: {
      inputColumn,
      outputColumn,
      splitColumn: "",
      defaultSplit: header.defaultSplit,
      allowedLabels: new Set(header.allowedLabels.length > 0 ? header.allowedLabels : layout.labels),
      fields: [],
    },
  };
}

/** undefined: another version came first, and the file must be judged against that one. */
async function attemptImport(
  dependencies: Dependencies,
  job: Job,
  requestSha256: string,
  file: Spool,
  signal: AbortSignal,
): Promise<ImportRowsResponse | undefined> {
  const { store } = dependencies;
  const dataset = await store.datasetById(job.projectId, job.datasetId);
  if (dataset === undefined) throw notFound("dataset", job.datasetId);
  const parentId = job.append ? dataset.latestVersionId : null;
  const parent = parentId === null ? undefined : await store.version(job.projectId, parentId);
  const seen = new SeenRows();
  const draft = await Draft.begin(dependencies, dataset, parent, (row) => seen.addExisting(row));
  try {
    const { result, duplicateRows } = await readFile(job, file, seen, draft, signal);
    if (draft.addedRows === 0 || (job.strict && result.rejectedRows > 0)) {
      // An append of rows that are all there already has what it wanted: the version as it was.
      const allThere = !job.strict && duplicateRows > 0 && duplicateRows === result.rejectedRows;
      return {
        version: allThere && parent !== undefined ? versionMessage(parent) : undefined,
        ...result,
        importedRows: 0,
      };
    }
    const commit = { idempotencyKey: job.idempotencyKey, requestSha256, result };
    const committed = await draft.publish(commit, job.append ? parentId : undefined, signal);
    if ("moved" in committed) return undefined;
    if ("before" in committed) return await answerAgain(dependencies, committed.before, requestSha256);
    return { version: versionMessage(committed.version), ...result };
  } finally {
    await draft.close();
  }
}

/** Adds the file's good rows to the draft and lists the others. */
async function readFile(job: Job, file: Spool, seen: SeenRows, draft: Draft, signal: AbortSignal) {
  const result: ImportResult = { importedRows: 0, rejectedRows: 0, rejects: [] };
  let duplicateRows = 0;
  const reject = (line: number, problem: Omit<RowProblem, "field"> & { field?: string }) => {
    result.rejectedRows++;
    if (problem.code === "duplicate_row") duplicateRows++;
    if (result.rejects.length < maxListedRejects) result.rejects.push({ line, field: "", ...problem });
  };
  for await (const rows of rowsOf(file.read(), job.form, job.mapping)) {
    signal.throwIfAborted();
    for (const read of rows) {
      const problem = "problem" in read ? read.problem : seen.add(read.row, read.line);
      if (problem !== undefined) reject(read.line, problem);
      else if ("row" in read) {
        result.importedRows++;
        const writing = draft.add(identify(read.row));
        if (writing !== undefined) await writing;
      }
    }
  }
  return { result, duplicateRows };
}

/** What the first call with this key was told. */
async function answerAgain(
  dependencies: Dependencies,
  before: CommitRecord,
  requestSha256: string,
): Promise<ImportRowsResponse> {
  const version = await versionOf(dependencies, before, requestSha256);
  return { version: versionMessage(version), ...before.result };
}

/** The version that a key has made. Throws already_exists when the key stood for another request. */
export async function versionOf(
  dependencies: Dependencies,
  before: CommitRecord,
  requestSha256: string,
): Promise<VersionRecord> {
  if (before.requestSha256 !== requestSha256) {
    throw new TutelageError(
      "already_exists",
      `The idempotency key "${before.idempotencyKey}" was used for other rows; use a new key for a new request.`,
      { reason: "idempotency_key_reused" },
    );
  }
  const version = await dependencies.store.version(before.projectId, before.versionId);
  if (version === undefined) throw notFound("version", before.versionId);
  return version;
}
