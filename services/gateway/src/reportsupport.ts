/** What a campaign's test rows support: claims in words, and the tests behind them. Pure. */

import { signedPoints } from "@tutelage/platform/signedpoints";
import type { Report } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Html, html } from "./html.js";

export function supportTable({ claims, comparisons }: Report): Html {
  const table = html`<div class="scroll"><table><thead><tr><th>student against</th><th>points (95 % interval)</th><th>only student right</th>
<th>only arm right</th><th>McNemar p</th><th>after Holm</th><th>smallest to be seen</th></tr></thead><tbody>${comparisons.map(
    ({
      arm,
      gain,
      mcnemarP,
      holmP,
      detectableGain,
    }) => html`<tr><td>${arm}</td><td>${signedPoints(gain?.gain ?? 0)} <small>${signedPoints(
      gain?.ci95Low ?? -1,
    )} to ${signedPoints(gain?.ci95High ?? 1)}</small></td><td>${gain?.onlyFinalRight}</td><td>${gain?.onlyBaselineRight}</td>
<td>${mcnemarP.toFixed(4)}</td><td>${holmP.toFixed(4)}</td><td>${(detectableGain * 100).toFixed(1)}</td></tr>`,
  )}</tbody></table></div>`;
  return html`<ul>${claims.map((line) => html`<li>${line}</li>`)}</ul>${comparisons.length > 0 && table}`;
}
