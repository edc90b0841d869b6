import { expect, test } from "vitest";
import { heldOutText } from "./heldouttext.js";

test("case, white space, width and what ends a sentence do not make a text new; signs within it do", () => {
  for (const twin of ["Where is it?", " where  IS\nit ", "where is it …", "Ｗhere is it!”"]) {
    expect(heldOutText(twin)).toBe("where is it");
  }
  expect(heldOutText("What is 8-4?")).not.toBe(heldOutText("What is 8/4?"));
  // A text of nothing else is not every such text.
  expect(heldOutText("?!")).not.toBe(heldOutText("..."));
});
