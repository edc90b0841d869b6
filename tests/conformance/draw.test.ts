import { heldOutText } from "@tutelage/platform/heldouttext";
import { expect, test } from "vitest";
// @ts-expect-error: a program's part, without types
import { drawRows, hasData } from "./draw.mjs";

interface Row {
  input: string;
  output: string;
  split: "train" | "test";
}

test.runIf(hasData("trec"))(
  "a replicate's rows: another draw each time, none of them a test row, labels as they fall",
  () => {
    const draws = [1, 2].map((replicate) => drawRows("trec", 60, replicate, false) as Row[]);
    const texts = (rows: Row[], split: Row["split"]) =>
      rows.filter((row) => row.split === split).map(({ input }) => input);
    const [first, second] = draws.map((rows) => texts(rows, "train"));
    expect(first).toHaveLength(60);
    expect(first).not.toEqual(second);
    expect(texts(draws[0] ?? [], "test")).toEqual(texts(draws[1] ?? [], "test"));
    const tested = new Set(texts(draws[0] ?? [], "test").map(heldOutText));
    for (const text of [...(first ?? []), ...(second ?? [])]) expect(tested.has(heldOutText(text))).toBe(false);
    expect(drawRows("trec", 60, 1, false)).toEqual(draws[0]);
  },
);
