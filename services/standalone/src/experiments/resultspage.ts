/** docs/results.md: the summary as a page. Pure. */

import type { Estimate } from "@tutelage/platform/bootstrap";
import { signedPoints } from "@tutelage/platform/signedpoints";
import { defaultVariant } from "./experimentfile.js";
import type { CampaignSummary, GainSummary, TaskSummary } from "./summary.js";

/** Below this, after Holm's correction, a difference counts as shown. */
const level = 0.05;
/** With fewer replicates a bootstrap over them says too little of how they vary. */
const fewReplicates = 6;
const barWidth = 40;

/** @param notes what a person wrote about a task, by its name */
export function resultsPage(tasks: Record<string, TaskSummary>, notes: Record<string, string> = {}): string {
  const names = Object.keys(tasks);
  const parts =
    names.length === 0
      ? ["There are no results yet."]
      : names.map((name) => taskPart(name, tasks[name] as TaskSummary, notes[name]));
  return `${[head, ...parts].join("\n\n")}\n`;
}

const head = `# Results

Made by \`npm run experiment -- summary\` from the files below \`experiments/results\`, and from nothing else: do not edit it.
What ran is in \`experiments/*.yaml\`; \`npm run experiment -- NAME\` runs it again.

- A *replicate* draws other seed rows and has another training seed. All replicates of a task are tested on the same rows.
- *default* is the student that a campaign with the default settings returns; *none* is plain fine-tuning (the mean of its
  tries where nothing chooses among them; the very same student where the campaign gives it back).
- Intervals are 95 %, by a bootstrap over replicates and test rows. Differences are paired: both sides on the same replicates
  and rows. With fewer than ${fewReplicates} replicates they are too narrow, as so few say little of how others would vary.
- *p* is two-sided, of the same bootstrap; *Holm* is p after Holm's correction over the task's comparisons. *McNemar* counts the
  replicates in which the test within the replicate alone is below 0.05, before any correction.
- *Smallest to be seen* is the true difference that such a test finds with 80 % probability.`;

function taskPart(name: string, task: TaskSummary, note: string | undefined): string {
  const main = task.campaigns[defaultVariant];
  const n = Object.values(task.arms)[0]?.n ?? 0;
  const tuned = task.tuned ? " Tested on rows of train.jsonl, to choose settings: no evidence." : "";
  const parts = [
    `## ${name}\n\n${task.seed_rows} seed rows, ${n} test rows, ${main?.replicates ?? 0} replicates.${tuned}`,
    words(task).join("\n"),
    `### Arms\n\n${armTable(task)}`,
    ...(task.gains.length === 0 ? [] : [`### ${defaultVariant} against each of them\n\n${gainTable(task.gains)}`]),
    `### What it took\n\n${costTable(task)}`,
    `### Iteration by iteration\n\n${curves(task.campaigns)}`,
    ...(note === undefined ? [] : [`### Notes\n\n${note.trim()}`]),
  ];
  return parts.join("\n\n");
}

/** What the numbers show and what they do not, a line each. */
function words(task: TaskSummary): string[] {
  const { gains, share_of_oracle_gain: share, left_out } = task;
  const shown = gains.filter(({ holm_p }) => holm_p < level);
  const better = shown.filter(({ mean }) => mean > 0);
  const worse = shown.filter(({ mean }) => mean <= 0);
  const open = gains.filter(({ holm_p }) => holm_p >= level);
  const list = (some: readonly GainSummary[]) =>
    some.map((one) => `${one.against} (${withInterval(one, signedPoints)})`).join(", ");
  const lines: string[] = [];
  if (gains.length === 0) lines.push(`There is nothing that ${defaultVariant} could be compared with.`);
  if (better.length > 0) lines.push(`Shown: ${defaultVariant} is better than ${list(better)}.`);
  if (worse.length > 0) lines.push(`**Falls short**, shown: ${defaultVariant} is worse than ${list(worse)}.`);
  if (open.length > 0) lines.push(`Not shown: a difference to ${list(open)}.`);
  const unsure = open.filter(({ against }) => ["none", "none_matched", "random"].includes(against));
  for (const { against, detectable } of unsure) {
    lines.push(
      `**Falls short**: no gain over ${against} is shown. A true one of ${points(detectable)} points would have been found in four of five such experiments.`,
    );
  }
  if (share !== null)
    lines.push(
      `Of the gain that real rows of the same number bring (oracle), it reaches ${withInterval(share, ratio)}.`,
    );
  else if (task.arms.oracle !== undefined)
    lines.push("The oracle's own gain is not told from 0, so no share of it is given.");
  const plain = task.campaigns[defaultVariant]?.plain_returned ?? 0;
  if (plain > 0)
    lines.push(
      `In ${plain} of ${task.campaigns[defaultVariant]?.replicates} campaigns the plain student was given back.`,
    );
  for (const [arm, reasons] of Object.entries(left_out))
    lines.push(`${arm} was not measured in some campaigns: ${reasons.join(" ")}`);
  if ((task.campaigns[defaultVariant]?.replicates ?? 0) < fewReplicates) {
    lines.push(`There are fewer than ${fewReplicates} replicates: read the intervals as too narrow.`);
  }
  return lines.map((line) => `- ${line}`);
}

function armTable({ arms }: TaskSummary): string {
  const rows = Object.entries(arms).map(([name, arm]) => [
    name,
    withInterval(arm, percent),
    arm.gain_over_none === null ? "–" : withInterval(arm.gain_over_none, signedPoints),
    String(arm.replicates),
    arm.train_rows.toFixed(0),
    arm.steps.toFixed(0),
  ]);
  return table(["arm", "accuracy (%)", "points over none", "replicates", "rows", "steps"], rows);
}

function gainTable(gains: readonly GainSummary[]): string {
  const rows = gains.map((one) => [
    one.against,
    withInterval(one, signedPoints),
    one.by_replicate.map(signedPoints).join(" "),
    shownP(one.p),
    shownP(one.holm_p),
    `${one.mcnemar_p.filter((p) => p < level).length} of ${one.replicates}`,
    points(one.detectable),
  ]);
  return table(["against", "points", "by replicate", "p", "Holm", "McNemar", "smallest to be seen"], rows);
}

/** What each variant's campaigns took, and per point over plain fine-tuning where they gained one. */
function costTable({ campaigns, arms }: TaskSummary): string {
  const rows = Object.entries(campaigns).map(([name, one]) => {
    const gained = (arms[name]?.gain_over_none?.mean ?? 0) * 100;
    const perPoint = (amount: number, digits: number) => (gained > 0 ? (amount / gained).toFixed(digits) : "–");
    return [
      name,
      one.rows_added.toFixed(0),
      one.teacher_calls.toFixed(0),
      perPoint(one.teacher_calls, 0),
      (one.wall_seconds / 60).toFixed(1),
      perPoint(one.wall_seconds / 60, 1),
      `$${(one.cost_micro_usd / 1_000_000).toFixed(4)}`,
      `${one.plain_returned} of ${one.replicates}`,
    ];
  });
  const header = [
    "campaign",
    "rows added",
    "teacher calls",
    "calls a point",
    "minutes",
    "minutes a point",
    "teacher's price",
    "plain returned",
  ];
  return `${table(header, rows)}\n\nMeans over replicates; a point is one of the gain over none. Minutes leave out test evaluation and arms.`;
}

/** Accuracy on the rows that choose (dev, or seed rows by students that had not seen them), as bars. */
function curves(campaigns: Record<string, CampaignSummary>): string {
  const lines = Object.entries(campaigns).flatMap(([name, { iterations }]) =>
    iterations.map(({ number, accuracy, train_rows, errors }, index) => {
      const label = `${(index === 0 ? name : "").padEnd(20)} ${number}`;
      const bar = accuracy === null ? "" : "█".repeat(Math.round(accuracy * barWidth));
      const told = accuracy === null ? "not judged" : percent(accuracy);
      return `${label}  ${bar.padEnd(barWidth)} ${told.padStart(6)}  ${train_rows.toFixed(0).padStart(4)} rows, ${errors.toFixed(0)} errors`;
    }),
  );
  return `Accuracy (%) on dev rows, or without them on seed rows that the students had not seen.\n\n\`\`\`\n${lines.join("\n")}\n\`\`\``;
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(header), `|${header.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

function withInterval({ mean, ci95: [low, high] }: Estimate, show: (value: number) => string): string {
  return `${show(mean)} (${show(low)} to ${show(high)})`;
}

const percent = (share: number) => (share * 100).toFixed(1);
const points = percent;
const ratio = (share: number) => share.toFixed(2);
const shownP = (p: number) => (p < 0.001 ? "<0.001" : p.toFixed(3));
