import { expect, test } from "vitest";
import { jsonLine, table, visible } from "./show.js";

test("a table of 200,000 rows is a table", () => {
  const rows = Array.from({ length: 200_000 }, (_, index) => [String(index), "x"]);
  const lines = table(["row", "output"], rows).split("\n");
  expect(lines).toHaveLength(200_001);
  expect(lines[1]).toBe("0       x");
});

test("what a terminal would obey is shown instead, and a cell never leaves its line", () => {
  const sequence = "\u001b]0;owned\u0007\u001b[2J\u009b31mred\u007f\r";
  expect(visible(`one\ttwo\r\nthree${sequence}`)).toBe("one\ttwo\nthree␛]0;owned␇␛[2J\uFFFD31mred␡␍");
  const told = table(["output"], [[`a\nb${sequence}`]]);
  expect(told).toBe("output\na b␛]0;owned␇␛[2J\uFFFD31mred␡␍");
  // Nothing of it is lost as data, and nothing of it is raw.
  const line = jsonLine({ sequence });
  expect(JSON.parse(line)).toEqual({ sequence });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
  expect(line).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
});
