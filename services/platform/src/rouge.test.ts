import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { RougeIndex, rougeL, rougeLF, tokenize } from "./rouge.js";

const pythonPath = fileURLToPath(new URL("../../../.venv/bin/python", import.meta.url));

/** rouge-score's F for each [candidate, reference], from the real package. */
function rougeScore(pairs: [string, string][]): number[] {
  const program = `
import json, sys
from rouge_score import rouge_scorer
scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
print(json.dumps([scorer.score(reference, candidate)["rougeL"].fmeasure for candidate, reference in json.load(sys.stdin)]))`;
  const options = { input: JSON.stringify(pairs), maxBuffer: 64 * 1024 * 1024 };
  return JSON.parse(execFileSync(pythonPath, ["-c", program], options).toString());
}

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

function randomTexts(random: () => number, count: number, maxTokens: number, vocabulary: number): string[] {
  const separators = [" ", "  ", ", ", "-", "\n", "! ", "_", "'"];
  return Array.from({ length: count }, () =>
    Array.from({ length: Math.floor(random() * (maxTokens + 1)) }, () => {
      const word = `${random() < 0.2 ? "W" : "w"}${Math.floor(random() ** 2 * vocabulary)}`;
      return `${word}${separators[Math.floor(random() * separators.length)]}`;
    }).join(""),
  );
}

/** The textbook table, to check the bit-parallel one where rouge-score would take minutes. */
function tableLcs(a: readonly string[], b: readonly string[]): number {
  let above = new Array<number>(b.length + 1).fill(0);
  for (const left of a) {
    const row = [0];
    for (const [at, right] of b.entries()) {
      row.push(left === right ? (above[at] ?? 0) + 1 : Math.max(above[at + 1] ?? 0, row[at] ?? 0));
    }
    above = row;
  }
  return above[b.length] ?? 0;
}

test.each([
  ["equal texts", "the cat sat on the mat", "the cat sat on the mat", 1],
  ["no common token", "hello there", "good bye", 0],
  ["an empty text", "", "the cat", 0],
  ["only punctuation", "?!", "?!", 0],
  // Lin (2004), section 3.1: the subsequence "police the gunman" of 4 and 4 tokens.
  ["Lin's S1 and S2", "police kill the gunman", "police killed the gunman", 0.75],
  ["Lin's S1 and S3: words in another order", "the gunman kill police", "police killed the gunman", 0.5],
  ["case and punctuation do not count", "Where's my ORDER?", "where s, my order", 1],
  ["lengths differ: P 2/2, R 2/6", "cat mat", "the cat sat on the mat", 0.5],
  ["a token counts as often as it stands", "the the the", "the cat", (2 * ((1 / 3) * (1 / 2))) / (1 / 3 + 1 / 2)],
])("%s", (_, candidate, reference, expected) => {
  expect(rougeL(candidate, reference)).toBeCloseTo(expected, 15);
});

test("texts that are not ASCII are compared by letters and numbers of their own script", () => {
  expect(tokenize("Ça va, naïve Señor 2?")).toEqual(["ça", "va", "naïve", "señor", "2"]);
  expect(tokenize("Где мой заказ?")).toEqual(["где", "мой", "заказ"]);
  expect(tokenize("मेरा ऑर्डर")).toEqual(["मेरा", "ऑर्डर"]);
  // Scripts without spaces: a character is a token, so texts can be alike in part.
  expect(tokenize("我的订单 in Kyoto")).toEqual(["我", "的", "订", "单", "in", "kyoto"]);
  expect(rougeL("我的订单在哪里", "我的订单到哪里了")).toBeGreaterThan(0.7);
  // The same word, composed and decomposed.
  expect(rougeL("cafe\u0301", "caf\u00e9")).toBe(1);
});

test("4,000 random pairs score as rouge-score scores them", () => {
  const random = randomNumbers(11);
  const pairs = [
    ...zip(randomTexts(random, 3_000, 20, 30), randomTexts(random, 3_000, 20, 30)),
    ...zip(randomTexts(random, 900, 45, 60), randomTexts(random, 900, 45, 60)),
    // Beyond one, two and three machine words.
    ...zip(randomTexts(random, 100, 130, 40), randomTexts(random, 100, 130, 40)),
  ];
  const expected = rougeScore(pairs);
  for (const [index, [candidate, reference]] of pairs.entries()) {
    expect(rougeL(candidate, reference), `${candidate} | ${reference}`).toBe(expected[index]);
  }
});

test("the nearest of many is rouge-score's greatest, and the earliest of equals", () => {
  const random = randomNumbers(5);
  const rows = randomTexts(random, 120, 25, 60);
  const candidates = randomTexts(random, 25, 25, 60);
  const scores = rougeScore(candidates.flatMap((candidate) => rows.map((row): [string, string] => [candidate, row])));
  const index = new RougeIndex();
  for (const row of rows) index.add(tokenize(row));
  for (const [at, candidate] of candidates.entries()) {
    const of = scores.slice(at * rows.length, (at + 1) * rows.length);
    const greatest = Math.max(...of);
    const tokens = tokenize(candidate);
    const nearest = index.nearest(tokens);
    expect(rougeLF(nearest.lcs, tokens.length, nearest.length)).toBeCloseTo(greatest, 14);
    const earliest = of.findIndex((score) => score > greatest - 1e-12);
    if (greatest > 0) expect(nearest.text).toBe(earliest);
  }
});

test("long texts cross the edges of machine words", () => {
  const random = randomNumbers(3);
  for (const length of [31, 32, 33, 63, 64, 65, 96, 500]) {
    for (let round = 0; round < 10; round++) {
      const make = () => Array.from({ length }, () => `t${Math.floor(random() * 12)}`);
      const [candidate, reference] = [make(), make()];
      const index = new RougeIndex();
      index.add(reference);
      expect(index.nearest(candidate).lcs, `${length}`).toBe(tableLcs(candidate, reference));
      expect(index.nearest(candidate).lcs, "a second search finds the scratch clean").toBe(
        tableLcs(candidate, reference),
      );
    }
  }
});

test("an empty index and a candidate without known tokens have no nearest", () => {
  const index = new RougeIndex();
  expect(index.nearest(["a"])).toEqual({ text: -1, lcs: 0, length: 0 });
  index.add([]);
  index.add(["b"]);
  expect(index.nearest(["a"])).toEqual({ text: -1, lcs: 0, length: 0 });
  expect(index.nearest(["b"])).toEqual({ text: 1, lcs: 1, length: 1 });
});

function zip(left: string[], right: string[]): [string, string][] {
  return left.map((text, index) => [text, right[index] ?? ""]);
}
