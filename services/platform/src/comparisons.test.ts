import type { PairedGain } from "@tutelage/proto/campaigns/v1/campaigns";
import { expect, test } from "vitest";
import { claims, compare } from "./comparisons.js";

function gainOf(onlyFinalRight: number, onlyBaselineRight: number, n = 200): PairedGain {
  const gain = (onlyFinalRight - onlyBaselineRight) / n;
  return { gain, ci95Low: gain - 0.05, ci95High: gain + 0.05, n, onlyFinalRight, onlyBaselineRight };
}

test("each arm has McNemar's p, Holm's correction over all of them, and what could have been seen", () => {
  const [plain, matched] = compare([
    { arm: "plain", gain: gainOf(1, 9) },
    { arm: "none_matched", gain: gainOf(6, 6) },
  ]);
  expect(plain?.mcnemarP).toBeCloseTo(22 / 1_024, 12);
  expect(plain?.holmP).toBeCloseTo(44 / 1_024, 12);
  expect(matched).toMatchObject({ arm: "none_matched", mcnemarP: 1, holmP: 1 });
  // By hand: 2.8016 · √((14/202) / 202).
  expect(matched?.detectableGain).toBeCloseTo(2.8016 * Math.sqrt(14 / 202 / 202), 4);
});

test("what the rows support is told from what they do not, with the smallest effect that they could have shown", () => {
  const told = claims(
    { plainReturned: false },
    compare([
      { arm: "plain", gain: gainOf(30, 6) },
      { arm: "none_matched", gain: gainOf(10, 8) },
      { arm: "oracle", gain: gainOf(2, 28) },
    ]),
  );
  expect(told).toHaveLength(4);
  expect(told[0]).toMatch(
    /^Supported: on these test rows the student is better than plain fine-tuning: \+12\.0 points .* 3 comparisons\.$/,
  );
  expect(told[1]).toMatch(
    /^Not supported: that the student differs from none_matched.* On 200 test rows a true difference of 6\.\d points/,
  );
  expect(told[2]).toMatch(/^Supported: .* worse than oracle: −13\.0 points .*McNemar p below 0\.001/);
  expect(told[3]).toContain("Not tested: other seed rows");
});

test("Holm's correction can take a claim away", () => {
  const alone = compare([{ arm: "plain", gain: gainOf(10, 2) }]);
  expect(claims({ plainReturned: false }, alone)[0]).toMatch(/^Supported.*McNemar p = 0\.039\.$/);
  const among = compare([
    { arm: "plain", gain: gainOf(10, 2) },
    { arm: "none_matched", gain: gainOf(5, 5) },
  ]);
  expect(claims({ plainReturned: false }, among)[0]).toMatch(/^Not supported/);
});

test("a plain student that is returned gains nothing over itself, and without test rows nothing is claimed", () => {
  const same = compare([{ arm: "plain", gain: gainOf(0, 0) }]);
  expect(claims({ plainReturned: true }, same)[0]).toMatch(/^Not supported: any gain over plain fine-tuning/);
  expect(claims({ plainReturned: false }, [])).toEqual([expect.stringContaining("no test rows")]);
});
