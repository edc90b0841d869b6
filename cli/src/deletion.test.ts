import { expect, test } from "vitest";
import { removalText } from "./deletion.js";

test("what was removed is told a kind a line, with sizes that a person reads", () => {
  expect(removalText({ removed: { campaigns: 1, training_runs: 12 }, artifact_bytes: 1_234_567 })).toBe(
    ["removed", "campaigns      1", "training runs  12", "files          1.2 MB"].join("\n"),
  );
  const sizes = [0, 999, 1_000, 2_500_000_000, 7e15].map((artifact_bytes) =>
    removalText({ removed: {}, artifact_bytes }).split("  ").at(-1),
  );
  expect(sizes).toEqual(["0 bytes", "999 bytes", "1.0 KB", "2.5 GB", "7000.0 TB"]);
});
