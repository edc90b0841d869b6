/** What one campaign's test rows support: the returned student against each arm. Pure. */

import type { Comparison, Outcome, PairedGain } from "@tutelage/proto/campaigns/v1/campaigns";
import { pairedStandardError } from "./choosing.js";
import { smallestDetectable } from "./detectable.js";
import { holm } from "./holm.js";
import { mcnemar } from "./mcnemar.js";
import { signedPoints } from "./signedpoints.js";

/** Below this a p-value, after Holm's correction, supports a claim. */
const level = 0.05;

/** A comparison that was made: its difference is there. */
type Compared = Comparison & { gain: PairedGain };

/** Each arm with its test; Holm's correction is over all of them. */
export function compare(gains: readonly { arm: string; gain: PairedGain }[]): Compared[] {
  const pValues = gains.map(({ gain }) => mcnemar(gain.onlyFinalRight, gain.onlyBaselineRight));
  const adjusted = holm(pValues);
  return gains.map(({ arm, gain }, index) => ({
    arm,
    gain,
    mcnemarP: pValues[index] ?? 1,
    holmP: adjusted[index] ?? 1,
    detectableGain: gain.n === 0 ? 1 : smallestDetectable(pairedStandardError(gain)),
  }));
}

/** In words, which claims the data support and which they do not. */
export function claims({ plainReturned }: Pick<Outcome, "plainReturned">, comparisons: readonly Compared[]): string[] {
  if (comparisons.length === 0) return ["Nothing can be claimed about the student: there are no test rows."];
  const told = comparisons.map((one) =>
    plainReturned && one.arm === "plain"
      ? "Not supported: any gain over plain fine-tuning. Its student is the one that is returned."
      : claim(one, comparisons.length),
  );
  return [
    ...told,
    "Not tested: other seed rows and other training seeds. This is one campaign; only several, each with another seed, show " +
      "what to expect of the next one.",
  ];
}

function claim({ arm, gain, mcnemarP, holmP, detectableGain }: Compared, family: number): string {
  const name = arm === "plain" ? "plain fine-tuning" : arm;
  const test =
    `${signedPoints(gain.gain)} points (95 % interval ${signedPoints(gain.ci95Low)} to ${signedPoints(gain.ci95High)}), McNemar p ${shown(mcnemarP)}` +
    (family > 1 ? `, ${shown(holmP)} after Holm's correction over ${family} comparisons` : "");
  if (holmP < level)
    return `Supported: on these test rows the student is ${gain.gain > 0 ? "better" : "worse"} than ${name}: ${test}.`;
  return (
    `Not supported: that the student differs from ${name}: ${test}. On ${gain.n} test rows a true difference of ` +
    `${(detectableGain * 100).toFixed(1)} points would have been found in four of five cases, a smaller one less often.`
  );
}

function shown(p: number): string {
  return p < 0.001 ? "below 0.001" : `= ${p.toFixed(3)}`;
}
