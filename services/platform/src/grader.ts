/** Graders: pure functions that read an answer from a text and compare it with the expected output. */

import { Grader, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { readChoiceLetter } from "./choiceletter.js";
import { readFinalNumber, readLastNumber } from "./finalnumber.js";
import { gradeFields, readObject } from "./jsonfields.js";
import { caseFolded, normalizedText } from "./normalizedtext.js";
import { rougeL } from "./rouge.js";
import { defaultRougeLThreshold } from "./task.js";

export interface Grading {
  /** The answer that a text gives; undefined when there is none. */
  read(text: string, task: Task): string | undefined;
  /** Another way to read a text, where there is one that is no less right; what the two disagree about is a dispute. */
  readLeniently?(text: string, task: Task): string | undefined;
  /** Whether two answers, both read, are the same. */
  equal(answer: string, expected: string, task: Task): boolean;
}

const same = (answer: string, expected: string) => answer === expected;

/** The registry: one entry a grader of task.proto. */
export const graders: Readonly<Record<Exclude<Grader, Grader.UNSPECIFIED>, Grading>> = {
  [Grader.EXACT]: { read: (text) => text, equal: same },
  [Grader.NORMALIZED_TEXT]: {
    read: (text) => (normalizedText(text) === "" ? undefined : text.trim()),
    equal: (answer, expected) => normalizedText(answer) === normalizedText(expected),
  },
  [Grader.LABEL]: { read: readLabel, equal: same },
  [Grader.CHOICE_LETTER]: { read: readChoiceLetter, equal: same },
  [Grader.FINAL_NUMBER]: { read: readFinalNumber, readLeniently: readLastNumber, equal: same },
  [Grader.JSON_FIELDS]: {
    read: readObject,
    equal: (answer, expected, { fields }) => gradeFields(answer, expected, fields).every(({ right }) => right),
  },
  [Grader.ROUGE_L]: {
    read: (text) => (text.trim() === "" ? undefined : text.trim()),
    equal: (answer, expected, { rougeLThreshold }) =>
      rougeL(answer, expected) >= (rougeLThreshold || defaultRougeLThreshold),
  },
};

const graderOfKind = {
  [TaskKind.CLASSIFICATION]: Grader.LABEL,
  [TaskKind.MULTIPLE_CHOICE]: Grader.CHOICE_LETTER,
  [TaskKind.MATH]: Grader.FINAL_NUMBER,
  [TaskKind.TEXT]: Grader.NORMALIZED_TEXT,
  [TaskKind.EXTRACTION]: Grader.JSON_FIELDS,
  [TaskKind.UNSPECIFIED]: Grader.EXACT,
} as const;

/** The task's grader, or its kind's. */
export function gradingOf(task: Task): Grading {
  return graders[task.grader === Grader.UNSPECIFIED ? graderOfKind[task.kind] : task.grader];
}

/** The label that a text names, as the task spells it: the whole text, or its first line. */
function readLabel(text: string, task: Task): string | undefined {
  const labels = task.labels.map(({ name }) => name);
  const trimmed = text.trim();
  const firstLine = trimmed.split("\n", 1)[0] ?? "";
  for (const candidate of [trimmed, firstLine]) {
    if (labels.includes(candidate)) return candidate;
    // Labels may end in punctuation themselves ("C++", "yes!"), so that is stripped only when needed.
    for (const fold of [foldedLabel, barestLabel]) {
      const matches = labels.filter((label) => fold(label) === fold(candidate));
      if (matches.length === 1) return matches[0];
    }
  }
  // A label grader without a label set compares whatever stands there.
  return labels.length === 0 && trimmed !== "" ? barestLabel(trimmed) : undefined;
}

function foldedLabel(text: string): string {
  return caseFolded(text.normalize("NFKC")).trim().replace(/\s+/gu, " ");
}

function barestLabel(text: string): string {
  return foldedLabel(text).replace(/^["'“‘*`]+|["'”’*`.,;:!?\s]+$/gu, "");
}
