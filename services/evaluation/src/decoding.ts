/** How answers are produced unless a request says otherwise. */
import { invalidField } from "@tutelage/platform/errors";
import type { Decoding } from "@tutelage/proto/student/v1/student";
import { type Task, TaskKind } from "@tutelage/proto/task/v1/task";

/** Upper bounds of answers, in tokens. A choice is a letter and little more; math reasons first. */
const defaultMaxTokens: Record<TaskKind, number> = {
  [TaskKind.UNSPECIFIED]: 100,
  [TaskKind.CLASSIFICATION]: 16,
  [TaskKind.MULTIPLE_CHOICE]: 8,
  [TaskKind.MATH]: 256,
  [TaskKind.TEXT]: 100,
  [TaskKind.EXTRACTION]: 256,
};
const mostTokens = 32_768;

/**
 * The decoding to use: the request's, else labels are scored for a
 * classification and everything else is generated greedily. Throws
 * invalid_argument that names the field.
 */
export function decodingFor(task: Task, asked: Decoding | undefined): Decoding {
  const decoding = asked ?? {
    scoreLabels: task.kind === TaskKind.CLASSIFICATION,
    temperature: 0,
    topP: 0,
    maxNewTokens: 0,
    stop: [],
    seed: 0,
  };
  if (decoding.scoreLabels && task.labels.length === 0) {
    throw invalidField("decoding.score_labels", "needs labels to score; give task.labels or set it to false.");
  }
  if (!(decoding.temperature >= 0 && decoding.temperature <= 100)) {
    throw invalidField("decoding.temperature", `is ${decoding.temperature}; use 0 (greedy) to 100.`);
  }
  if (!(decoding.topP >= 0 && decoding.topP <= 1)) {
    throw invalidField("decoding.top_p", `is ${decoding.topP}; use 0 to 1.`);
  }
  const maxNewTokens = decoding.maxNewTokens || task.maxAnswerTokens || defaultMaxTokens[task.kind];
  if (!(maxNewTokens >= 1 && maxNewTokens <= mostTokens)) {
    throw invalidField("decoding.max_new_tokens", `is ${maxNewTokens}; use 1 to ${mostTokens}.`);
  }
  if (decoding.stop.includes("")) throw invalidField("decoding.stop", "has an empty string; leave it out.");
  return { ...decoding, maxNewTokens };
}
