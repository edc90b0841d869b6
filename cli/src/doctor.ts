/** tutelage doctor: what is missing on this machine and at the server, and how to get it. */
import { connect } from "node:net";
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { disk, type Finding, finding, gpu, home, memory, models, node, python, setUp } from "./machine.js";
import { table } from "./show.js";
import { tokenHeaders } from "./token.js";

const askMs = 5_000;

export function addDoctorCommand(program: Command, { api, print }: CommandContext): void {
  program
    .command("doctor")
    .description("what is missing on this machine and at the server, and how to get it; 1 when something is")
    .action(async () => {
      const findings = await examine(api().url);
      print(findings, () =>
        table(
          ["", "", "found", "what to do"],
          findings.map(({ name, state, found, fix }) => [
            { ok: "✓", missing: "✗", note: "!" }[state],
            name,
            found,
            fix,
          ]),
        ),
      );
      if (findings.some(({ state }) => state === "missing")) process.exitCode = exitCodes.failed;
    });
}

/** Looks at everything at once. */
export async function examine(url: string): Promise<Finding[]> {
  const isServed = await answersAsTutelage(url);
  return await Promise.all([
    node(),
    python(),
    setUp(),
    models(),
    home(),
    gpu(),
    disk(),
    memory(),
    port(isServed),
    server(url, isServed),
    ...(isServed ? [profiles(url)] : []),
  ]);
}

/**
 * Whether the port that `tutelage up` would take is free, or taken by a Tutelage already.
 * @param isServed whether a server answers, wherever it is: then nobody needs the port
 */
export async function port(isServed: boolean): Promise<Finding> {
  const given = process.env.TUTELAGE_PORT || "8080";
  const number = Number(given);
  if (!Number.isInteger(number) || number < 0 || number > 65_535) {
    return finding("port", false, `TUTELAGE_PORT is "${given}"`, "Set it to a port number, e.g. 8080.");
  }
  if (number === 0) return finding("port", true, "a free one is chosen", "");
  if (!(await listens(number))) return finding("port", true, `${number} is free`, "");
  const tutelage = await answersAsTutelage(`http://127.0.0.1:${number}`);
  if (tutelage) return finding("port", true, `${number} is served by Tutelage`, "");
  const other = number === 65_535 ? number - 1 : number + 1;
  const fix = `Stop it, or take another: "tutelage up --port ${other}" and TUTELAGE_URL=http://127.0.0.1:${other}.`;
  const found = `something that is not Tutelage listens on ${number}`;
  return finding("port", false, found, fix, isServed ? "note" : "missing");
}

async function listens(number: number): Promise<boolean> {
  return await new Promise((done) => {
    const socket = connect({ port: number, host: "127.0.0.1", timeout: askMs });
    const end = (taken: boolean) => {
      socket.destroy();
      done(taken);
    };
    socket.once("connect", () => end(true)).once("error", () => end(false));
    socket.once("timeout", () => end(false));
  });
}

interface Answer {
  status: number;
  body: { status?: string; type?: string; profiles?: { name: string; model: string }[]; errors?: { field: string }[] };
}

/** One short question; undefined when nobody answers in time. */
async function ask(url: string, path: string, headers: Record<string, string> = {}): Promise<Answer | undefined> {
  const signal = AbortSignal.timeout(askMs);
  const response = await fetch(`${url}${path}`, { headers, signal }).catch(() => undefined);
  if (response === undefined) return undefined;
  const body: unknown = await response.json().catch(() => undefined);
  return { status: response.status, body: (body ?? {}) as Answer["body"] };
}

/** Any program may answer 200; readiness in these words, or a problem under this name, only Tutelage. */
async function answersAsTutelage(url: string): Promise<boolean> {
  const answer = await ask(url, "/ready");
  return answer?.body.status === "ready" || answer?.body.type === "urn:tutelage:problem:not_ready";
}

async function server(url: string, isServed: boolean): Promise<Finding> {
  const answer = await ask(url, "/ready");
  if (answer === undefined) {
    return { name: "server", state: "missing", found: `nobody at ${url}`, fix: 'Start it with "tutelage up".' };
  }
  if (!isServed) {
    const fix = "Name the server with --url or TUTELAGE_URL.";
    return finding("server", false, `${url} answers, but not as Tutelage does`, fix);
  }
  const away = (answer.body.errors ?? []).map(({ field }) => field).join(", ");
  const fix = "Wait a moment; then see the logs in its data directory.";
  return finding("server", answer.status === 200, `${url} is ${away === "" ? "ready" : `not ready: ${away}`}`, fix);
}

async function profiles(url: string): Promise<Finding> {
  const offered = async (kind: string) => {
    const answer = await ask(url, `/v1/profiles/${kind}`, tokenHeaders());
    if (answer?.status === 401) throw new Stop("the server wants its token: set TUTELAGE_TOKEN", exitCodes.refused);
    if (answer?.body.profiles === undefined) throw new Stop(`${kind} are not answered`, exitCodes.unavailable);
    return answer.body.profiles;
  };
  try {
    const [students, teachers] = await Promise.all([offered("students"), offered("teachers")]);
    const names = (some: { name: string }[]) => some.map(({ name }) => name).join(", ") || "none";
    const found = `students ${names(students)}; teachers ${names(teachers)}`;
    if (students.length === 0 || teachers.length === 0) {
      const fix = "Name a file of profiles with STUDENT_PROFILES or TEACHER_PROFILES, and start the server again.";
      return finding("profiles", false, found, fix);
    }
    const fix =
      "The embedded teacher is small: a stronger one is a few lines in a file that TEACHER_PROFILES names. " +
      '"tutelage profiles test NAME" shows whether one answers.';
    return finding("profiles", teachers.length > 1, found, fix, "note");
  } catch (error) {
    const why = (error as Error).message;
    return { name: "profiles", state: "note", found: `not asked: ${why}`, fix: "" };
  }
}
