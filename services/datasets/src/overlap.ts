/**
 * When a text gives a dev or test row away: the rules, and where they come from. Pure.
 *
 * What is published is meant for web pages against long questions: a shared run
 * of 13 words (GPT-3, arXiv 2005.14165, appendix C, which shortens it to 8 for
 * short rows), 70 % of a row's runs of 8 words (PaLM, arXiv 2204.02311), half of
 * a row's words in shared runs of 8 (Tülu 3, arXiv 2411.15124). Rows here are
 * often shorter than that, and rows of one task share its turns of phrase: "What
 * is the largest city in Texas?" does not give "… in Germany?" away. So long
 * runs are Tülu 3's, short rows count when they are there whole, and what is
 * nearly the same is told by the words that are rare in the task.
 */
import { heldOutText } from "@tutelage/platform/heldouttext";
import { tokenize } from "@tutelage/platform/rouge";

/** Shortest shared run of words that says something: the least of GPT-3, PaLM and Tülu 3. */
export const runWords = 8;
/** A run that more rows hold is a turn of phrase of the task, and says nothing (GPT-3, of training documents). */
export const mostRowsOfRun = 10;
/** Share of a row's words that must stand in such runs (Tülu 3). */
export const leastRunShare = 0.5;
/**
 * A row of fewer words is too short for a part of it to say anything: "How many bakers live near the bridge of …" is the
 * most of many questions. It counts when a text holds it whole, from fewestWholeWords on.
 */
export const longRowWords = 2 * runWords;
export const fewestWholeWords = 5;
/**
 * Least likeness of near duplicates. Of the 4,952 train rows of TREC 12 reach it with one of the 500 dev rows, and 10 of
 * these ask the same by our reading. ROUGE-L F above .8, which was the rule before, finds 26 dev rows, 5 of them rightly:
 * it takes "What is the largest city in Texas ?" for "… in Germany ?".
 */
export const leastLikeness = 0.75;
/** With fewer words the same words say nothing: "bad ." and "is bad" are two reviews. */
export const fewestNearWords = 3;
/** Rows that are thought to be there besides, so that words of a small split do not look common. */
const priorRows = 20;

/** Signs of writing that no two texts differ by, unless a number follows: "8-4" is not "8/4", and -5 not 5. */
const punctuation = /["'`´‘’‚“”„«»]|[.,;:!?…¡¿·()[\]{}‐‑‒–—―。、「」-](?!\s*\p{N})/gu;

/** A text as exact overlaps compare it. */
export function exactText(text: string): string {
  const folded = heldOutText(text);
  return folded.replace(punctuation, " ").replace(/\s+/g, " ").trim() || folded;
}

/** A text's words in order, as overlaps compare them. */
export function wordsOf(text: string): string[] {
  return tokenize(text.normalize("NFKC"));
}

/** What a word weighs: the rarer among the held-out rows, the more. Always above 0. */
export function wordWeight(rowsWithWord: number, rows: number): number {
  return Math.log(1 + (rows + priorRows) / (rowsWithWord + 1));
}

/**
 * How like two texts are by the weight of their words, 0 to 1: Dice's coefficient, but what each has instead of the
 * other's counts twice. One word more or less leaves a question what it was; another city makes it another question.
 */
export function likeness(shared: number, weight: number, otherWeight: number): number {
  const [own, others] = [Math.max(0, weight - shared), Math.max(0, otherWeight - shared)];
  return (2 * shared) / (2 * shared + own + others + 2 * Math.min(own, others));
}

/** What a text must share at least with another one to be near to it. @param weight of the text */
export function leastShared(weight: number): number {
  // The other has no word beside the shared ones.
  return (leastLikeness * weight) / (2 - leastLikeness);
}

/** Whether shared runs give a row away. @param sharedWords words of the row in them */
export function isRunOverlap(sharedWords: number, rowWords: number): boolean {
  if (rowWords < longRowWords) return rowWords >= fewestWholeWords && sharedWords === rowWords;
  return sharedWords >= leastRunShare * rowWords;
}
