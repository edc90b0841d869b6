/** What to try next after a campaign. Pure; the most promising first. */
import type { Iteration, Outcome, Settings } from "@tutelage/proto/campaigns/v1/campaigns";
import { TaskKind } from "@tutelage/proto/task/v1/task";

/** Below this share of accepted candidates the teacher is the bottleneck. */
const poorAcceptedShare = 0.4;
/** Below this share of wrong seed rows an iteration has little left to learn from. */
const fewErrorsShare = 0.1;
/** Accuracies that differ by less count as equal. */
const tied = 0.005;

export function advise(
  outcome: Outcome,
  iterations: readonly Iteration[],
  settings: Pick<Settings, "iterations">,
  kind = TaskKind.CLASSIFICATION,
): string[] {
  const advice: string[] = [];
  const { gain, plainReturned, chosenIteration, stopReason } = outcome;
  const noneAll = outcome.otherArms.find((arm) => arm.name === "none_all")?.testAccuracy;
  const final = outcome.final?.testAccuracy;
  const written = iterations.reduce((sum, one) => sum + one.candidates, 0);
  const accepted = iterations.reduce((sum, one) => sum + one.accepted, 0);
  const first = iterations[0];

  if (gain === undefined) {
    advice.push(
      'Import labelled rows with split "test" and run again: without them nobody can say how good the student is.',
    );
  } else if (gain.ci95Low <= 0 && gain.ci95High >= 0) {
    const half = (gain.ci95High - gain.ci95Low) / 2;
    advice.push(
      `The gain is not told from zero on ${gain.n} test rows (95 % interval ±${points(half)} points). Four times as many ` +
        `halve that; running the campaign again with other values of seed tells how much is chance.`,
    );
  }
  if (noneAll !== undefined && final !== undefined && noneAll.value > final.value + tied) {
    advice.push(
      `Plain fine-tuning on seed and dev rows together does better (${percent(noneAll.value)} against ${percent(final.value)} on ` +
        `test rows): give the dev rows split "train" and let cross-fitting choose the iteration.`,
    );
  }
  if (written > 0 && accepted / written < poorAcceptedShare) {
    const [reason, count] = commonest(iterations);
    advice.push(
      `Only ${accepted} of ${written} candidates became rows (most often: ${reason}, ${count}). ${describe(kind)}, or ` +
        `name a stronger teacher.`,
    );
  }
  if (plainReturned) {
    advice.push(
      "No iteration beat plain fine-tuning on dev rows. Look at the accepted candidates below: if their labels are wrong, " +
        "raise accept_probability or take a stronger teacher; if they repeat the seed rows, give more varied seed rows.",
    );
  } else if (stopReason === "iterations" && chosenIteration === settings.iterations) {
    advice.push(
      `The last iteration is the best one so far: raise iterations above ${settings.iterations}, the next may be better still.`,
    );
  }
  if (stopReason === "budget") advice.push("The campaign met its cap on teacher calls or money: raise it to go on.");
  if (first !== undefined && first.trainRows > 0 && first.errors / first.trainRows < fewErrorsShare) {
    advice.push(
      "The student gets nearly all seed rows right: add seed rows of the kind that it fails on in use, there is little else " +
        "to learn from.",
    );
  }
  return advice;
}

function describe(kind: TaskKind): string {
  if (kind === TaskKind.CLASSIFICATION) return "Describe the labels more plainly in task.labels";
  if (kind === TaskKind.EXTRACTION) return "Describe the fields more plainly in task.fields";
  return "Say more of what rows and answers are like in task.teacher_instructions";
}

function commonest(iterations: readonly Iteration[]): [string, number] {
  const counts = new Map<string, number>();
  for (const { rejected } of iterations) {
    for (const [reason, count] of Object.entries(rejected)) counts.set(reason, (counts.get(reason) ?? 0) + count);
  }
  return [...counts].sort((a, b) => b[1] - a[1])[0] ?? ["", 0];
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function points(share: number): string {
  return (share * 100).toFixed(1);
}
