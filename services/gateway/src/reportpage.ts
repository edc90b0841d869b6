/** A campaign's report as one page that needs nothing else: no script, no font, no picture from elsewhere. Pure. */

import { rowText } from "@tutelage/platform/conversation";
import { signedPoints } from "@tutelage/platform/signedpoints";
import {
  type ArmResult,
  type Candidate,
  type ForkOrigin,
  type Iteration,
  Mining,
  type Report,
  type SeedRow,
  SeedRowState,
  Selection,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { type Row, TaskKind } from "@tutelage/proto/task/v1/task";
import { type Html, html } from "./html.js";
import { accuracyChart, confusionTable, lossChart, percent } from "./reportchart.js";
import { answerMetrics } from "./reportmetrics.js";
import { overlapTable, saidAgain } from "./reportoverlaps.js";
import { reviewTable } from "./reportreviews.js";
import { reportStyle } from "./reportstyle.js";
import { supportTable } from "./reportsupport.js";

/** More labels than this make a matrix that nobody reads; then the commonest confusions are listed. */
const mostMatrixLabels = 16;
/** Candidates shown of each kind; all of them are a REST call away. */
const shownCandidates = 60;
const loopPhases = ["cross_fit", "train", "dev", "mine", "audit", "generate", "novelty", "check", "commit"];

/** The page. @param url where the gateway answers, for the commands on it */
export function reportPage(report: Report, url: string, { wantsToken = false } = {}): string {
  const { campaign, iterations } = report;
  const outcome = campaign?.outcome;
  const request = campaign?.request;
  if (outcome === undefined || request === undefined) throw new Error("A report without outcome.");
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${request.name} – Tutelage report</title><style>${reportStyle}</style></head><body>
<header><p class="kind">LLM2LLM campaign · ${day(campaign?.run?.finishedAt)}</p><h1>${request.name}</h1>
<p class="lead">${outcome.summary}</p>${headline(report)}</header>
<main>
${report.advice.length > 0 && section("What to try next", html`<ol class="advice">${report.advice.map((line) => html`<li>${line}</li>`)}</ol>`)}
${section(
  "Accuracy",
  html`${accuracyChart(iterations, outcome)}${iterationTable(report)}${armTable(report)}
<p class="note">${choiceNote(report)}</p>`,
)}
${report.claims.length > 0 && section("What the test rows support", supportTable(report))}
${confusion(report)}${answerMetrics(report)}
${section("What it learnt from", seedRowTable(report.seedRows, iterations))}
${report.reviews.length > 0 && section("Seed rows in doubt", reviewTable(report.reviews))}
${section("What the teacher wrote", candidates(report))}
${section("What dev and test rows have in common with others", overlapTable(report))}
${section("Cost and time", costs(report))}
${report.lossCurves.length > 0 && section("Training loss", lossChart(report.lossCurves))}
${section("What was asked", asked(report))}
${report.departures.length > 0 && section("Where it departs from the paper", html`<ul>${report.departures.map((line) => html`<li>${line}</li>`)}</ul>`)}
${section("Use the student", usage(report, url, wantsToken))}
</main>
<footer>Made by Tutelage. The same as data: <code>GET /v1/campaigns/${campaign?.run?.id}/report</code></footer>
</body></html>`;
  return page.text;
}

function section(title: string, body: Html): Html {
  return html`<section><h2>${title}</h2>${body}</section>`;
}

function headline({ campaign, iterations }: Report): Html {
  const outcome = campaign?.outcome;
  const gain = outcome?.gain;
  const added = iterations.reduce((sum, one) => sum + one.accepted, 0);
  const figures: [string, string, string][] = [
    ["returned student", percent(outcome?.final?.testAccuracy), interval(outcome?.final?.testAccuracy)],
    ["plain fine-tuning", percent(outcome?.baseline?.testAccuracy), interval(outcome?.baseline?.testAccuracy)],
    [
      "gain, paired",
      gain === undefined ? "–" : `${signedPoints(gain.gain)} points`,
      gain === undefined ? "no test rows" : `${signedPoints(gain.ci95Low)} to ${signedPoints(gain.ci95High)} (95 %)`,
    ],
    ["rows added", String(added), `to ${iterations[0]?.trainRows ?? 0} seed rows`],
    ["teacher calls", String(campaign?.usage?.calls ?? 0), money(campaign?.usage?.costMicroUsd ?? 0)],
    ["time", duration(outcome?.wallSeconds ?? 0), "without test evaluation"],
  ];
  return html`<dl class="headline">${figures.map(
    ([name, value, detail]) =>
      html`<div><dt>${name}</dt><dd><strong>${value}</strong> <span>${detail}</span></dd></div>`,
  )}</dl>`;
}

function iterationTable({ iterations, campaign }: Report): Html {
  const chosen = campaign?.outcome?.chosenIteration;
  return html`<div class="scroll"><table><thead><tr><th>iteration</th><th>rows</th><th>errors</th><th>accepted</th><th>rejected</th>
<th>cross-fit</th><th>dev</th><th>test (95 % interval)</th><th>time</th></tr></thead><tbody>${iterations.map(
    (
      one,
    ) => html`<tr${one.number === chosen ? CHOSEN : html``}><td>${one.number}${one.number === chosen ? " ★" : ""}</td>
<td>${one.trainRows}</td><td>${one.mined ? one.errors : "–"}</td><td>${one.accepted}</td><td>${one.candidates - one.accepted}</td>
<td>${percent(one.crossFitAccuracy)}</td><td>${percent(one.devAccuracy)}</td><td>${percent(one.testAccuracy)} <small>${interval(
      one.testAccuracy,
    )}</small></td><td>${duration(one.seconds)}</td></tr>`,
  )}</tbody></table></div>`;
}

const CHOSEN = html` class="chosen"`;

function armTable({ campaign }: Report): Html {
  const outcome = campaign?.outcome;
  const arms = [outcome?.final, outcome?.baseline, ...(outcome?.otherArms ?? [])].filter((arm) => arm !== undefined);
  const meaning: Record<string, string> = {
    campaign: "the student that is returned",
    plain: "plain fine-tuning on the seed rows",
    none_matched: "plain fine-tuning with as many steps as the returned student",
    none_all: "plain fine-tuning on seed and dev rows together",
    zero_shot: "the base model, not trained",
    few_shot: "the base model with seed rows in its prompt",
    teacher: "the teacher's own answers",
    probe: "logistic regression on the base model's features",
    eda: "as many rows by changing words of seed rows",
    auggpt: "as many teacher calls, spread over all seed rows, unchecked",
    random: "as many teacher calls on random seed rows, in one step",
    oracle: "as many rows from the oracle's teacher",
  };
  return html`<div class="scroll"><table><thead><tr><th>arm</th><th></th><th>rows</th><th>steps</th><th>tries</th><th>chosen by</th>
<th>test (95 % interval)</th><th>returned minus this, points</th></tr></thead><tbody>${arms.map(
    (
      arm,
    ) => html`<tr><td>${arm.name}</td><td class="text">${meaning[arm.name] ?? ""}</td><td>${arm.trainRows}</td><td>${arm.steps}</td>
<td>${arm.tries}</td><td>${percent(arm.choosingScore)}</td>${
      arm.leftOut === ""
        ? html`<td>${percent(arm.testAccuracy)} <small>${interval(arm.testAccuracy)}</small></td><td>${gainOver(arm)}</td>`
        : html`<td class="text" colspan="2">left out: ${arm.leftOut}</td>`
    }</tr>`,
  )}</tbody></table></div>`;
}

function gainOver({ finalGain }: ArmResult): string {
  if (finalGain === undefined) return "";
  return `${signedPoints(finalGain.gain)} (${signedPoints(finalGain.ci95Low)} to ${signedPoints(finalGain.ci95High)})`;
}

function choiceNote({ campaign, iterations }: Report): string {
  const tries = campaign?.outcome?.baseline?.tries ?? 0;
  const byDev = iterations.some((one) => one.devAccuracy !== undefined);
  const how = byDev ? "dev rows" : "cross-fitting on the seed rows";
  return (
    `The iteration was chosen by ${how}, never by test rows. Plain fine-tuning had ${tries} ${tries === 1 ? "try" : "tries"}` +
    `${byDev ? ", the best of them by dev rows" : ""}. Intervals of single accuracies are Wilson's; the gain is paired on the same rows.`
  );
}

function confusion({ baselineMetrics, finalMetrics, campaign }: Report): Html {
  const labels = (campaign?.request?.task?.labels ?? []).map(({ name }) => name);
  if (baselineMetrics === undefined || finalMetrics === undefined || labels.length === 0) return html``;
  const recall = (metrics: typeof finalMetrics, label: string) => metrics.labels.find((one) => one.label === label);
  const perLabel = html`<div class="scroll"><table><thead><tr><th>label</th><th>rows</th><th>recall, plain</th><th>recall, student</th>
<th>precision, plain</th><th>precision, student</th></tr></thead><tbody>${labels.map((label) => {
    const [before, after] = [recall(baselineMetrics, label), recall(finalMetrics, label)];
    return html`<tr><td>${label}</td><td>${after?.support ?? 0}</td><td>${percent(before?.recall)}</td><td>${percent(after?.recall)}</td>
<td>${percent(before?.precision)}</td><td>${percent(after?.precision)}</td></tr>`;
  })}</tbody></table></div>`;
  const matrices =
    labels.length > mostMatrixLabels
      ? html``
      : html`<div class="pair">${confusionTable("Plain fine-tuning", baselineMetrics, labels)}${confusionTable(
          "Returned student",
          finalMetrics,
          labels,
        )}</div>`;
  return section("Confusion before and after, on test rows", html`${matrices}${perLabel}`);
}

const stateText: Readonly<Record<SeedRowState, string>> = {
  [SeedRowState.UNSPECIFIED]: "not judged",
  [SeedRowState.KNOWN]: "known from the start",
  [SeedRowState.LEARNED]: "learned",
  [SeedRowState.STUBBORN]: "stubborn (wrong each time)",
  [SeedRowState.FORGOTTEN]: "forgotten (learned, then wrong again)",
  [SeedRowState.REGRESSED]: "regressed (right at first, wrong in the end)",
};

function seedRowTable(rows: readonly SeedRow[], iterations: readonly Iteration[]): Html {
  const mined = iterations.filter(({ number }) =>
    rows.some(({ grades }) => grades.some((one) => one.iteration === number)),
  );
  if (mined.length === 0) return html`<p>No iteration was mined.</p>`;
  const wrong = (row: SeedRow) => row.grades.filter((grade) => !grade.correct).length;
  const ordered = [...rows].sort((a, b) => wrong(b) - wrong(a));
  const states = Object.values(SeedRowState)
    .map((state) => ({ state, count: rows.filter((row) => row.state === state).length }))
    .filter(({ count }) => count > 0)
    .map(({ state, count }) => `${count} ${stateText[state]}`);
  const table = html`<div class="scroll"><table class="seeds"><thead><tr><th>seed row</th><th>expected</th>${mined.map(
    ({ number }) => html`<th>${number}</th>`,
  )}<th>state</th><th>written</th><th>kept</th></tr></thead><tbody>${ordered.map(
    (row) =>
      html`<tr><td class="text">${textOf(row.row)}</td><td>${row.row?.output}</td>${mined.map(({ number }) => {
        const grade = row.grades.find((one) => one.iteration === number);
        if (grade === undefined) return html`<td></td>`;
        const mark = grade.correct ? "✓" : "✗";
        return html`<td class="${grade.correct ? "yes" : "no"}" title="${grade.answer}">${mark}${grade.correct ? "" : html` <small>${grade.answer}</small>`}</td>`;
      })}<td>${row.state === SeedRowState.UNSPECIFIED ? "not judged" : nameOf(SeedRowState, row.state)}</td><td>${row.candidates}</td><td>${row.accepted}</td></tr>`,
  )}</tbody></table></div>`;
  return html`<p>${rows.length} seed rows: ${states.join(", ")}. A ✗ is followed by what the student answered.</p>
<details${rows.length <= 40 ? html` open` : html``}><summary>Each seed row by iteration, the hardest first</summary>${table}</details>`;
}

function candidates(report: Report): Html {
  const { candidates: all, candidateCount, iterations } = report;
  const seeds = new Map(report.seedRows.map(({ row }) => [row?.id ?? "", row]));
  const accepted = all.filter((one) => one.accepted);
  const refused = all.filter((one) => !one.accepted);
  const counts = new Map<string, number>();
  for (const { rejected } of iterations) {
    for (const [reason, count] of Object.entries(rejected)) counts.set(reason, (counts.get(reason) ?? 0) + count);
  }
  const kept = iterations.reduce((sum, one) => sum + one.accepted, 0);
  const bars = [["accepted", kept] as const, ...[...counts].sort((a, b) => b[1] - a[1])];
  return html`<ul class="bars">${bars.map(
    ([reason, count]) =>
      html`<li><span>${reasonText(reason)}</span><b style="--share: ${(count / Math.max(1, candidateCount)).toFixed(3)}">${count}</b></li>`,
  )}</ul>
${candidateTable(`Accepted, the first ${Math.min(shownCandidates, accepted.length)} of ${kept}`, accepted, seeds)}
${candidateTable(`Rejected, the first ${Math.min(shownCandidates, refused.length)} of ${candidateCount - kept}`, refused, seeds)}`;
}

function candidateTable(title: string, some: readonly Candidate[], seeds: ReadonlyMap<string, Row | undefined>): Html {
  if (some.length === 0) return html``;
  return html`<details><summary>${title}</summary><div class="scroll"><table><thead><tr><th>it.</th><th>seed row</th><th>student answered</th>
<th>teacher wrote</th><th>label</th><th>checks</th><th>believed</th><th></th></tr></thead><tbody>${some
    .slice(0, shownCandidates)
    .map(
      (
        one,
      ) => html`<tr><td>${one.iteration}</td><td class="text">${textOf(seeds.get(one.seedRowId))}</td><td>${one.wrongAnswer}</td>
<td class="text">${one.rejection === "held_out_overlap" ? saidAgain(one) : rowText(one)}</td><td>${one.output}</td><td>${one.verdicts.map(
        (verdict) =>
          html`<span class="${verdict.answer === one.output ? "yes" : "no"}">${verdict.checker}: ${verdict.answer}</span> `,
      )}</td><td>${one.verdicts.length === 0 ? "" : percent(one.probability)}</td><td>${one.accepted ? "kept" : reasonText(one.rejection)}</td></tr>`,
    )}</tbody></table></div></details>`;
}

/** A reason in words; a code that is not known stays as it is. */
function reasonText(reason: string): string {
  const words: Record<string, string> = {
    accepted: "kept",
    label_doubted: "label doubted",
    near_duplicate: "too near to a kept row",
    held_out_overlap: "says a dev or test row again",
    not_needed: "more than was wanted",
    provider_error: "no reply from the teacher",
    wrong_fields: "fields that do not fit the declared ones",
    wrong_turns: "no conversation that ends with the user",
  };
  return words[reason] ?? reason.replaceAll("_", " ");
}

function costs({ campaign, iterations }: Report): Html {
  const usage = campaign?.usage;
  const known = new Set(iterations.flatMap((one) => Object.keys(one.phaseSeconds)));
  // In the order of the loop; a phase that it does not name comes last.
  const phases = [...new Set([...loopPhases.filter((phase) => known.has(phase)), ...known])];
  const rows = iterations.map(
    (
      one,
    ) => html`<tr><td>${one.number}</td>${phases.map((phase) => html`<td>${duration(one.phaseSeconds[phase] ?? 0)}</td>`)}
<td>${duration(one.seconds)}</td></tr>`,
  );
  return html`<p>${usage?.calls ?? 0} teacher calls (${usage?.reusedCalls ?? 0} replies used again, which had cost ${money(usage?.savedMicroUsd ?? 0)}), ${usage?.promptTokens ?? 0} prompt and
${usage?.completionTokens ?? 0} completion tokens, ${money(usage?.costMicroUsd ?? 0)}; the teacher worked ${duration(
    usage?.teacherSeconds ?? 0,
  )} of ${duration(campaign?.outcome?.wallSeconds ?? 0)}.</p>
${shared(campaign?.forkedFrom)}<div class="scroll"><table><thead><tr><th>iteration</th>${phases.map((phase) => html`<th>${phase.replaceAll("_", "-")}</th>`)}<th>all</th></tr></thead>
<tbody>${rows}</tbody></table></div>`;
}

/** What a fork did not pay for. */
function shared(origin: ForkOrigin | undefined): Html {
  if (origin === undefined) return html``;
  const { campaignId, iteration, sharedUsage, sharedTrainingSeconds } = origin;
  return html`<p>A fork of campaign ${campaignId} at iteration ${iteration}. What came before is shared and was not paid
again: ${sharedUsage?.calls ?? 0} teacher calls, ${sharedUsage?.promptTokens ?? 0} prompt and
${sharedUsage?.completionTokens ?? 0} completion tokens, ${money(sharedUsage?.costMicroUsd ?? 0)}, and
${duration(sharedTrainingSeconds)} of training.</p>
`;
}

function asked({ campaign }: Report): Html {
  const request = campaign?.request;
  const { task, settings } = request ?? {};
  const lines: [string, string][] = [
    ["task", `${task?.name} (${nameOf(TaskKind, task?.kind)})`],
    ["prompt", task?.promptTemplate ?? ""],
    ["labels", (task?.labels ?? []).map(({ name }) => name).join(", ")],
    ["fields", (task?.fields ?? []).map(({ name, optional }) => (optional ? `${name} (optional)` : name)).join(", ")],
    ["student", request?.studentProfile ?? ""],
    ["teacher", request?.teacherProfile ?? ""],
    ["errors found by", nameOf(Mining, settings?.mining)],
    ["selection", nameOf(Selection, settings?.selection)],
    ["label checks", checks(settings)],
    ["iterations", `at most ${settings?.iterations}`],
    ["seed", String(settings?.seed)],
    ["dataset version", request?.datasetVersionId ?? ""],
  ];
  return html`<dl class="asked">${lines
    .filter(([, value]) => value !== "")
    .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function checks(settings: { checkStudents: Switch; checkTeacher: Switch } | undefined): string {
  const on = [
    settings?.checkStudents === Switch.ON ? "cross-fitted students" : "",
    settings?.checkTeacher === Switch.ON ? "the teacher, blind" : "",
  ].filter(Boolean);
  return on.length === 0 ? "none" : on.join(" and ");
}

function usage({ campaign, seedRows }: Report, url: string, wantsToken: boolean): Html {
  const path = `${url}/v1/campaigns/${campaign?.run?.id}`;
  const checkpoint = campaign?.outcome?.final?.checkpoint;
  const talks = seedRows.some(({ row }) => (row?.messages.length ?? 0) > 0);
  const asked = talks ? '{"conversations": [[{"role": "user", "content": "…"}]]}' : '{"inputs": ["…"]}';
  const curl = wantsToken ? 'curl -s -H "authorization: Bearer $TUTELAGE_TOKEN"' : "curl -s";
  return html`<pre>${curl} ${path}/predict -H 'content-type: application/json' -d '${asked}'
${curl} ${path}/model &gt; student.tar</pre>
<p>The archive holds a PEFT adapter for <code>${checkpoint?.model}</code> (weights digest <code>${checkpoint?.modelDigest}</code>), or the whole
model after full fine-tuning. Ask it ${talks ? "through its tokenizer's chat template" : "with the prompt above, exactly"}.</p>`;
}

function textOf(row: Row | undefined): string {
  return row === undefined ? "" : rowText(row);
}

function interval(one: { ci95Low: number; ci95High: number; n: number } | undefined): string {
  return one === undefined ? "" : `${percent(one.ci95Low)} to ${percent(one.ci95High)}, n = ${one.n}`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 90 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${(seconds / 3600).toFixed(1)} h`;
}

function money(microUsd: number): string {
  return microUsd === 0 ? "no cost" : `$${(microUsd / 1_000_000).toFixed(microUsd < 1_000_000 ? 4 : 2)}`;
}

function day(date: Date | undefined): string {
  return date === undefined ? "" : date.toISOString().slice(0, 10);
}

/** The name of an enum's value as JSON has it: Mining.CROSS_FIT is "cross_fit". */
function nameOf(messages: Readonly<Record<string, string>>, value: string | undefined): string {
  return (
    Object.keys(messages)
      .find((name) => messages[name] === value)
      ?.toLowerCase() ?? ""
  );
}
