/** tutelage profiles: what the server offers, and what a profile really answers. */
import type { Command } from "commander";
import type { Api } from "./api.js";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { columnOf, readSource } from "./rows.js";
import { taskOf } from "./run.js";
import { money, table } from "./show.js";
import { readSpec } from "./spec.js";
import { wholeTask } from "./tasks.js";

interface Profile {
  name: string;
  model: string;
  description: string;
}

export function addProfileCommands(program: Command, { api, print }: CommandContext): void {
  const profiles = program
    .command("profiles")
    .description("the students and teachers that the server offers; test one")
    .action(async () => {
      const { students, teachers } = await offered(api());
      print({ students, teachers }, () =>
        table(
          ["", "name", "model", ""],
          [
            ...students.map((one) => ["student", one.name, one.model, one.description]),
            ...teachers.map((one) => ["teacher", one.name, one.model, one.description]),
          ],
        ),
      );
    });
  profiles
    .command("show <teacher>")
    .description("a teacher, whether its provider answers, and how many calls are made at once")
    .action(async (name: string) => {
      const weather = await api().json<TeacherWeather>("GET", `/v1/profiles/teachers/${encodeURIComponent(name)}`);
      print(weather, () => weatherText(weather));
    });
  profiles
    .command("test <name>")
    .description("one small real answer of a teacher or a student: prompt, reply, cost; or why not, and what to do")
    .option("--campaign <campaign.yaml>", "a teacher is asked for a row of this task instead of a preset one")
    .action(async (name: string, options: { campaign?: string }) => {
      const { text, result, ok } = await testProfile(api(), name, options.campaign);
      print(result, () => text);
      if (!ok) process.exitCode = exitCodes.failed;
    });
}

async function offered(api: Api): Promise<{ students: Profile[]; teachers: Profile[] }> {
  const [students, teachers] = await Promise.all([
    api.json<{ profiles: Profile[] }>("GET", "/v1/profiles/students"),
    api.json<{ profiles: Profile[] }>("GET", "/v1/profiles/teachers"),
  ]);
  return { students: students.profiles, teachers: teachers.profiles };
}

interface TeacherWeather {
  profile: Profile & { provider: string; fallback: string };
  breaker: { state: string; reason: string; opened_at?: string; probe_at?: string; failed_probes: number };
  max_concurrency: number;
  senders: { replica: string; concurrency: number; under_way: number }[];
}

/** What somebody wants to know whose campaign waits. Pure. */
export function weatherText({ profile, breaker, max_concurrency, senders }: TeacherWeather): string {
  const lines = [`${profile.name}: ${profile.model} (${profile.provider})`];
  if (breaker.state === "closed") lines.push("answers: calls are made");
  else {
    lines.push(
      `away since ${breaker.opened_at}: ${breaker.reason}`,
      breaker.state === "half_open"
        ? "being tried now"
        : `tried again at ${breaker.probe_at}, if there is work for it; ${breaker.failed_probes} tries failed`,
    );
  }
  if (profile.fallback !== "") lines.push(`while it is away, "${profile.fallback}" is asked`);
  for (const one of senders) {
    lines.push(
      `${one.replica}: ${one.under_way} calls under way, ${one.concurrency} of at most ${max_concurrency} allowed`,
    );
  }
  return lines.join("\n");
}

interface TeacherTest {
  ok: boolean;
  parsed?: { input: string; output: string };
  error?: { code: string; message: string; fix: string };
  calls: {
    prompt: string;
    raw_reply: string;
    error_code: string;
    prompt_tokens: number;
    completion_tokens: number;
    cost_micro_usd: number;
    seconds: number;
  }[];
  seconds: number;
}

interface StudentTest {
  answers: { input: string; text: string; too_long: boolean }[];
  seconds: number;
}

/** Rows beside the one to vary that a teacher is shown. */
const shownExamples = 8;

/** Asks a profile. `campaignFile`: whose task and rows a teacher is asked with. */
async function testProfile(
  api: Api,
  name: string,
  campaignFile: string | undefined,
): Promise<{ result: unknown; ok: boolean; text: string }> {
  const { students, teachers } = await offered(api);
  const path = encodeURIComponent(name);
  if (teachers.some((one) => one.name === name)) {
    const body = campaignFile === undefined ? {} : await ownTask(api, campaignFile);
    const result = await api.json<TeacherTest>("POST", `/v1/profiles/teachers/${path}/test`, body);
    return { result, ok: result.ok, text: teacherText(name, result) };
  }
  if (students.some((one) => one.name === name)) {
    const result = await api.json<StudentTest>("POST", `/v1/profiles/students/${path}/test`, {});
    return { result, ok: true, text: studentText(name, result) };
  }
  const names = [...students, ...teachers].map((one) => one.name).join(", ");
  throw new Stop(`There is no profile "${name}"; there are ${names}.`, exitCodes.refused);
}

/** The task of a campaign.yaml, with the first row of its train file to vary and some others to show. */
async function ownTask(api: Api, file: string): Promise<object> {
  const { name, data, task } = await readSpec(file);
  if (data.train === undefined) {
    throw new Stop(`${file} names no train file, whose rows the teacher could be shown.`, exitCodes.refused);
  }
  const source = await readSource(data.train);
  const rows = source.rows.flatMap(({ fields }) => {
    const input = String(fields?.[columnOf(source, data.columns.input)] ?? "").trim();
    const output = String(fields?.[columnOf(source, data.columns.output)] ?? "").trim();
    return input === "" || output === "" ? [] : [{ input, output }];
  });
  const [row] = rows;
  if (row === undefined) {
    const { input, output } = data.columns;
    throw new Stop(`${data.train} has no row with both ${input} and ${output}; see data.columns.`, exitCodes.refused);
  }
  const alike = rows.slice(1).filter((one) => one.output === row.output);
  return {
    task: taskOf({ name, task: await wholeTask(api, task) }),
    row,
    examples: (alike.length > 0 ? alike : rows.slice(1)).slice(0, shownExamples),
  };
}

function teacherText(name: string, { ok, parsed, error, calls, seconds }: TeacherTest): string {
  const lines = calls.flatMap((call) => [
    "── prompt",
    call.prompt,
    "── reply",
    call.raw_reply === "" ? `(none: ${call.error_code})` : call.raw_reply,
    `── ${call.prompt_tokens} + ${call.completion_tokens} tokens, ${money(call.cost_micro_usd)}, ${call.seconds.toFixed(1)} s`,
  ]);
  if (parsed !== undefined) lines.push("", `read as  input: ${parsed.input}`, `        output: ${parsed.output}`);
  if (error !== undefined) lines.push("", `${error.code}: ${error.message}`, error.fix);
  lines.push("", `${name} ${ok ? "works" : "does not work"} (${seconds.toFixed(1)} s in all)`);
  return lines.join("\n");
}

function studentText(name: string, { answers, seconds }: StudentTest): string {
  const lines = answers.map(({ input, text, too_long }) => `${input} → ${too_long ? "(too long)" : text}`);
  return [...lines, "", `${name} answers, not yet trained for any task (${seconds.toFixed(1)} s in all)`].join("\n");
}
