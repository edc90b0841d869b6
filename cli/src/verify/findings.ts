/** What the checks of a bundle find. */

/** Something that is not as the parts say. */
export interface Finding {
  check: string;
  /** The member of the bundle that says it. */
  member: string;
  /** Which row, run or iteration, and what differs. */
  message: string;
}

/** What a check looked at. */
export interface Checked {
  check: string;
  /** Counts for a person: "3 versions, 143 rows". */
  looked_at: string;
}

/** More of one check tell nobody more. */
const mostFindings = 10;

export class Findings {
  readonly checked: Checked[] = [];
  readonly findings: Finding[] = [];
  private check = "";

  /** Runs one check, which gives what it looked at. */
  async run(check: string, work: () => string | Promise<string>): Promise<void> {
    this.check = check;
    const looked_at = await work();
    this.checked.push({ check, looked_at });
  }

  /** Says that something differs. */
  differs(member: string, message: string): void {
    const own = this.findings.filter(({ check }) => check === this.check).length;
    if (own < mostFindings) this.findings.push({ check: this.check, member, message });
  }

  /** Says so where two values are not the same: what is stored, and what the parts come to. */
  same(member: string, what: string, stored: unknown, recomputed: unknown): void {
    const difference = firstDifference(stored, recomputed);
    if (difference !== undefined) this.differs(member, `${what}${difference}`);
  }
}

/** Computed by another machine, the last bits of a logarithm may be others. */
const tolerance = 1e-9;

/** Where two values differ first, as the end of a sentence; undefined where they are the same. What is undefined is not there. */
export function firstDifference(stored: unknown, recomputed: unknown, path = ""): string | undefined {
  if (typeof stored === "number" && typeof recomputed === "number") {
    const scale = Math.max(1, Math.abs(stored), Math.abs(recomputed));
    return Math.abs(stored - recomputed) <= tolerance * scale ? undefined : differing(path, stored, recomputed);
  }
  if (stored instanceof Date || recomputed instanceof Date || !isObject(stored) || !isObject(recomputed)) {
    return String(stored) === String(recomputed) && typeof stored === typeof recomputed
      ? undefined
      : differing(path, stored, recomputed);
  }
  if (Array.isArray(stored) && Array.isArray(recomputed) && stored.length !== recomputed.length) {
    return `${path}: there are ${stored.length}, by the parts ${recomputed.length}`;
  }
  for (const name of new Set([...Object.keys(stored), ...Object.keys(recomputed)])) {
    const inner = Array.isArray(stored) ? `${path}[${name}]` : `${path}.${name}`;
    const difference = firstDifference(stored[name], recomputed[name], inner);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

function differing(path: string, stored: unknown, recomputed: unknown): string {
  return `${path} is ${shown(stored)}, by the parts ${shown(recomputed)}`;
}

function shown(value: unknown): string {
  if (value === undefined) return "not there";
  const text = JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 199)}…` : text;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
