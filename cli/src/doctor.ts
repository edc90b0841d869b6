/** tutelage doctor: what is missing on this machine, and how to get it. */
import { execFile } from "node:child_process";
import { statfs } from "node:fs/promises";
import { freemem, homedir, totalmem } from "node:os";
import { promisify } from "node:util";
import { exitCodes, Stop } from "./exit.js";
import { tokenHeaders } from "./token.js";

const run = promisify(execFile);

export interface Finding {
  name: string;
  /** "note" is worth knowing and stops nothing. */
  state: "ok" | "missing" | "note";
  found: string;
  /** What to do; empty when all is well. */
  fix: string;
}

const leastNode = [20, 18] as const;
const leastPython = [3, 11] as const;
/** PyTorch's wheels and both models. */
const leastDiskGb = 8;
const leastMemoryGb = 4;

/** Looks at everything at once. */
export async function examine(url: string): Promise<Finding[]> {
  return await Promise.all([node(), python(), disk(), memory(), server(url), profiles(url)]);
}

async function node(): Promise<Finding> {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const fine = major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1]);
  return finding("Node", fine, process.versions.node, `Install Node ${leastNode.join(".")} or newer from nodejs.org.`);
}

async function python(): Promise<Finding> {
  const command = process.env.TUTELAGE_PYTHON ?? "python3";
  const version = await run(command, ["--version"]).then(
    ({ stdout }) => stdout.replace("Python", "").trim(),
    () => "",
  );
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const fine = major > leastPython[0] || (major === leastPython[0] && minor >= leastPython[1]);
  const fix = `Install Python ${leastPython.join(".")} or newer with venv, or set TUTELAGE_PYTHON to one.`;
  return finding("Python", fine, version || `${command} does not run`, fix);
}

async function disk(): Promise<Finding> {
  const home = process.env.TUTELAGE_HOME ?? homedir();
  const { bavail, bsize } = await statfs(home).catch(() => statfs("."));
  const freeGb = (bavail * bsize) / 1e9;
  const fix = `The first set-up needs about ${leastDiskGb} GB; free some, or set TUTELAGE_HOME to a larger disk.`;
  return finding("disk", freeGb >= leastDiskGb, `${freeGb.toFixed(1)} GB free`, fix, "note");
}

async function memory(): Promise<Finding> {
  const gb = totalmem() / 1e9;
  const fix = `The default student and teacher need about ${leastMemoryGb} GB together; close something else.`;
  return finding("memory", gb >= leastMemoryGb, `${gb.toFixed(1)} GB, ${(freemem() / 1e9).toFixed(1)} free`, fix);
}

async function server(url: string): Promise<Finding> {
  const response = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(3_000) }).catch(() => undefined);
  if (response === undefined) {
    return { name: "server", state: "missing", found: `nobody at ${url}`, fix: 'Start it with "tutelage up".' };
  }
  const fix = "One of its services is away: see the logs in its data directory.";
  return finding("server", response.ok, `${url} answers ${response.status}`, fix);
}

async function profiles(url: string): Promise<Finding> {
  const names = async (kind: string) => {
    const headers = tokenHeaders();
    const response = await fetch(`${url}/v1/profiles/${kind}`, { headers, signal: AbortSignal.timeout(5_000) });
    if (response.status === 401) throw new Stop("the server wants its token: set TUTELAGE_TOKEN", exitCodes.refused);
    return ((await response.json()) as { profiles: { name: string }[] }).profiles.map(({ name }) => name);
  };
  try {
    const [students, teachers] = await Promise.all([names("students"), names("teachers")]);
    const found = `students ${students.join(", ")}; teachers ${teachers.join(", ")}`;
    const stronger = teachers.length === 1;
    return {
      name: "profiles",
      state: stronger ? "note" : "ok",
      found,
      fix: stronger
        ? "The embedded teacher is small: a stronger one is a few lines in a file that TEACHER_PROFILES names."
        : "",
    };
  } catch (error) {
    const why = error instanceof Stop ? error.message : "the server is away";
    return { name: "profiles", state: "note", found: `not asked: ${why}`, fix: "" };
  }
}

function finding(
  name: string,
  fine: boolean,
  found: string,
  fix: string,
  otherwise: "missing" | "note" = "missing",
): Finding {
  return { name, state: fine ? "ok" : otherwise, found, fix: fine ? "" : fix };
}
