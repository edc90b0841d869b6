import { expect, test } from "vitest";
import { heldBack } from "./holdback.js";
import { placeOf, sourceOf } from "./rows.js";

const many = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const jsonl = (rows: object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const source = (path: string, text: string) => sourceOf(path, Buffer.from(text));

test("about the asked share is held back, and texts that the server takes for the same lie on one side", () => {
  const texts = many(2_000, (i) => `text number ${i}`);
  const held = texts.filter((text) => placeOf(text) < 0.4).length / texts.length;
  expect(held).toBeGreaterThan(0.36);
  expect(held).toBeLessThan(0.44);
  for (const twin of [" Text Number 7", "text number 7 ", "text  number\n7", "text number 7?", "Text number 7 …”"]) {
    expect(placeOf(twin), twin).toBe(placeOf("text number 7"));
  }
  expect(placeOf("text number -7")).not.toBe(placeOf("text number 7"));
});

test("a conversation is held back by what its user says, with or without its answer", async () => {
  const said = [{ role: "user", content: "text number 7" }];
  const answered = [...said, { role: "assistant", content: "yes" }];
  const rows = [{ messages: said, output: "yes" }, { messages: answered }, { input: "text number 7", output: "yes" }];
  const file = await source("f.jsonl", jsonl(rows));
  const place = placeOf("text number 7");
  const [train, test] = heldBack(file, "input", place + 0.001);
  expect([train.rows, test.rows]).toEqual([0, 3]);
});

test("each row of both parts is the file's own, with the line that it has there", async () => {
  const text = `\ufeffref, text ,label\n${many(50, (i) => `${i},"text\nnumber ${i}",a\r\n\n`).join("")}`;
  const file = await source("f.csv", text);
  const parts = heldBack(file, " text", 0.4);
  const lines = text.slice(1).split("\n");
  for (const { body, lines: from, rows } of parts) {
    const sent = body.split("\n").slice(0, -1);
    expect(sent).toHaveLength(from.length);
    for (const [index, one] of sent.entries()) expect(lines[(from[index] ?? 0) - 1]?.replace(/\r$/, "")).toBe(one);
    expect(sent[0]).toBe("ref, text ,label");
    expect(rows).toBeGreaterThan(5);
    expect(sent).toHaveLength(1 + 2 * rows);
  }
  expect(parts[0].rows + parts[1].rows).toBe(50);
});

test("a record with too many fields goes with the train rows, one that cannot be cut out with none", async () => {
  const file = await source("f.csv", `text,label\n${many(30, (i) => `text ${i},a\n`).join("")}b,c,d\nx"y,a\n`);
  expect(file.unreadable).toMatchObject([{ line: 33 }]);
  const [train, test] = heldBack(file, "text", 0.4);
  expect(train.body).toContain("b,c,d\n");
  expect(train.body + test.body).not.toContain('x"y');
});

test("holding nothing back is refused with the least share that works, or with what else to do", async () => {
  const texts = many(400, (i) => `text ${i}`).sort((a, b) => placeOf(b) - placeOf(a));
  const file = (some: string[]) => source("f.jsonl", jsonl(some.map((input) => ({ input, output: "a" }))));
  const low = texts.find((text) => placeOf(text) < 0.5) ?? "";
  const few = await file([...texts.slice(0, 3), low]);
  const share = Math.ceil(placeOf(low) * 100) / 100;
  expect(() => heldBack(few, "input", 0.05)).toThrow(
    `data.hold_back: 0.05 of the 4 rows of f.jsonl leaves no test row; the least share that works is ${share}.`,
  );
  expect(heldBack(few, "input", share)[1].rows).toBe(1);
  expect(placeOf(texts[3] ?? "")).toBeGreaterThan(0.9);
  expect(() => heldBack({ ...few, rows: few.rows.slice(0, 3) }, "input", 0.9)).toThrow(
    /no share does, so give more rows/,
  );
});
