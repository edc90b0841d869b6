import { expect, test } from "vitest";
import { wordNet } from "./wordnet.js";

test("words that share a meaning are synonyms, over all parts of speech and both ways", async () => {
  const synonyms = await wordNet();
  expect(synonyms("car")).toEqual(expect.arrayContaining(["auto", "automobile", "motorcar", "railroad car"]));
  expect(synonyms("automobile")).toContain("car");
  // A noun's, a verb's, an adjective's, an adverb's.
  expect(synonyms("fast")).toEqual(expect.arrayContaining(["fasting", "firm", "loyal", "tight"]));
  expect(synonyms("quickly")).toContain("rapidly");
});

test("synonyms are sorted, each once, without the word, and none of an unknown word", async () => {
  const synonyms = await wordNet();
  for (const word of ["car", "run", "good", "well", "new york"]) {
    const found = synonyms(word);
    expect(found).toEqual([...new Set(found)].sort());
    expect(found).not.toContain(word);
    expect(found.join(" ")).not.toContain("_");
  }
  for (const word of ["", "qwertzuiop", "Car", "__proto__"]) expect(synonyms(word)).toEqual([]);
});

test("WordNet is read once", async () => {
  expect(await wordNet()).toBe(await wordNet());
});
