/** How a file becomes rows: it is cut into records, the first may be a header, and each other is read by its form. */
import { invalidField } from "@tutelage/platform/errors";
import { csvColumns, type FileRecord, readRecords } from "@tutelage/platform/records";
import { thereAre } from "./columns.js";
import { shown } from "./fields.js";
import type { Layout } from "./layouts.js";
import { type Mapping, type ReadRow, rowFromCsv, rowFromJson, rowFromValues } from "./rowreader.js";

export interface FileForm {
  /** Cuts a file into records. */
  records(chunks: AsyncIterable<Buffer>): AsyncGenerator<FileRecord[]>;
  /** The columns that the header row names; a form without it has no header. Throws invalid_argument. */
  columns?(header: string, mapping: Mapping): string[];
  row(text: string, columns: readonly string[], mapping: Mapping): ReadRow;
}

export const jsonl: FileForm = {
  records: (chunks) => readRecords(chunks, "jsonl"),
  row: (text, _, mapping) => rowFromJson(text, mapping),
};

export const csv: FileForm = {
  records: (chunks) => readRecords(chunks, "csv"),
  columns: mappedColumns,
  row: rowFromCsv,
};

/** The form of a public layout. */
export function layoutForm(layout: Layout): FileForm {
  return {
    ...layout,
    row: (text, columns, mapping) => {
      const read = layout.read(text, columns);
      return "problem" in read ? read : rowFromValues(read.values, mapping, false);
    },
  };
}

/** A row of a file, or why there is none; `line` is the line on which its record begins, from 1. */
export type FileRow = { line: number } & ReadRow;

/** The rows of a file, in batches of what one chunk completes. Throws invalid_argument for a header that is not the form's. */
export async function* rowsOf(
  chunks: AsyncIterable<Buffer>,
  form: FileForm,
  mapping: Mapping,
): AsyncGenerator<FileRow[]> {
  let columns: string[] | undefined = form.columns === undefined ? [] : undefined;
  for await (const records of form.records(chunks)) {
    const rows: FileRow[] = [];
    for (const record of records) {
      const { line } = record;
      if (columns === undefined) columns = form.columns?.(headerText(record), mapping);
      else if ("problem" in record) rows.push({ line, problem: { field: "", ...record.problem } });
      else rows.push({ line, ...form.row(record.text, columns, mapping) });
    }
    yield rows;
  }
}

/** A header that cannot be read is a wrong request: no row could be read. */
function headerText(record: FileRecord): string {
  if ("text" in record) return record.text;
  throw invalidField("file", `the header row cannot be read. ${record.problem.message}`, "csv_header_malformed");
}

/** A CSV file's columns, with those that the mapping names. */
function mappedColumns(header: string, mapping: Mapping): string[] {
  const columns = csvColumns(header);
  const repeated = columns.find((name, index) => columns.indexOf(name) !== index);
  if (repeated !== undefined) {
    throw invalidField("file", `the header row has ${shown(repeated)} twice; rename one.`, "csv_header_repeated");
  }
  const wanted = [
    ["input_column", mapping.inputColumn],
    ["output_column", mapping.outputColumn],
    ["split_column", mapping.splitColumn],
  ] as const;
  for (const [field, name] of wanted) {
    if (name === "" || columns.includes(name)) continue;
    const hint = columns.length === 1 && /[;\t]/.test(header) ? " Separate columns with commas." : "";
    throw invalidField(
      field,
      `the file has no column ${shown(name)}, ${thereAre(columns)}; name the one that holds it.${hint}`,
      "column_missing",
    );
  }
  return columns;
}
