/** What every group of commands gets. */
import type { Api } from "./api.js";

export interface CommandContext {
  api(): Api;
  /** Prints the result, once: as JSON when asked, else as text. */
  print(value: unknown, text: () => string): void;
  /** A line for a person, beside the result. */
  note(line: string): void;
  /** Whether standard output is to be one JSON document and nothing else. */
  json(): boolean;
}

/** A query of what was given; what is undefined is left out. */
export function query(given: Record<string, string | undefined>): string {
  const entries = Object.entries(given).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return entries.length === 0 ? "" : `?${new URLSearchParams(entries)}`;
}
