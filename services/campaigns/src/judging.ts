/** Judging: whether a candidate's label is to be believed, and which candidates become rows. */
import type { Candidate, Settings, Verdict } from "@tutelage/proto/campaigns/v1/campaigns";
import type { LabelScore } from "@tutelage/proto/student/v1/student";

/** A checker's answer to one row. */
export interface Opinion {
  rowId: string;
  answer: string;
  /** Natural logarithm of every label's probability; empty where the checker only answers. */
  scores: { label: string; logProbability: number }[];
}

/** A checker's record on the gold seed rows, by label. */
export interface Reliability {
  /** Share of rows with this label to which it gives this label (smoothed). */
  hit: Map<string, number>;
  /** Share of rows with other labels to which it gives this label (smoothed). */
  falseAlarm: Map<string, number>;
}

/**
 * Belief that the teacher's label is right before anything is checked: about
 * the share of unchecked candidates of the embedded teacher that are.
 */
const priorLabelRight = 0.6;
/** Weight, in rows, of the checker's overall record when a label has few gold rows of its own. */
const smoothingRows = 4;

/**
 * Takes out what a checker says whatever it is shown: from each label's score
 * its mean over rows whose label is known is subtracted, every label of those
 * rows counting the same. A base model that is shown examples has favourite
 * labels; without this the embedded teacher named the right one of TREC's six
 * for .56 of 36 gold rows, with it for .75. (The idea of batch calibration,
 * Zhou et al. 2023, arXiv 2309.17249, on gold rows.) A row that is itself
 * among the known ones is left out of its own mean. Opinions without scores
 * stay as they are.
 */
export function calibrate(
  opinions: readonly Opinion[],
  known: readonly Opinion[],
  gold: readonly { id: string; output: string }[],
): Opinion[] {
  const outputOf = new Map(gold.map((row) => [row.id, row.output]));
  const scored = known.filter((opinion) => opinion.scores.length > 0 && outputOf.has(opinion.rowId));
  const outputs = [...new Set(scored.map((opinion) => outputOf.get(opinion.rowId)))];
  return opinions.map((opinion) => {
    if (opinion.scores.length === 0) return opinion;
    const groups = outputs
      .map((output) => scored.filter((one) => outputOf.get(one.rowId) === output && one.rowId !== opinion.rowId))
      .filter((group) => group.length > 0);
    if (groups.length === 0) return opinion;
    const shifted = opinion.scores.map((score, index) => ({
      label: score.label,
      logProbability:
        score.logProbability -
        average(groups.map((group) => average(group.map((one) => one.scores[index]?.logProbability ?? 0)))),
    }));
    const max = Math.max(...shifted.map((score) => score.logProbability));
    const total = max + Math.log(shifted.reduce((sum, score) => sum + Math.exp(score.logProbability - max), 0));
    const scores = shifted.map((score) => ({ ...score, logProbability: score.logProbability - total }));
    return { rowId: opinion.rowId, answer: likeliest(scores), scores };
  });
}

function average(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** The label with the greatest score, the first of equals. */
function likeliest(scores: Opinion["scores"]): string {
  return scores.reduce((a, b) => (b.logProbability > a.logProbability ? b : a), {
    label: "",
    logProbability: Number.NEGATIVE_INFINITY,
  }).label;
}

/** Measures a checker on rows whose label is known. Pure; rows without an opinion are left out. */
export function measureReliability(
  gold: readonly { id: string; output: string }[],
  opinions: readonly Opinion[],
  labels: readonly string[],
): Reliability {
  const answers = new Map(opinions.map((opinion) => [opinion.rowId, opinion.answer]));
  const judged = gold.flatMap((row) => {
    const answer = answers.get(row.id);
    return answer === undefined ? [] : [{ label: row.output, answer }];
  });
  const overallHit = share(judged.filter((one) => one.answer === one.label).length, judged.length, 0.5, 2);
  // A wrong answer falls on one of the other labels.
  const overallFalseAlarm = (1 - overallHit) / Math.max(1, labels.length - 1);
  const hit = new Map<string, number>();
  const falseAlarm = new Map<string, number>();
  for (const label of labels) {
    const own = judged.filter((one) => one.label === label);
    const others = judged.filter((one) => one.label !== label);
    hit.set(label, share(own.filter((one) => one.answer === label).length, own.length, overallHit, smoothingRows));
    falseAlarm.set(
      label,
      share(others.filter((one) => one.answer === label).length, others.length, overallFalseAlarm, smoothingRows),
    );
  }
  return { hit, falseAlarm };
}

/** Share of successes, drawn towards `towards` with the weight of `weight` rows. */
function share(successes: number, n: number, towards: number, weight: number): number {
  return (successes + towards * weight) / (n + weight);
}

/** What a checker says about a candidate's label, and what that is worth. */
export function verdictOf(checker: string, label: string, opinion: Opinion, reliability: Reliability): Verdict {
  const scored = opinion.scores.find((score) => score.label === label);
  return {
    checker,
    answer: opinion.answer,
    labelProbability: scored === undefined ? Number(opinion.answer === label) : Math.exp(scored.logProbability),
    reliability: reliability.hit.get(label) ?? 0,
  };
}

/**
 * Probability that a candidate's label is right given the checks: naive Bayes
 * over agree and disagree, each weighed by the probability that the checker
 * gives to the label. A checker that answers at random moves nothing; one that
 * is always right decides; one that wavers moves little. On TREC (5 draws, 237
 * candidates each) the 140 likeliest by this are right for .89, by agree and
 * disagree alone for .87.
 */
export function labelProbability(
  label: string,
  checks: readonly { verdict: Verdict; reliability: Reliability }[],
): number {
  let logOdds = Math.log(priorLabelRight / (1 - priorLabelRight));
  for (const { verdict, reliability } of checks) {
    const hit = reliability.hit.get(label) ?? 0.5;
    const falseAlarm = reliability.falseAlarm.get(label) ?? 0.5;
    const agreement = verdict.labelProbability;
    logOdds += agreement * Math.log(hit / falseAlarm) + (1 - agreement) * Math.log((1 - hit) / (1 - falseAlarm));
  }
  return 1 / (1 + Math.exp(-logOdds));
}

/**
 * Whether one more check could change what becomes of a candidate: not where even its best word could not bring the
 * label to the threshold, nor where its worst could not bring it below, unless candidates of that label compete.
 */
export function couldChange(
  label: string,
  checks: Parameters<typeof labelProbability>[1],
  next: Reliability,
  threshold: number,
  competes: boolean,
): boolean {
  const [worst, best] = [0, 1]
    .map((probability) => {
      const verdict = { checker: "", answer: "", labelProbability: probability, reliability: 0 };
      return labelProbability(label, [...checks, { verdict, reliability: next }]);
    })
    .sort((a, b) => a - b) as [number, number];
  return best >= threshold && (competes || worst < threshold);
}

/** The students as one checker: the mean of their label distributions. Labels in the order of the first. */
export function ensembleOpinion(rowId: string, scoresByStudent: readonly (readonly LabelScore[])[]): Opinion {
  const labels = scoresByStudent[0]?.map((score) => score.label) ?? [];
  const scores = labels.map((label) => {
    const probabilities = scoresByStudent.map((scores) =>
      Math.exp(scores.find((one) => one.label === label)?.logProbability ?? -Infinity),
    );
    return { label, logProbability: Math.log(probabilities.reduce((a, b) => a + b, 0) / probabilities.length) };
  });
  return { rowId, answer: likeliest(scores), scores };
}

/**
 * Decides over candidates that passed format and novelty, in their order:
 * accepted when the probability reaches the threshold and the label's share of
 * the wanted rows is not yet filled by likelier ones.
 * @param wantedByOutput rows wanted for each output; an output that is not in it has no limit
 */
export function decide(
  candidates: readonly Candidate[],
  settings: Settings,
  wantedByOutput: ReadonlyMap<string, number>,
): Candidate[] {
  const believed = candidates.filter((one) => one.rejection === "" && one.probability >= settings.acceptProbability);
  const ranked = [...believed].sort((a, b) => b.probability - a.probability || a.number - b.number);
  const taken = new Map<string, number>();
  const accepted = new Set<number>();
  for (const candidate of ranked) {
    const count = taken.get(candidate.output) ?? 0;
    if (count >= (wantedByOutput.get(candidate.output) ?? Number.POSITIVE_INFINITY)) continue;
    taken.set(candidate.output, count + 1);
    accepted.add(candidate.number);
  }
  return candidates.map((candidate) => {
    if (candidate.rejection !== "") return candidate;
    if (accepted.has(candidate.number)) return { ...candidate, accepted: true };
    const rejection = candidate.probability < settings.acceptProbability ? "label_doubted" : "not_needed";
    return { ...candidate, rejection };
  });
}
