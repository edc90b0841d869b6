/** Graders: pure functions that read an answer from a text and compare it with the expected output. */
import { Grader, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { readChoiceLetter } from "./choice.js";
import { readFinalNumber } from "./number.js";

export interface Grading {
  /** The answer that a text gives; undefined when there is none. */
  read(text: string, task: Task): string | undefined;
  /** Whether two answers, both from `read`, are the same. */
  equal(answer: string, expected: string): boolean;
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
  [Grader.FINAL_NUMBER]: { read: readFinalNumber, equal: same },
};

const graderOfKind = {
  [TaskKind.CLASSIFICATION]: Grader.LABEL,
  [TaskKind.MULTIPLE_CHOICE]: Grader.CHOICE_LETTER,
  [TaskKind.MATH]: Grader.FINAL_NUMBER,
  [TaskKind.TEXT]: Grader.NORMALIZED_TEXT,
  [TaskKind.UNSPECIFIED]: Grader.EXACT,
} as const;

/** The task's grader, or its kind's. */
export function gradingOf(task: Task): Grading {
  return graders[task.grader === Grader.UNSPECIFIED ? graderOfKind[task.kind] : task.grader];
}

/**
 * Text as it is compared: Unicode NFKC, case folded, without punctuation,
 * English articles and repeated white space (the order of SQuAD's evaluation
 * script, Rajpurkar et al. 2016). A text of nothing but articles keeps them.
 */
export function normalizedText(text: string): string {
  const folded = caseFolded(text.normalize("NFKC")).replace(/\p{P}/gu, "");
  const withoutArticles = folded.replace(/(?<![\p{L}\p{N}])(?:a|an|the)(?![\p{L}\p{N}])/gu, " ");
  const words = (spaced: string) => spaced.trim().replace(/\s+/gu, " ");
  return words(withoutArticles) || words(folded);
}

/** Through upper case, so that "ß" and "ss" are one, and both sigmas. */
function caseFolded(text: string): string {
  return text.toUpperCase().toLowerCase();
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
