/** What held-out rows have in common with train rows and candidates: counts and row ids, never a held-out text. Pure. */
import type { Candidate, Report } from "@tutelage/proto/campaigns/v1/campaigns";
import { OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { type Html, html } from "./html.js";

/** The report as data has more. */
const shownRows = 60;
const kinds = [
  { kind: OverlapKind.EXACT, name: "exact" },
  { kind: OverlapKind.NGRAM, name: "ngram" },
  { kind: OverlapKind.NEAR_DUPLICATE, name: "near_duplicate" },
];
const splitNames: Partial<Record<Split, string>> = { [Split.TRAIN]: "train", [Split.DEV]: "dev", [Split.TEST]: "test" };

/** The splits that came, and the candidates of each iteration, by kind. */
export function overlapTable({ splitOverlaps, iterations }: Report): Html {
  const counts = splitOverlaps?.counts ?? [];
  const pairs = [
    [Split.TRAIN, Split.DEV],
    [Split.TRAIN, Split.TEST],
    [Split.DEV, Split.TEST],
  ] as const;
  const ofSplits = pairs.flatMap(([split, against]) => {
    const found = counts.filter((one) => one.split === split && one.against === against);
    if (found.length === 0) return [];
    const cells = kinds.map(({ kind }) => found.find((one) => one.kind === kind)?.rows ?? 0);
    return [{ what: `${nameOf(split)} rows, against ${nameOf(against)} rows`, cells }];
  });
  const ofCandidates = iterations.flatMap(({ number, overlapsByKind }) => {
    const cells = kinds.map(({ name }) => overlapsByKind[name] ?? 0);
    return cells.some((cell) => cell > 0) ? [{ what: `candidates of iteration ${number}, refused`, cells }] : [];
  });
  const lines = [...ofSplits, ...ofCandidates];
  const began =
    splitOverlaps === undefined
      ? "The splits were not compared when the campaign began."
      : counts.length === 0
        ? "No train row says what a dev or test row says, and no dev row what a test row says."
        : splitOverlaps.droppedRows > 0
          ? `${splitOverlaps.droppedRows} train rows were left out for it.`
          : "No row was left out for it: what was trained on may be what was measured on.";
  if (lines.length === 0) return html`<p>${began} No candidate did.</p>`;
  return html`<p>${began}</p>
<div class="scroll"><table><thead><tr><th></th><th>the same text</th><th>long runs of words</th><th>nearly the same</th></tr></thead>
<tbody>${lines.map(({ what, cells }) => html`<tr><td class="text">${what}</td>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>
${rowTable(splitOverlaps?.overlaps ?? [])}`;
}

function rowTable(overlaps: NonNullable<Report["splitOverlaps"]>["overlaps"]): Html {
  if (overlaps.length === 0) return html``;
  const shown = overlaps.slice(0, shownRows);
  return html`<details><summary>Which rows, the first ${shown.length}</summary><div class="scroll"><table><thead><tr><th>row</th><th>says again</th>
<th>how</th><th>strength</th></tr></thead><tbody>${shown.map(
    ({ rowId, split, overlap }) => html`<tr><td>${nameOf(split)} ${rowId}</td><td>${saidRow(overlap)}</td>
<td>${kindName(overlap?.kind)}</td><td>${(overlap?.strength ?? 0).toFixed(2)}</td></tr>`,
  )}</tbody></table></div></details>`;
}

/** Instead of a refused candidate's text, which is a held-out row's in all but name. */
export function saidAgain({ overlap }: Candidate): string {
  return `not shown: says ${saidRow(overlap)} again (${kindName(overlap?.kind)})`;
}

function saidRow(overlap: Candidate["overlap"]): string {
  return overlap === undefined ? "a dev or test row" : `${nameOf(overlap.split)} row ${overlap.rowId}`;
}

function nameOf(split: Split): string {
  return splitNames[split] ?? "";
}

function kindName(kind: OverlapKind | undefined): string {
  return kinds.find((one) => one.kind === kind)?.name.replace("_", " ") ?? "near";
}
