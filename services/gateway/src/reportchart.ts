/** The report's drawings, as SVG that needs no script. Pure. */
import type { Iteration, LossCurve, Outcome } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Metrics, Proportion } from "@tutelage/proto/evaluation/v1/evaluation";
import { type Html, html } from "./html.js";

/** Drawing area of a chart in user units: it scales with the page. */
const width = 640;
const height = 260;
const left = 44;
const right = 12;
const top = 12;
const bottom = 30;

/** A straight scale from values to places. */
function scale(fromLow: number, fromHigh: number, toLow: number, toHigh: number): (value: number) => number {
  const span = fromHigh - fromLow || 1;
  return (value) => toLow + ((value - fromLow) / span) * (toHigh - toLow);
}

/** About five round numbers that cover a range. */
function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough) ?? rough;
  const result: number[] = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1_000; value += step) result.push(value);
  return result;
}

const one = (value: number) => value.toFixed(1);

function frame(yTicks: readonly number[], y: (value: number) => number, label: (value: number) => string): Html[] {
  return yTicks.map(
    (value) => html`<line class="grid" x1="${left}" x2="${width - right}" y1="${one(y(value))}" y2="${one(y(value))}"/>
<text class="tick" x="${left - 6}" y="${one(y(value) + 4)}" text-anchor="end">${label(value)}</text>`,
  );
}

/** Accuracy by iteration with 95 % intervals, beside plain fine-tuning as a line with its band. */
export function accuracyChart(iterations: readonly Iteration[], outcome: Outcome): Html {
  const series = [
    { name: "test", points: iterations.map((iteration) => iteration.testAccuracy) },
    { name: "dev", points: iterations.map((iteration) => iteration.devAccuracy) },
    { name: "cross-fit", points: iterations.map((iteration) => iteration.crossFitAccuracy) },
  ].filter(({ points }) => points.some((point) => point !== undefined));
  const plain = outcome.baseline?.testAccuracy;
  const all = [...series.flatMap(({ points }) => points), plain].filter((point) => point !== undefined);
  if (all.length === 0) return html``;
  const low = Math.max(0, Math.min(...all.map((point) => point.ci95Low)) - 0.02);
  const high = Math.min(1, Math.max(...all.map((point) => point.ci95High)) + 0.02);
  const y = scale(low, high, height - bottom, top);
  const x = scale(0, Math.max(1, iterations.length - 1), left + 40, width - right - 40);
  const drawn = series.map(({ name, points }, index) => {
    const shift = (index - (series.length - 1) / 2) * 9;
    const known = points.flatMap((point, number) => (point === undefined ? [] : [{ point, at: x(number) + shift }]));
    const path = known.map(({ point, at }) => `${one(at)},${one(y(point.value))}`).join(" ");
    return html`<g class="series ${name}"><polyline points="${path}"/>${known.map(({ point, at }) => mark(point, at, y))}</g>`;
  });
  const band =
    plain === undefined
      ? html``
      : html`<g class="series plain"><rect x="${left}" width="${width - left - right}" y="${one(y(plain.ci95High))}" height="${one(
          y(plain.ci95Low) - y(plain.ci95High),
        )}"/><line x1="${left}" x2="${width - right}" y1="${one(y(plain.value))}" y2="${one(y(plain.value))}"/></g>`;
  const labels = iterations.map(
    ({ number, trainRows }) =>
      html`<text class="tick" x="${one(x(number))}" y="${height - 8}" text-anchor="middle">${number} (${trainRows} rows)</text>`,
  );
  const names = [...series.map(({ name }) => name), ...(plain === undefined ? [] : ["plain"])];
  const accessible = `Accuracy by iteration: ${series
    .map(({ name, points }) => `${name} ${points.map((point) => percent(point)).join(", ")}`)
    .join("; ")}; plain fine-tuning ${percent(plain)}.`;
  return html`<figure><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${accessible}">
${frame(ticks(low, high), y, (value) => `${Math.round(value * 100)} %`)}${band}${drawn}${labels}</svg>
<figcaption>${names.map((name) => html`<span class="key ${name}">${name === "plain" ? "plain fine-tuning, test" : name}</span> `)}
bars are 95 % intervals</figcaption></figure>`;
}

function mark(point: Proportion, at: number, y: (value: number) => number): Html {
  return html`<line x1="${one(at)}" x2="${one(at)}" y1="${one(y(point.ci95Low))}" y2="${one(y(point.ci95High))}"/><circle cx="${one(
    at,
  )}" cy="${one(y(point.value))}" r="4"><title>${percent(point)}, n = ${point.n}</title></circle>`;
}

/** Loss by optimizer step, on a logarithmic scale. */
export function lossChart(curves: readonly LossCurve[]): Html {
  const known = curves.filter((curve) => curve.steps.length > 1);
  if (known.length === 0) return html``;
  const floor = 1e-4;
  const logs = (curve: LossCurve) => curve.losses.map((loss) => Math.log10(Math.max(floor, loss)));
  const low = Math.floor(Math.min(...known.flatMap(logs)));
  const high = Math.ceil(Math.max(...known.flatMap(logs)));
  const y = scale(low, high, height - bottom, top);
  const lastStep = Math.max(...known.map((curve) => curve.steps.at(-1) ?? 0));
  const x = scale(0, lastStep, left, width - right);
  const powers = Array.from({ length: high - low + 1 }, (_, index) => low + index);
  const drawn = known.map((curve) => {
    const path = logs(curve).map((value, index) => `${one(x(curve.steps[index] ?? 0))},${one(y(value))}`);
    return html`<g class="series ${curve.name}"><polyline points="${path.join(" ")}"/></g>`;
  });
  const steps = ticks(0, lastStep).map(
    (step) => html`<text class="tick" x="${one(x(step))}" y="${height - 8}" text-anchor="middle">${step}</text>`,
  );
  return html`<figure><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Training loss by optimizer step">
${frame(powers, y, (power) => String(Number((10 ** power).toPrecision(3))))}${drawn}${steps}</svg>
<figcaption>${known.map(({ name }) => html`<span class="key ${name}">${name === "plain" ? "plain fine-tuning" : "returned student"}</span> `)}
mean loss in nats per completion token, by optimizer step</figcaption></figure>`;
}

/** Rows of a confusion matrix shaded by their share of the expected label. Undefined where there are no labels. */
export function confusionTable(title: string, metrics: Metrics, labels: readonly string[]): Html {
  const count = new Map(metrics.confusion.map((cell) => [`${cell.expected}\0${cell.answered}`, cell.count]));
  const answered = [...labels, ...(metrics.confusion.some((cell) => cell.answered === "") ? [""] : [])];
  const support = new Map(labels.map((label) => [label, 0]));
  for (const cell of metrics.confusion) support.set(cell.expected, (support.get(cell.expected) ?? 0) + cell.count);
  const cells = (expected: string) =>
    answered.map((answer) => {
      const rows = count.get(`${expected}\0${answer}`) ?? 0;
      const share = rows / Math.max(1, support.get(expected) ?? 0);
      const kind = expected === answer ? "right" : "wrong";
      return html`<td class="${kind}" style="--share: ${share.toFixed(2)}">${rows === 0 ? "" : rows}</td>`;
    });
  return html`<div class="scroll"><table class="confusion"><caption>${title} (${percent(metrics.accuracy)})</caption>
<thead><tr><th>expected \\ answered</th>${answered.map((label) => html`<th>${label === "" ? "(none)" : label}</th>`)}</tr></thead>
<tbody>${labels.map((label) => html`<tr><th>${label}</th>${cells(label)}</tr>`)}</tbody></table></div>`;
}

/** "71.3 %", or a dash. */
export function percent(share: number | Proportion | undefined): string {
  const value = typeof share === "object" ? share.value : share;
  return value === undefined ? "–" : `${(value * 100).toFixed(1)} %`;
}
