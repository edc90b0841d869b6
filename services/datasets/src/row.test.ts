import { createHash } from "node:crypto";
import { identify, VersionDigest } from "@tutelage/platform/rowidentity";
import { Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { checkAppended, normalizedInput } from "./row.js";

const seed = Row.fromPartial({ input: "hello", output: "greeting", split: Split.TRAIN, origin: RowOrigin.SEED });
const synthetic = Row.fromPartial({
  ...seed,
  origin: RowOrigin.SYNTHETIC,
  rootRowId: "0".repeat(32),
  parentRowId: "0".repeat(32),
  iteration: 1,
});

test("a row's id is the digest of its line without the id, for anyone to check", () => {
  const { row, line } = identify(seed);
  expect(line).toBe(`{"id":"${row.id}","input":"hello","output":"greeting","split":"train","origin":"seed"}\n`);
  const content = '{"input":"hello","output":"greeting","split":"train","origin":"seed"}';
  expect(row.id).toBe(createHash("sha256").update(content).digest("hex").slice(0, 32));
  expect(identify({ ...seed, id: "an id that came along" }).row.id).toBe(row.id);
});

test("every part of the content changes the id, and the order of metadata does not", () => {
  const variants: Row[] = [
    seed,
    { ...seed, input: "hello " },
    { ...seed, output: "other" },
    { ...seed, split: Split.DEV },
    { ...seed, input: "", messages: [{ role: "user", content: "hello" }] },
    { ...seed, metadata: { a: "1" } },
    synthetic,
    { ...synthetic, iteration: 2 },
    { ...synthetic, rootRowId: "1".repeat(32) },
    { ...synthetic, parentRowId: "1".repeat(32) },
  ];
  expect(new Set(variants.map((row) => identify(row).row.id)).size).toBe(variants.length);
  const ab = identify({ ...seed, metadata: { a: "1", b: "2" } });
  expect(identify({ ...seed, metadata: { b: "2", a: "1" } })).toEqual(ab);
});

test("a version's digest is that of its ids in order", () => {
  const digestOf = (...ids: string[]) => {
    const digest = new VersionDigest();
    for (const id of ids) digest.add(id);
    return digest.finish();
  };
  expect(digestOf("a", "b")).toBe(createHash("sha256").update("a\nb\n").digest("hex"));
  expect(digestOf("b", "a")).not.toBe(digestOf("a", "b"));
});

test("inputs are the same after NFC and collapsed white space, but not after a change of case", () => {
  const normal = (input: string) => normalizedInput({ input, messages: [] });
  expect(normal(" caf\u0065\u0301 \n  au lait\t")).toBe(normal("caf\u00e9 au lait"));
  expect(normal("US")).not.toBe(normal("us"));
});

test.each<[string, Row, string]>([
  ["no input", { ...seed, input: " " }, "rows[3].input"],
  ["input and messages", { ...seed, messages: [{ role: "user", content: "x" }] }, "rows[3].input"],
  ["a strange role", { ...seed, input: "", messages: [{ role: "bot", content: "x" }] }, "rows[3].messages[0].role"],
  ["no output", { ...seed, output: "" }, "rows[3].output"],
  ["no split", { ...seed, split: Split.UNSPECIFIED }, "rows[3].split"],
  ["no origin", { ...seed, origin: RowOrigin.UNSPECIFIED }, "rows[3].origin"],
  ["U+0000", { ...seed, input: "a\u0000b" }, "rows[3].input"],
  ["U+0000 in metadata", { ...seed, metadata: { a: "\u0000" } }, "rows[3].metadata.a"],
  ["a seed row with a root", { ...seed, rootRowId: "0".repeat(32) }, "rows[3].root_row_id"],
  ["a seed row with a parent", { ...seed, parentRowId: "0".repeat(32) }, "rows[3].parent_row_id"],
  ["a seed row of an iteration", { ...seed, iteration: 1 }, "rows[3].iteration"],
  ["a synthetic row without a root", { ...synthetic, rootRowId: "" }, "rows[3].root_row_id"],
  ["a synthetic row without a parent", { ...synthetic, parentRowId: "" }, "rows[3].parent_row_id"],
  ["a negative iteration", { ...synthetic, iteration: -1 }, "rows[3].iteration"],
])("an appended row with %s is refused, naming the field", (_, row, field) => {
  expect(() => checkAppended(row, "rows[3]")).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  try {
    checkAppended(row, "rows[3]");
  } catch (error) {
    expect((error as { fields: { field: string }[] }).fields[0]?.field).toBe(field);
  }
});

test("good appended rows pass", () => {
  checkAppended(seed, "rows[0]");
  checkAppended(synthetic, "rows[0]");
  checkAppended({ ...seed, input: "", messages: [{ role: "user", content: "x" }] }, "rows[0]");
});
