/** The loss of a training as a report shows it. Pure. */
import type { LossCurve } from "@tutelage/proto/campaigns/v1/campaigns";

const mostCurvePoints = 120;

/** Means over runs of steps, so that a long training is a line and not a cloud. Pure. */
export function thinned(name: string, losses: readonly number[]): LossCurve {
  const size = Math.max(1, Math.ceil(losses.length / mostCurvePoints));
  const curve: LossCurve = { name, steps: [], losses: [] };
  for (let start = 0; start < losses.length; start += size) {
    const part = losses.slice(start, start + size);
    curve.steps.push(start + part.length);
    curve.losses.push(part.reduce((a, b) => a + b, 0) / part.length);
  }
  return curve;
}
