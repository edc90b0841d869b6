/** The seed audit: which seed rows probably have a wrong label. Pure. */
import type { ReviewOpinion } from "@tutelage/proto/campaigns/v1/campaigns";
import type { GradedPrediction } from "@tutelage/proto/evaluation/v1/evaluation";
import type { Opinion, Reliability } from "./judging.js";

/** A row that the students contradict. */
export interface Suspect {
  rowId: string;
  /** The label that it has, and the one that the students are confident of instead. */
  output: string;
  answer: string;
  probability: number;
  outputProbability: number;
}

/** A row that the teacher contradicts, too. */
export interface Doubt {
  rowId: string;
  proposedOutput: string;
  students: ReviewOpinion;
  teacher: ReviewOpinion;
}

/**
 * The teacher's word counts where it gives a label to rows that have it at least this many times as often as to
 * others. One that answers at random has 1, the embedded teacher on TREC's six labels about 15.
 */
const leastWeight = 3;

/** Labels with the probabilities that a student gives them; who only answers gives nothing to any other label. */
function probabilities({ labelScores, answer, logProbability }: GradedPrediction): Map<string, number> {
  if (labelScores.length > 0) return new Map(labelScores.map((one) => [one.label, Math.exp(one.logProbability)]));
  return new Map([[answer, Math.exp(logProbability)]]);
}

/**
 * The rows that students contradict with confidence: the off-diagonal of the
 * confident joint of Northcutt, Jiang & Chuang 2021 (Confident Learning, JAIR
 * 70, 1373-1411, eq. 1). A label's threshold is the mean probability that it
 * gets on the rows that have it, so that a label of which students are never
 * sure needs less to be believed than one of which they always are. A row
 * counts for the likeliest of the labels that reach their thresholds.
 * @param predictions of students that had not seen the rows; other rows are left out
 */
export function suspects(
  rows: readonly { id: string; output: string }[],
  predictions: readonly GradedPrediction[],
): Suspect[] {
  const byId = new Map(predictions.filter((one) => !one.tooLong).map((one) => [one.rowId, probabilities(one)]));
  const judged = rows.flatMap(({ id, output }) => {
    const given = byId.get(id);
    return given === undefined ? [] : [{ rowId: id, output, given }];
  });
  const thresholds = new Map<string, number>();
  for (const label of new Set(judged.map(({ output }) => output))) {
    const own = judged.filter(({ output }) => output === label).map(({ given }) => given.get(label) ?? 0);
    thresholds.set(label, own.reduce((a, b) => a + b, 0) / own.length);
  }
  return judged.flatMap(({ rowId, output, given }) => {
    let answer = output;
    let probability = Number.NEGATIVE_INFINITY;
    for (const [label, threshold] of thresholds) {
      const own = given.get(label) ?? 0;
      if (own < threshold || own <= probability) continue;
      answer = label;
      probability = own;
    }
    if (answer === output) return [];
    return [{ rowId, output, answer, probability, outputProbability: given.get(output) ?? 0 }];
  });
}

/** The suspects whom the teacher, blind to the label, gives the same other label, where its word is worth something. */
export function doubts(
  suspected: readonly Suspect[],
  opinions: readonly Opinion[],
  students: Reliability,
  teacher: Reliability,
): Doubt[] {
  const opinionOf = new Map(opinions.map((opinion) => [opinion.rowId, opinion]));
  return suspected.flatMap(({ rowId, output, answer, probability, outputProbability }) => {
    const opinion = opinionOf.get(rowId);
    if (opinion?.answer !== answer) return [];
    const record = recordOf(teacher, answer);
    if (record.hitRate < leastWeight * record.falseAlarmRate) return [];
    const scoreOf = (label: string) => {
      const scored = opinion.scores.find((score) => score.label === label);
      return scored && Math.exp(scored.logProbability);
    };
    return [
      {
        rowId,
        proposedOutput: answer,
        students: { answer, probability, outputProbability, ...recordOf(students, answer) },
        teacher: { answer, probability: scoreOf(answer), outputProbability: scoreOf(output), ...record },
      },
    ];
  });
}

function recordOf({ hit, falseAlarm }: Reliability, label: string): { hitRate: number; falseAlarmRate: number } {
  return { hitRate: hit.get(label) ?? 0, falseAlarmRate: falseAlarm.get(label) ?? 1 };
}
