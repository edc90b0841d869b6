import { expect, test } from "vitest";
import { kinds, planFaults } from "./plan.js";

const options = { seed: 3, kills: 200, stops: 20, cuts: 20, meanGapMs: 1_000 };

test("the same seed gives the same faults, another one others", () => {
  expect(planFaults(options)).toEqual(planFaults(options));
  expect(planFaults({ ...options, seed: 4 })).not.toEqual(planFaults(options));
});

test("a plan has as many faults as it was asked for, of every kind", () => {
  const faults = planFaults(options);
  const count = (what: string) => faults.filter((fault) => fault.what === what).length;
  expect([count("kill"), count("stop"), count("cut")]).toEqual([200, 20, 20]);
  const killed = (kind: string) => faults.filter((fault) => fault.what === "kill" && fault.kind === kind).length;
  for (const kind of kinds) expect(killed(kind), kind).toBeGreaterThan(0);
  // A short run meets every kind, too.
  const few = planFaults({ ...options, kills: kinds.length, stops: 0, cuts: 0 });
  expect(few.map((fault) => fault.what === "kill" && fault.kind).sort()).toEqual([...kinds].sort());
});

test("a stop outlasts a lease, and the waits come to about the mean", () => {
  const faults = planFaults(options);
  for (const fault of faults) if (fault.what === "stop") expect(fault.forMs).toBeGreaterThan(6_000);
  const mean = faults.reduce((sum, { afterMs }) => sum + afterMs, 0) / faults.length;
  expect(mean).toBeGreaterThan(700);
  expect(mean).toBeLessThan(1_300);
});
