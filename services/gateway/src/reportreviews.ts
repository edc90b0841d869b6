/** The part of a report's page that lists seed rows in doubt. Pure. */
import { rowText } from "@tutelage/platform/conversation";
import {
  Disputes,
  type Review,
  ReviewKind,
  type ReviewOpinion,
  ReviewStatus,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { type Html, html } from "./html.js";
import { percent } from "./reportchart.js";

/** What became of each, and what that means for the numbers. */
export function reviewTable(reviews: readonly Review[]): Html {
  const changed = reviews.filter(
    ({ status, actedIteration }) =>
      actedIteration !== undefined && (status === ReviewStatus.RELABELLED || status === ReviewStatus.EXCLUDED),
  ).length;
  const gainNote =
    changed === 0
      ? ""
      : ` Plain fine-tuning learned from the rows as they came, so the gain holds what ${changed} corrected or excluded rows brought.`;
  return html`<p>Rows whose label students and teacher both contradict, and rows whose answer two readings grade
differently.${gainNote}</p>
<div class="scroll"><table><thead><tr><th>seed row</th><th>id</th><th>expected</th><th>it.</th><th>students say</th><th>teacher says</th>
<th>became</th></tr></thead><tbody>${reviews.map((review) => {
    const last = review.evidence.at(-1);
    return html`<tr><td class="text">${review.row === undefined ? "" : rowText(review.row)}</td><td><code>${review.seedRowId}</code></td>
<td>${review.row?.output}</td><td>${review.evidence.map(({ iteration }) => iteration).join(", ")}</td>
<td>${said(last?.students)}${review.kind === ReviewKind.DISPUTE ? html` <small>read strictly, of “${last?.text}”</small>` : html``}</td>
<td>${said(last?.teacher)}</td><td>${became(review)}</td></tr>`;
  })}</tbody></table></div>`;
}

function said(opinion: ReviewOpinion | undefined): Html {
  if (opinion === undefined) return html``;
  const { answer, probability, hitRate } = opinion;
  return html`${answer}${probability === undefined ? "" : ` (${percent(probability)})`}${
    hitRate === undefined ? html`` : html` <small>right on ${percent(hitRate)} of such rows</small>`
  }`;
}

function became({ status, output, reading, actedIteration }: Review): string {
  const taken = actedIteration === undefined ? ", not taken up" : "";
  switch (status) {
    case ReviewStatus.ACCEPTED: {
      if (reading === Disputes.UNSPECIFIED) return `accepted${taken}`;
      return `accepted, read ${reading === Disputes.LENIENT ? "leniently" : "strictly"}${taken}`;
    }
    case ReviewStatus.RELABELLED:
      return `relabelled ${output}${taken}`;
    case ReviewStatus.EXCLUDED:
      return `excluded${taken}`;
    default:
      return "open";
  }
}
