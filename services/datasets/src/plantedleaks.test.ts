import { OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { expect, test } from "vitest";
import { HeldOutIndex } from "./heldoutindex.js";
import { type LeakKind, leakKinds, plantedLeaks } from "./plantedleaks.fixture.js";

/** Of texts that share turns of phrase with held-out rows. */
const mostFalseAlarms = 0.01;

test("planted leaks are found, with the row that each gives away, and look-alikes are let through", () => {
  const { heldOut, leaks, innocent } = plantedLeaks();
  const index = new HeldOutIndex();
  for (const row of heldOut) index.add(row);
  const judged = leaks.map((leak) => ({ ...leak, found: index.find(leak.text) }));
  const lines: string[] = [];
  const shares = Object.entries(leakKinds).map(([kind, { kept }]) => {
    const own = judged.filter((one) => one.kind === kind);
    const right = own.filter(({ found, row }) => found !== undefined && heldOut[found.row] === row);
    const missed = own.filter(({ found }) => found === undefined);
    lines.push(`${kind}: planted ${own.length}, found ${right.length}, missed ${missed.length}`);
    return { kind: kind as LeakKind, share: right.length / own.length, kept };
  });
  const alarms = innocent.filter((text) => index.find(text) !== undefined);
  lines.push(`innocent: ${innocent.length}, false alarms ${alarms.length}`);
  process.stdout.write(`${lines.join("\n")}\n`);
  for (const { kind, share, kept } of shares) expect(share, kind).toBeGreaterThanOrEqual(kept);
  expect(alarms.length, alarms.join("\n")).toBeLessThanOrEqual(mostFalseAlarms * innocent.length);
  const copied = judged.filter(({ kind }) => kind === "copied" || kind === "written_otherwise");
  expect(copied.every(({ found }) => found?.kind === OverlapKind.EXACT)).toBe(true);
});
