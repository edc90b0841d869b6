import { expect, test } from "vitest";
import {
  alpha,
  changes,
  deleteWords,
  edaTexts,
  insertSynonyms,
  replaceBySynonyms,
  swapWords,
  textOf,
  type Word,
  wordsOf,
} from "./eda.js";
import { randomStream } from "./random.js";
import { isStopWord } from "./stopwords.js";
import { type Synonyms, wordNet } from "./wordnet.js";

const vocabulary =
  "the a of what is who large small dog river car begin buy quickly city doctor's Paris well-known über 3.5 naïve war";
const separators = [" ", " ", " ", ", ", " — ", "  ", ' "', "\n"];

/** A text of 1 to 60 words at random, with punctuation. */
function anyText(seed: number): string {
  const random = randomStream("text", seed);
  const draw = (items: readonly string[]) => items[Math.floor(random() * items.length)] as string;
  const words = Array.from({ length: 1 + Math.floor(random() * 60) }, () => draw(vocabulary.split(" ")));
  return draw(["", "(", "Oh, "]) + words.map((word) => word + draw(separators)).join("") + draw(["", "end?", "?!"]);
}

const cases = Array.from({ length: 500 }, (_, seed) => ({
  seed,
  ...wordsOf(anyText(seed)),
}));
const texts = (words: readonly Word[]) => words.map(({ text }) => text);
const sorted = (words: readonly Word[]) => texts(words).sort();
const lower = (word: string) => word.toLowerCase();

test("a text is its words and what stands between them", () => {
  for (let seed = 0; seed < 500; seed += 1) expect(textOf(wordsOf(anyText(seed)))).toBe(anyText(seed));
  expect(wordsOf('  "Who\'s there?" — I, 3.5 m!')).toEqual({
    before: '  "',
    words: [
      { text: "Who's", after: " " },
      { text: "there", after: '?" — ' },
      { text: "I", after: ", " },
      { text: "3.5", after: " " },
      { text: "m", after: "!" },
    ],
  });
});

test("replacement changes as many words as it may, each to a synonym of what stood there, and no stop word", async () => {
  const synonyms = await wordNet();
  for (const { seed, words } of cases) {
    const replaced = replaceBySynonyms(words, randomStream(seed), synonyms);
    expect(replaced).toHaveLength(words.length);
    const changed = words.filter((word, place) => replaced[place]?.text !== word.text);
    const able = words.filter(({ text }) => !isStopWord(lower(text)) && synonyms(lower(text)).length > 0);
    expect(changed).toHaveLength(Math.min(changes(words), able.length));
    for (const [place, { text, after }] of words.entries()) {
      const now = replaced[place] as Word;
      expect(now.after).toBe(after);
      if (now.text === text) continue;
      expect(isStopWord(lower(text))).toBe(false);
      expect(synonyms(lower(text))).toContain(lower(now.text));
    }
  }
});

test("insertion adds as many synonyms of the text's words and leaves the words in their order", async () => {
  const synonyms = await wordNet();
  for (const { seed, words } of cases) {
    const more = insertSynonyms(words, randomStream(seed), synonyms);
    const given = new Set(words);
    expect(more.filter((word) => given.has(word))).toEqual(words);
    const added = more.filter((word) => !given.has(word));
    const choices = new Set(texts(words).flatMap((word) => (isStopWord(lower(word)) ? [] : synonyms(lower(word)))));
    expect(added).toHaveLength(choices.size === 0 ? 0 : changes(words));
    for (const { text } of added) expect(choices).toContain(text);
    expect(more.at(-1)).toBe(words.at(-1));
  }
});

test("swapping keeps the words, and what stands between them in its place", async () => {
  const synonyms = await wordNet();
  for (const { seed, words } of cases) {
    const swapped = swapWords(words, randomStream(seed), synonyms);
    expect(sorted(swapped)).toEqual(sorted(words));
    expect(swapped.map(({ after }) => after)).toEqual(words.map(({ after }) => after));
    const moved = words.filter(({ text }, place) => swapped[place]?.text !== text);
    expect(moved.length).toBeLessThanOrEqual(2 * changes(words));
  }
});

test("deletion leaves a part of the words in their order, never none, and takes about alpha of them", async () => {
  const synonyms = await wordNet();
  let before = 0;
  let after = 0;
  for (const { seed, words } of cases) {
    const kept = deleteWords(words, randomStream(seed), synonyms);
    expect(kept.length).toBeGreaterThan(0);
    let place = 0;
    for (const { text } of kept) {
      place = texts(words).indexOf(text, place) + 1;
      expect(place).toBeGreaterThan(0);
    }
    expect(kept.at(-1)?.after).toBe(words.at(-1)?.after);
    if (words.length < 10) continue;
    before += words.length;
    after += kept.length;
  }
  expect(1 - after / before).toBeCloseTo(alpha, 1);
  const always = () => 0;
  expect(deleteWords(wordsOf("one two three!").words, always, synonyms)).toEqual([{ text: "one", after: "!" }]);
});

test("the texts differ from the given one and from each other, and depend on the stream alone", async () => {
  const synonyms = await wordNet();
  for (let seed = 0; seed < 100; seed += 1) {
    const text = anyText(seed);
    const made = edaTexts(text, 9, randomStream(7, `row ${seed}`), synonyms);
    expect(new Set([text, ...made]).size).toBe(made.length + 1);
    if (wordsOf(text).words.length > 6) expect(made).toHaveLength(9);
    expect(edaTexts(text, 9, randomStream(7, `row ${seed}`), synonyms)).toEqual(made);
    if (made.length > 4) expect(edaTexts(text, 9, randomStream(8, `row ${seed}`), synonyms)).not.toEqual(made);
  }
});

test("all four operations take part", () => {
  const synonyms: Synonyms = (word) => (word === "river" ? ["stream"] : []);
  const made = edaTexts("The river is very long and cold.", 4, randomStream(1), synonyms);
  expect(made).toHaveLength(4);
  const words = made.map((text) => texts(wordsOf(text).words).map(lower));
  expect(words.filter((one) => one.length === 8)).toHaveLength(1);
  expect(words.filter((one) => one.length === 7 && one.includes("stream"))).toHaveLength(1);
  expect(words.filter((one) => one.length === 7 && one.includes("river"))).toHaveLength(1);
  expect(words.filter((one) => one.length < 7)).toHaveLength(1);
  for (const text of made) expect(text).toMatch(/^[A-Z].*\.$/);
});

test("the first word's capital stays in the first place, a name's and a whole word's where it is", () => {
  const none: Synonyms = () => [];
  for (let seed = 0; seed < 50; seed += 1) {
    for (const made of edaTexts("Who saw Anna, and I saw NASA?", 3, randomStream(seed), none)) {
      expect(made).toMatch(/^[A-Z].*\?$/);
      expect(made.slice(1)).not.toMatch(/Who|anna|\bi\b|nasa/);
    }
  }
});

test("what has no words, or nothing to change, gives nothing", async () => {
  const synonyms = await wordNet();
  for (const text of ["", "   ", "?!", "🙂🙂", "the", "the the the", "qwertzuiop"]) {
    const made = edaTexts(text, 4, randomStream(text), synonyms);
    expect(made.every((one) => one === "the" || one === "the the")).toBe(true);
    if (text !== "the the the") expect(made).toEqual([]);
  }
  expect(edaTexts("dog", 2, randomStream(1), synonyms)).toHaveLength(2);
});

test("other scripts and marks stay whole", async () => {
  const synonyms = await wordNet();
  const text = "Où est né l'auteur de « Война и мир » ? 日本 🙂 e\u0301te\u0301";
  for (const made of edaTexts(text, 8, randomStream(3), synonyms)) {
    expect(Buffer.from(made).toString()).toBe(made);
    expect(made).toMatch(/[«»]/);
    expect(made).not.toMatch(/(^|\s)\p{M}/u);
  }
});

test("a text of a quarter of a million words takes seconds, also where it is one word or none", async () => {
  const synonyms = await wordNet();
  const began = performance.now();
  const long = "the large dog began to swim. ".repeat(40_000);
  expect(edaTexts(long, 4, randomStream(1), synonyms)).toHaveLength(4);
  edaTexts("x".repeat(2_000_000), 4, randomStream(1), synonyms);
  edaTexts("a-".repeat(1_000_000), 4, randomStream(1), synonyms);
  edaTexts("!?".repeat(1_000_000), 4, randomStream(1), synonyms);
  expect(performance.now() - began).toBeLessThan(30_000);
}, 60_000);
