import { hash } from "node:crypto";
import { expect, test } from "vitest";
import { DigestTable, digestWords } from "./digesttable.js";

const digest = (text: string) => digestWords(hash("sha256", text, "hex"));

test("members are numbered in the order of their coming, through every growth", () => {
  const table = new DigestTable();
  const count = 150_000;
  let misnumbered = 0;
  for (let member = 0; member < count; member++) if (table.add(digest(`${member}`)) !== member) misnumbered++;
  expect(misnumbered).toBe(0);
  expect(table.size).toBe(count);
  for (let member = 0; member < count; member += 997) {
    expect(table.find(digest(`${member}`))).toBe(member);
    expect(table.add(digest(`${member}`))).toBe(member);
  }
  expect(table.size).toBe(count);
  expect(table.find(digest("absent"))).toBe(-1);
});

test("digests that share their first words are told apart", () => {
  const table = new DigestTable();
  const words = [
    [1, 2, 3, 4],
    [1, 2, 3, 5],
    [1, 2, 4, 4],
    [1, 3, 3, 4],
  ].map((digits) => Uint32Array.from(digits));
  expect(words.map((each) => table.add(each))).toEqual([0, 1, 2, 3]);
  expect(words.map((each) => table.find(each))).toEqual([0, 1, 2, 3]);
});
