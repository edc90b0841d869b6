/**
 * Bad weather for the teacher endpoint of tests: faults and delays that depend
 * only on the weather's seed, the request, and how often it was sent. So the
 * same campaigns meet the same faults again, in whatever order their calls come
 * and however often processes die between.
 */
import { createHash } from "node:crypto";
import type { TeacherBehaviour, TeacherCall } from "./teacher-server.js";

const faults = {
  /** 429 that does not say when to come back. */
  busy: () => ({ kind: "status", status: 429 }),
  /** 429 with Retry-After in seconds. */
  busySeconds: () => ({ kind: "status", status: 429, headers: { "retry-after": "1" } }),
  /** 429 with Retry-After as a date, which has whole seconds. */
  busyDate: () => ({
    kind: "status",
    status: 429,
    headers: { "retry-after": new Date(Date.now() + 1_000).toUTCString() },
  }),
  /** The provider failed, maybe after the model worked. */
  broken: () => ({ kind: "status", status: 500 }),
  /** The provider turned the request away. */
  overloaded: () => ({ kind: "status", status: 503 }),
  /** The connection is cut before a reply. */
  reset: () => ({ kind: "reset" }),
  /** It is cut in the middle of the reply. */
  halfReply: () => ({ kind: "reset-midway" }),
  /** The reply comes whole, with half of its JSON. */
  halfJson: () => ({ kind: "half-json" }),
} satisfies Record<string, () => TeacherBehaviour>;

export type TeacherFault = keyof typeof faults;

export interface TeacherWeather {
  seed: number;
  /** Share of tries that end so, 0 to 1 each and at most 1 together. */
  shares: Partial<Record<TeacherFault, number>>;
  /** From try number mostFaults + 1 on a call is answered well; fewer than the profile's max_retries lets every call end in a reply. */
  mostFaults: number;
  /** A good reply or a status takes this long, evenly spread. */
  latencyMs: { from: number; to: number };
}

/** What the weather does with a call: for `behave` of the teacher's server. */
export function teacherWeather(weather: TeacherWeather): (call: TeacherCall) => TeacherBehaviour {
  return (call) => {
    const { fault, delayMs } = forecastOf(weather, call);
    if (fault === undefined) return { kind: "good", delayMs };
    const behaviour = faults[fault]();
    return behaviour.kind === "status" ? { ...behaviour, delayMs } : behaviour;
  };
}

/** The fault, if any, and the delay of a call. The prompt and its seed tell calls apart, not the key: that names a project and an address. */
export function forecastOf(
  { seed, shares, mostFaults, latencyMs }: TeacherWeather,
  call: Pick<TeacherCall, "prompt" | "seed" | "try">,
): { fault: TeacherFault | undefined; delayMs: number } {
  const digest = createHash("sha256")
    .update(JSON.stringify([seed, call.prompt, call.seed ?? null, call.try]))
    .digest();
  const delayMs = Math.round(latencyMs.from + (latencyMs.to - latencyMs.from) * (digest.readUInt32BE(0) / 2 ** 32));
  let drawn = call.try > mostFaults ? 1 : digest.readUInt32BE(4) / 2 ** 32;
  for (const [fault, share] of Object.entries(shares)) {
    drawn -= share;
    if (drawn < 0) return { fault: fault as TeacherFault, delayMs };
  }
  return { fault: undefined, delayMs };
}
