/** Numbers and tables for a person. Pure. */
import type { Campaign, Iteration, Proportion } from "./api.js";

/** Stands for a control character of C1, which has no picture of its own. */
const replacement = "\uFFFD";

/**
 * Text that a terminal shows and does not obey: rows and replies are anybody's,
 * and may hold escape sequences. Line breaks and tabs stay; every other control
 * character becomes its picture (ESC is U+241B).
 */
export function visible(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(controls, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : replacement;
  });
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
const controls = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** A value as JSON in one line. What JSON leaves as it is and a terminal may obey (DEL and C1) is escaped, too. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\x7f-\x9f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Columns as wide as their widest cell, a line for each row whatever is in its cells. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows].map((line) => line.map((cell) => visible(cell).replace(/[\n\t]/g, " ")));
  const widths = header.map(() => 0);
  for (const line of all) {
    for (const [column, cell] of line.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return all
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

export function percent(one: Proportion | number | undefined): string {
  const value = typeof one === "object" ? one.value : one;
  return value === undefined ? "–" : `${(value * 100).toFixed(1)} %`;
}

export function withInterval(one: Proportion | undefined): string {
  return one === undefined
    ? "–"
    : `${percent(one)} (${percent(one.ci95_low)} to ${percent(one.ci95_high)}, n = ${one.n})`;
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`;
}

export function money(microUsd: number): string {
  return `$${(microUsd / 1_000_000).toFixed(microUsd < 10_000_000 ? 4 : 2)}`;
}

export function bytes(count: number): string {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return power === 0 ? `${count} bytes` : `${(count / 1_000 ** power).toFixed(1)} ${units[power]}`;
}

/** The score that an iteration is judged by. */
export function score(iteration: Iteration): string {
  if (iteration.dev_accuracy !== undefined) return `dev ${percent(iteration.dev_accuracy)}`;
  return iteration.cross_fit_accuracy === undefined ? "" : `cross-fit ${percent(iteration.cross_fit_accuracy)}`;
}

/** One finished iteration in a line. */
export function iterationLine(iteration: Iteration): string {
  const { number, train_rows, mined, errors, accepted, candidates, seconds } = iteration;
  const parts = [
    `${train_rows} rows`,
    mined ? `${errors} errors` : "",
    candidates === 0 ? "" : `${accepted} of ${candidates} candidates kept`,
    score(iteration),
    duration(seconds),
  ];
  return `iteration ${number}: ${parts.filter(Boolean).join(", ")}`;
}

/** What came of a campaign. */
export function outcomeText(campaign: Campaign, iterations: readonly Iteration[]): string {
  const { outcome } = campaign;
  if (outcome === undefined) return "";
  const lines = iterations.map((one) => [
    `${one.number}${one.number === outcome.chosen_iteration ? " *" : ""}`,
    String(one.train_rows),
    one.mined ? String(one.errors) : "–",
    String(one.accepted),
    percent(one.dev_accuracy ?? one.cross_fit_accuracy),
    withInterval(one.test_accuracy),
    duration(one.seconds),
  ]);
  const arms = [outcome.baseline, ...outcome.other_arms].flatMap((arm) =>
    arm === undefined
      ? []
      : [[arm.name, String(arm.train_rows), "", "", "", arm.left_out || withInterval(arm.test_accuracy), ""]],
  );
  const header = ["iteration", "rows", "errors", "kept", "chosen by", "test accuracy (95 % interval)", "time"];
  return `${table(header, [...lines, ...arms])}\n\n${outcome.summary}`;
}
