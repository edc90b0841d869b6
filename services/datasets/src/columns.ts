/** The columns that a header row names, and those that somebody needs. Pure. */
import { invalidField } from "@tutelage/platform/errors";
import { shown } from "./fields.js";

/**
 * The columns, with all that a layout has. Throws invalid_argument that names
 * the first that is missing; `fix` replaces what is to be done about it.
 */
export function requireColumns(columns: string[], wanted: readonly string[], fix?: string): string[] {
  const missing = wanted.find((name) => !columns.includes(name));
  if (missing === undefined) return columns;
  throw invalidField(
    "file",
    `has no column ${shown(missing)}: ${fix ?? `${thereAre(columns)}; the layout has ${wanted.join(", ")}.`}`,
    "column_missing",
  );
}

/** What there is instead, for a message. */
export function thereAre(columns: readonly string[]): string {
  return `only ${columns
    .slice(0, 20)
    .map((column) => shown(column))
    .join(", ")}`;
}
