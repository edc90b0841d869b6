/**
 * Easy data augmentation (Wei and Zou 2019): texts that differ from a given one by a synonym replaced, a synonym
 * inserted, two words swapped or words deleted.
 */
import { isStopWord } from "./stopwords.js";
import type { Synonyms } from "./wordnet.js";

/** The share of a text's words that an operation changes. */
export const alpha = 0.1;
/** Tries before the next operation has a text's turn: of seven words none is deleted in every second try. */
const triesPerOperation = 4;

/** A word and all that stands between it and the next one, or the end. */
export interface Word {
  text: string;
  after: string;
}

/** A text cut at its words; `before` stands before the first. */
export interface Words {
  before: string;
  words: readonly Word[];
}

/** Makes other words of some; pure but for what it draws from `random`, whose numbers are from 0 to below 1. */
export type Operation = (words: readonly Word[], random: () => number, synonyms: Synonyms) => readonly Word[];

/**
 * At most `count` texts, all different and none the given one, made by the four operations in turn.
 *
 * Fewer where the text has little to change: a single word without synonyms gives none.
 */
export function edaTexts(text: string, count: number, random: () => number, synonyms: Synonyms): string[] {
  const { before, words } = wordsOf(text);
  const capital = startsWithCapital(words[0]?.text ?? "");
  const plain = words.map((word, index) => (index === 0 ? { ...word, text: lowered(word.text) } : word));
  const order = shuffledBy(random, [replaceBySynonyms, insertSynonyms, swapWords, deleteWords]);
  const known = new Set([text]);
  for (let made = 0; made < count && words.length > 0; made += 1) {
    for (let attempt = 0; attempt < triesPerOperation * order.length; attempt += 1) {
      const operation = order[(made + Math.floor(attempt / triesPerOperation)) % order.length] as Operation;
      const [first, ...rest] = operation(plain, random, synonyms) as [Word, ...Word[]];
      const result = textOf({
        before,
        words: [{ ...first, text: capital ? raised(first.text) : first.text }, ...rest],
      });
      if (known.has(result)) continue;
      known.add(result);
      break;
    }
  }
  known.delete(text);
  return [...known];
}

/** Words are runs of letters and digits, with single apostrophes, points, hyphens or underscores within. */
export function wordsOf(text: string): Words {
  const found = [...text.matchAll(/[\p{L}\p{M}\p{N}]+(?:['’._-][\p{L}\p{M}\p{N}]+)*/gu)];
  const words = found.map((match, index) => ({
    text: match[0],
    after: text.slice(match.index + match[0].length, found[index + 1]?.index ?? text.length),
  }));
  return { before: text.slice(0, found[0]?.index ?? text.length), words };
}

/** The text that `wordsOf` would cut so. */
export function textOf({ before, words }: Words): string {
  return before + words.map((word) => word.text + word.after).join("");
}

/** Puts a synonym in the place of `changes` words that are no stop words, or as many as have one. */
export const replaceBySynonyms: Operation = (words, random, synonyms) => {
  const result = [...words];
  for (const [place, choices] of withSynonyms(words, random, synonyms)) {
    const { text, after } = words[place] as Word;
    const synonym = drawn(choices, random);
    result[place] = { text: startsWithCapital(text) ? raised(synonym) : synonym, after };
  }
  return result;
};

/** Puts `changes` synonyms of words that are no stop words before words at random. */
export const insertSynonyms: Operation = (words, random, synonyms) => {
  const sources = [...withSynonyms(words, random, synonyms)];
  if (sources.length === 0) return words;
  const inserted = new Map<number, Word[]>();
  for (let index = 0; index < changes(words); index += 1) {
    // A text with fewer such words than changes gives more than one synonym of some.
    const [, choices] = sources[index] ?? drawn(sources, random);
    const place = below(words.length, random);
    inserted.set(place, [...(inserted.get(place) ?? []), { text: drawn(choices, random), after: " " }]);
  }
  return words.flatMap((word, place) => [...(inserted.get(place) ?? []), word]);
};

/** Exchanges two words `changes` times; what stands between words stays where it is. */
export const swapWords: Operation = (words, random) => {
  const texts = words.map(({ text }) => text);
  for (let swaps = words.length < 2 ? 0 : changes(words); swaps > 0; swaps -= 1) {
    const one = below(texts.length, random);
    const other = (one + 1 + below(texts.length - 1, random)) % texts.length;
    [texts[one], texts[other]] = [texts[other] as string, texts[one] as string];
  }
  return words.map(({ after }, place) => ({ text: texts[place] as string, after }));
};

/** Leaves out each word with probability alpha, but one stays; what ends the text stays too. */
export const deleteWords: Operation = (words, random) => {
  const kept = words.filter(() => random() >= alpha);
  const last = kept.pop() ?? words[below(words.length, random)];
  return last === undefined ? [] : [...kept, { text: last.text, after: words.at(-1)?.after ?? "" }];
};

/** How many words of a text an operation changes. */
export function changes(words: readonly Word[]): number {
  return Math.max(1, Math.floor(alpha * words.length));
}

/** Places of `changes` words at random that are no stop words and have synonyms, with these; fewer where there are. */
function withSynonyms(
  words: readonly Word[],
  random: () => number,
  synonyms: Synonyms,
): Map<number, readonly string[]> {
  const found = new Map<number, readonly string[]>();
  for (const place of shuffledBy(random, [...words.keys()])) {
    if (found.size === changes(words)) break;
    const word = (words[place] as Word).text.toLowerCase().replaceAll("’", "'");
    const choices = isStopWord(word) ? [] : synonyms(word);
    if (choices.length > 0) found.set(place, choices);
  }
  return found;
}

function below(limit: number, random: () => number): number {
  return Math.floor(random() * limit);
}

function drawn<Item>(items: readonly Item[], random: () => number): Item {
  return items[below(items.length, random)] as Item;
}

/** Fisher and Yates's shuffle. */
function shuffledBy<Item>(random: () => number, items: readonly Item[]): Item[] {
  const result = [...items];
  for (let left = result.length; left > 1; left -= 1) {
    const place = below(left, random);
    [result[left - 1], result[place]] = [result[place] as Item, result[left - 1] as Item];
  }
  return result;
}

function startsWithCapital(text: string): boolean {
  return /^\p{Lu}/u.test(text);
}

function raised(text: string): string {
  return text.replace(/^\p{Ll}/u, (letter) => letter.toUpperCase());
}

/** Without the capital that only its place at the start gave it: not "I", not "NASA". */
function lowered(text: string): string {
  return /^(I\b|\p{Lu}\p{Lu})/u.test(text) ? text : text.replace(/^\p{Lu}/u, (letter) => letter.toLowerCase());
}
