/** The layouts in which public tasks are published: what a record of each says. Pure. */
import { caseholdLetters, snipsLabels, sst2Labels, trecLabels } from "@tutelage/platform/publictasks";
import { csvColumns, csvFields, type FileRecord, fieldCountProblem, readRecords } from "@tutelage/platform/records";
import { FileLayout } from "@tutelage/proto/datasets/v1/datasets";
import { requireColumns } from "./columns.js";
import { shown } from "./fields.js";
import { objectOfLine, type RowProblem } from "./rowreader.js";
import { readUtterances } from "./utterances.js";

/** What a record says by the names of its columns, or why it says nothing. */
type ReadRecord = { values: Record<string, unknown> } | { problem: RowProblem };

export interface Layout {
  /** Cuts a file into records. */
  records(chunks: AsyncIterable<Buffer>): AsyncGenerator<FileRecord[]>;
  /** The columns that the header row names; a layout without it has no header. Throws invalid_argument where one is missing. */
  columns?(header: string): string[];
  /** What a record says; what is missing, empty or no label is named by whoever makes a row of it. */
  read(text: string, columns: readonly string[]): ReadRecord;
  inputColumn: string;
  outputColumn: string;
  /** All outputs that there are; empty where they are not a closed set. */
  labels: readonly string[];
}

export const layouts: Readonly<Record<Exclude<FileLayout, FileLayout.UNSPECIFIED>, Layout>> = {
  [FileLayout.GSM8K]: {
    records: (chunks) => readRecords(chunks, "jsonl"),
    read: readGsm8k,
    inputColumn: "question",
    outputColumn: "answer",
    labels: [],
  },
  [FileLayout.CASEHOLD]: {
    records: (chunks) => readRecords(chunks, "csv"),
    columns: (header) => requireColumns(csvColumns(header), ["citing_prompt", ...holdingColumns, "label"]),
    read: readCasehold,
    inputColumn: "citing_prompt",
    outputColumn: "label",
    labels: caseholdLetters,
  },
  [FileLayout.SNIPS]: {
    records: readUtterances,
    read: readSnips,
    inputColumn: "text",
    outputColumn: "intent",
    labels: snipsLabels,
  },
  [FileLayout.TREC]: {
    records: (chunks) => readRecords(chunks, "lines", { isLatin1: true }),
    read: readTrec,
    inputColumn: "question",
    outputColumn: "label",
    labels: trecLabels,
  },
  [FileLayout.SST2]: {
    records: (chunks) => readRecords(chunks, "lines"),
    columns: sst2Columns,
    read: readSst2,
    inputColumn: "sentence",
    outputColumn: "label",
    labels: sst2Labels,
  },
};

/** "5 * 12 = <<5*12=60>>60": what a calculator was told, and no part of the solution. */
const calculatorMark = /<<[^<>\n]*>>/g;
const finalLine = /(?:^|\n)####[ \t]*[-+]?\$?\.?\d[\d,.]*%?$/;

function readGsm8k(text: string): ReadRecord {
  const read = objectOfLine(text);
  if ("problem" in read) return read;
  const { question, answer } = read.values;
  const solution = typeof answer === "string" ? answer.replace(calculatorMark, "").trim() : answer;
  if (typeof solution === "string" && solution !== "") {
    if (!finalLine.test(solution)) {
      return malformed("answer", '"answer" does not end with a line "#### n"; give the final number there.');
    }
    if (/<<|>>/.test(solution)) {
      return malformed("answer", '"answer" has a calculator mark that is not closed; write it as <<5*12=60>>.');
    }
  } else if (typeof solution === "number") {
    return malformed("answer", '"answer" is only a number; give the solution as text that ends with a line "#### n".');
  }
  return { values: { question: tidy(question), answer: solution } };
}

const holdingColumns = caseholdLetters.map((_, index) => `holding_${index}`);
const holdingQuestion = "Which holding belongs in the place of <HOLDING>?";

function readCasehold(text: string, columns: readonly string[]): ReadRecord {
  const fields = csvFields(text);
  const miscounted = fieldCountProblem(fields, columns);
  if (miscounted !== undefined) return { problem: { field: "", ...miscounted } };
  // A choice is a line, whatever white space its text has.
  const value = (column: string) => (fields[columns.indexOf(column)] ?? "").replace(/\s+/g, " ").trim();
  for (const column of ["citing_prompt", ...holdingColumns]) {
    if (value(column) === "") {
      return fault("empty_field", column, `"${column}" is empty; give the passage and all five holdings.`);
    }
  }
  // Written by pandas, a label may come as "3.0".
  const letter = caseholdLetters[Number(/^([0-4])(?:\.0)?$/.exec(value("label"))?.[1] ?? -1)];
  if (letter === undefined) return numberProblem(value("label"), "0 to 4, the number of the right holding");
  const choices = holdingColumns.map((column, index) => `${caseholdLetters[index]}. ${value(column)}`);
  const input = [value("citing_prompt"), holdingQuestion, ...choices].join("\n");
  return { values: { citing_prompt: input, label: letter } };
}

/** A record as readUtterances makes it: [intent, {"data": [{"text": "…"}, …]}]. */
function readSnips(text: string): ReadRecord {
  const [intent, utterance] = JSON.parse(text) as [string, { data?: unknown } | null];
  const data = utterance?.data;
  const parts = Array.isArray(data) ? data.map((part) => (part as { text?: unknown } | null)?.text) : [undefined];
  if (parts.some((part) => typeof part !== "string")) {
    return malformed("data", 'The utterance is not {"data": [{"text": "…"}, …]}; give all of its parts as text.');
  }
  return { values: { text: parts.join("").replace(/\s+/g, " ").trim(), intent } };
}

function readTrec(text: string): ReadRecord {
  const [, label, fine_label, question] = /^\s*([^\s:]+):(\S+)\s+(\S.*)$/s.exec(text) ?? [];
  if (label === undefined) {
    return malformed("", 'The line is not "LABEL:fine question"; write it as in "NUM:date When was … ?".');
  }
  return { values: { question: tidy(question), label, fine_label } };
}

function sst2Columns(header: string): string[] {
  const columns = header.split("\t").map((name) => name.trim());
  const unlabelled = "this is GLUE's test split, which is published without labels; use train.tsv or dev.tsv.";
  return requireColumns(columns, ["sentence", "label"], columns.includes("sentence") ? unlabelled : undefined);
}

function readSst2(text: string, columns: readonly string[]): ReadRecord {
  const fields = text.split("\t");
  if (fields.length !== columns.length) {
    const message = `The line has ${fields.length} fields where the header has ${columns.length}; put one tab between fields.`;
    return malformed("", message);
  }
  const number = fields[columns.indexOf("label")]?.trim() ?? "";
  const label = /^[01]$/.test(number) ? sst2Labels[Number(number)] : undefined;
  if (label !== undefined) return { values: { sentence: tidy(fields[columns.indexOf("sentence")]), label } };
  return numberProblem(number, "0 (negative) or 1 (positive)");
}

function tidy(value: unknown): unknown {
  return typeof value === "string" ? value.trim() : value;
}

function numberProblem(given: string, wanted: string): ReadRecord {
  const hint = given === "-1" ? " -1 marks a row that was published without its label." : "";
  return fault("unknown_label", "label", `"label" is ${shown(given)}; it must be ${wanted}.${hint}`);
}

function malformed(field: string, message: string): ReadRecord {
  return fault("malformed_line", field, message);
}

function fault(code: string, field: string, message: string): ReadRecord {
  return { problem: { code, field, message } };
}
