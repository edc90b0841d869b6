import { OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { describe, expect, test } from "vitest";
import { HeldOutIndex } from "./heldoutindex.js";
import { exactText, isRunOverlap, leastLikeness, leastShared, likeness, wordWeight } from "./overlap.js";

const { EXACT, NGRAM, NEAR_DUPLICATE } = OverlapKind;

function indexOf(...texts: string[]): HeldOutIndex {
  const index = new HeldOutIndex();
  for (const text of texts) index.add(text);
  return index;
}

describe("exact texts", () => {
  test.each([
    ["Where is my order?", "where is  my order"],
    ["What 's the second-highest mountain ?", "What's the second highest mountain?"],
    ["“Who”, he asked, “was it?”", "Who he asked was it"],
    ["Ｗｈｅｒｅ is it", "where is it"],
    ["In 1991, it rained", "in 1991 it rained"],
  ])("%j is %j", (a, b) => {
    expect(exactText(a)).toBe(exactText(b));
  });

  test.each([
    ["What is 8-4?", "What is 8/4?"],
    ["What is -5 in words?", "What is 5 in words?"],
    ["It is 1.5 km", "It is 15 km"],
    ["C# or C?", "C or C?"],
    ["5% of it", "5 of it"],
    ["?!", "..."],
    ["它在哪里", "它在那里"],
  ])("%j is not %j", (a, b) => {
    expect(exactText(a)).not.toBe(exactText(b));
  });
});

test("what two texts must share to be near follows from the weight of either", () => {
  // The lightest text that can be near to one of weight 10 is shared whole.
  const shared = leastShared(10);
  expect(likeness(shared, 10, shared)).toBeCloseTo(leastLikeness, 12);
});

test("a word that stands for another one makes texts less alike than a word more", () => {
  expect(likeness(10, 10, 10)).toBe(1);
  expect(likeness(10, 12, 10)).toBeCloseTo(20 / 22, 12);
  expect(likeness(10, 12, 12)).toBeCloseTo(20 / 28, 12);
  expect(likeness(10, 12, 13)).toBe(likeness(10, 13, 12));
});

test("a rare word weighs more than a common one, and none weighs nothing", () => {
  expect(wordWeight(1, 500)).toBeGreaterThan(4 * wordWeight(250, 500));
  expect(wordWeight(500, 500)).toBeGreaterThan(0);
  // In a split of twenty rows nobody knows what is common.
  expect(wordWeight(1, 20)).toBeLessThan(2.1 * wordWeight(10, 20));
});

test.each([
  [8, 16, true],
  [8, 17, false],
  [14, 15, false],
  [15, 15, true],
  [7, 8, false],
  [5, 5, true],
  [4, 5, false],
  [4, 4, false],
  [7, 7, true],
])("runs with %i words of a row of %i give it away: %s", (shared, length, expected) => {
  expect(isRunOverlap(shared, length)).toBe(expected);
});

describe("a text's row", () => {
  const long = "a caravan of forty camels left the oasis at dawn and reached the salt market after nine days";
  const index = indexOf(
    "What is the largest city in Texas?",
    "What is the largest lake in Bolivia?",
    "Who painted the ceiling of the chapel?",
    long,
    "bad.",
    "how to fish",
    ...Array.from({ length: 40 }, (_, n) => `What is the ${["name", "color", "age", "size"][n % 4]} of the thing${n}?`),
  );

  test.each([
    ["WHAT is the largest city in Texas", EXACT, 0, 1],
    ["Please tell me: what is the largest city in Texas, and why?", NGRAM, 0, 1],
    ["They say a caravan of forty camels left the oasis at dawn, then nothing.", NGRAM, 3, 10 / 18],
    ["Who painted the whole ceiling of the chapel?", NEAR_DUPLICATE, 2, undefined],
    ["In Texas, what city is the largest?", NEAR_DUPLICATE, 0, undefined],
  ])("%j", (text, kind, row, strength) => {
    const found = index.find(text);
    expect(found).toMatchObject({ kind, row });
    if (strength !== undefined) expect(found?.strength).toBeCloseTo(strength, 12);
    else expect(found?.strength).toBeGreaterThanOrEqual(leastLikeness);
  });

  test.each([
    ["What is the largest city in Germany?"],
    ["What is the name of the largest volcano?"],
    ["What is the color of the thing?"],
    ["is bad"],
    ["a caravan of forty camels left the town"],
    [""],
    ["?!"],
  ])("%j says none again", (text) => {
    expect(index.find(text)).toBeUndefined();
  });

  test("shared runs are added up, and words that stand in two of them count once", () => {
    const [one, two] = ["one two three four five six seven eight", "nine ten eleven twelve red green blue black"];
    const held = indexOf(`${one} x1 x2 x3 x4 ${two} y1 y2 y3 y4`);
    expect(held.find(`${one} and ${two}`)).toEqual({ kind: NGRAM, row: 0, strength: 16 / 24 });
    // Twice a third of the row is a third.
    expect(held.find(`${one} and ${one}`)).toBeUndefined();
  });

  test("a run that many rows hold is a turn of phrase, and counts only as a part of more", () => {
    const phrase = "how many of them are left in the";
    const rows = Array.from({ length: 12 }, (_, n) => `${phrase} box${n} after that`);
    const held = indexOf(...rows, ...rows.map((row, n) => `${row} day when all of the red${n} ones were taken out`));
    expect(held.find(`${phrase} bag before that`)).toBeUndefined();
    expect(held.find(`well ${rows[3]} then`)).toEqual({ kind: NGRAM, row: 3, strength: 1 });
  });

  test("of several rows the strongest is told, of equals the first", () => {
    const held = indexOf("a b c d e f g h i j k l", "a b c d e f g h i j", "q r s t u", "Q r s t u!");
    expect(held.find("x a b c d e f g h i j y")).toEqual({ kind: NGRAM, row: 1, strength: 1 });
    expect(held.find("q R s t u")).toEqual({ kind: EXACT, row: 2, strength: 1 });
  });

  test("rows may come between searches", () => {
    const held = indexOf("alpha beta gamma delta");
    expect(held.find("delta gamma beta alpha")?.row).toBe(0);
    expect(held.find("red green blue")).toBeUndefined();
    held.add("red green blue");
    expect(held.find("blue green red")).toMatchObject({ kind: NEAR_DUPLICATE, row: 1, strength: 1 });
  });
});

// Comparing each place with each other one would take 60 billion comparisons, and far longer than a test may.
test("one word over and over is compared as any other text", () => {
  const held = indexOf("na ".repeat(200_000), `x ${"na ".repeat(300_000)} y`);
  expect(held.find(`${"na ".repeat(250_000)} z`)?.kind).toBe(NGRAM);
});

test("without rows nothing is found", () => {
  expect(new HeldOutIndex().find("where is my order")).toBeUndefined();
});
