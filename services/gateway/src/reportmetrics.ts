/** How near answers came, where right and wrong is not all: fields of an extraction, free text. Pure. */
import type { Report } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Metrics } from "@tutelage/proto/evaluation/v1/evaluation";
import { type Html, html } from "./html.js";
import { percent } from "./reportchart.js";

/** A section of the report; empty for kinds of task that have neither. */
export function answerMetrics({ baselineMetrics, finalMetrics }: Report): Html {
  if (baselineMetrics === undefined || finalMetrics === undefined) return html``;
  const pairs = [...fieldRows(baselineMetrics, finalMetrics), ...textRows(baselineMetrics, finalMetrics)];
  if (pairs.length === 0) return html``;
  const note =
    finalMetrics.extraction === undefined
      ? "ROUGE-L F is the overlap with the expected output, 0 to 1; a row without an answer counts 0."
      : "A field counts where it is expected or answered; a field's accuracy is over all rows, and leaving it out is right where it is not expected.";
  return html`<section><h2>Answers in parts, on test rows</h2><div class="scroll"><table><thead><tr><th></th>
<th>plain fine-tuning</th><th>returned student</th></tr></thead><tbody>${pairs.map(
    ([name, before, after]) => html`<tr><td class="text">${name}</td><td>${before}</td><td>${after}</td></tr>`,
  )}</tbody></table></div><p class="note">${note}</p></section>`;
}

function fieldRows({ extraction: before }: Metrics, { extraction: after }: Metrics): [string, string, string][] {
  if (before === undefined || after === undefined) return [];
  return [
    ["precision of fields", percent(before.precision), percent(after.precision)],
    ["recall of fields", percent(before.recall), percent(after.recall)],
    ["F1 of fields", percent(before.f1), percent(after.f1)],
    ...after.fields.map(({ field, accuracy }, index): [string, string, string] => [
      `accuracy of "${field}"`,
      percent(before.fields[index]?.accuracy),
      percent(accuracy),
    ]),
  ];
}

function textRows(before: Metrics, after: Metrics): [string, string, string][] {
  if (before.meanRougeL === undefined || after.meanRougeL === undefined) return [];
  return [["mean ROUGE-L F", before.meanRougeL.toFixed(3), after.meanRougeL.toFixed(3)]];
}
