/** The `tutelage` command: a client of the REST API, and `up` for a server of one's own. */
import { createWriteStream } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { Command, CommanderError, Option } from "commander";
import { Api, type Campaign, type Iteration } from "./api.js";
import { addCampaignCommands } from "./campaigns.js";
import { query } from "./context.js";
import { addDatasetCommands } from "./datasets.js";
import { removalText, remove } from "./deletion.js";
import { examine } from "./doctor.js";
import { exitCodes, Stop } from "./exit.js";
import { archiveOf, type Form, readyExport, unpack } from "./export.js";
import { init } from "./init.js";
import { listed } from "./listing.js";
import { offered, testProfile } from "./profiles.js";
import { prepare, start } from "./run.js";
import { duration, money, outcomeText, percent, table } from "./show.js";
import { campaignJsonSchema, readSpec } from "./spec.js";
import { addTaskCommands } from "./tasks.js";
import { up } from "./up.js";
import { type Screen, watch } from "./watch.js";

interface Common {
  url: string;
  json: boolean;
}

const screen: Screen = {
  isTerminal: process.stderr.isTTY === true,
  columns: process.stderr.columns ?? 80,
  write: (text) => process.stderr.write(text),
};
const note = (line: string) => process.stderr.write(`${line}\n`);

const program = new Command("tutelage")
  .description("A few dozen labelled examples in, a better small language model out, with the proof.")
  .version("0.1.0")
  .addOption(new Option("--url <url>", "the server").env("TUTELAGE_URL").default("http://127.0.0.1:8080"))
  .option("--json", "one JSON value on standard output, everything else on standard error", false)
  .configureHelp({ showGlobalOptions: true })
  .exitOverride()
  .addHelpText(
    "after",
    `
Begin:
  tutelage up                    start a server on this machine (in another shell)
  tutelage init data.csv         write a commented campaign.yaml
  tutelage run campaign.yaml     import, start, watch

Exit codes: 0 done; 1 the campaign failed or was cancelled, or a check (doctor, profiles test) found something wrong; 64 wrong usage;
65 refused, the message says why; 66 a file cannot be read; 69 nobody answers; 130 interrupted (a campaign goes on).`,
  );

const api = () => new Api(program.opts<Common>().url.replace(/\/+$/, ""));
/** Prints a result: as JSON when asked, else as text. */
const print = (value: unknown, text: () => string) =>
  process.stdout.write(`${program.opts<Common>().json ? JSON.stringify(value) : text()}\n`);

program
  .command("up")
  .description("run the whole server on this machine until Ctrl-C")
  .option("--port <port>", "HTTP port on loopback (default 8080)")
  .option("--home <directory>", "where everything is kept (default ~/.tutelage)")
  .action(async (options: { port?: string; home?: string }) => {
    process.exitCode = await up(options);
  });

program
  .command("init <data>")
  .description("write a commented campaign.yaml from a .jsonl or .csv file, and say what was guessed and why")
  .option("--out <file>", "where to", "campaign.yaml")
  .option("--force", "overwrite it", false)
  .action(async (data: string, options: { out: string; force: boolean }) => {
    const guessed = await init(data, options);
    print({ out: options.out, ...guessed }, () =>
      [
        `Wrote ${options.out}:`,
        `  columns  ${guessed.columns.input} → ${guessed.columns.output} (${guessed.reasons.columns})`,
        `  kind     ${guessed.kind} (${guessed.reasons.kind})`,
        ...(guessed.labels.length > 0 ? [`  labels   ${guessed.labels.join(", ")}`] : []),
        `Read it, describe the labels, then: tutelage run ${options.out}`,
      ].join("\n"),
    );
  });

program
  .command("run <campaign.yaml>")
  .description("import the data, start the campaign and watch it; the same files find the campaign they started before")
  .option("--detach", "start it and return", false)
  .option("--new", "start another one although the same files were run before", false)
  .option("--strict", "refuse a data file with any bad row", false)
  .action(async (file: string, options: { detach: boolean; new: boolean; strict: boolean }) => {
    const spec = await readSpec(file);
    const prepared = await prepare(api(), spec, { strict: options.strict, say: note });
    const started = await start(api(), prepared, { anew: options.new, say: note });
    note(`Campaign ${started.run.id} (${started.run.status}). Closing this does not stop it.`);
    if (options.detach) {
      print(started, () => started.run.id);
      return;
    }
    await follow(started.run.id);
  });

program
  .command("estimate <campaign.yaml>")
  .description("check everything, resolve every default and forecast calls, tokens, money and time; starts nothing")
  .option("--strict", "refuse a data file with any bad row", false)
  .action(async (file: string, options: { strict: boolean }) => {
    const { body } = await prepare(api(), await readSpec(file), { strict: options.strict, say: note });
    const estimate = await api().json<{
      forecasts: { name: string; low: number; likely: number; high: number; basis: string }[];
    }>("POST", "/v1/campaigns/estimate", body);
    const number = (value: number) => Math.round(value).toLocaleString("en-US");
    print(estimate, () =>
      table(
        ["", "low", "likely", "high", "basis"],
        estimate.forecasts.map((one) => [one.name, number(one.low), number(one.likely), number(one.high), one.basis]),
      ),
    );
  });

program
  .command("watch <id>")
  .description("follow a campaign to its end")
  .action(async (id: string) => await follow(id));

program
  .command("report <id>")
  .description("what came of a campaign; as a page with --out report.html")
  .option("--out <file>", "write the page, one file that needs nothing else")
  .action(async (id: string, options: { out?: string }) => {
    if (options.out !== undefined) {
      await save(await api().download(`/v1/campaigns/${encodeURIComponent(id)}/report.html`), options.out);
      note(`Wrote ${options.out}.`);
      return;
    }
    const report = await api().json<{ campaign: Campaign; iterations: Iteration[]; advice: string[] }>(
      "GET",
      `/v1/campaigns/${encodeURIComponent(id)}/report`,
    );
    print(report, () => {
      const next = report.advice.map((line, index) => `${index + 1}. ${line}`).join("\n");
      return `${outcomeText(report.campaign, report.iterations)}${next === "" ? "" : `\n\nWhat to try next\n${next}`}`;
    });
  });

program
  .command("export <id>")
  .description("take the student home, checked and with its model card; or the enlarged dataset with --dataset")
  .addOption(new Option("--form <form>", "adapter for PEFT, or all weights").choices(["adapter", "merged"]))
  .option("--include-base", "with an adapter: the base weights too")
  .option("--no-include-base", "with an adapter: only its own files")
  .option("--out <path>", "a folder, or a file that ends in .tar, .tar.gz or .zip (default student.tar, or rows.jsonl)")
  .option("--dataset", "the rows that the returned student was trained on, as JSON Lines", false)
  .action(async (id: string, options: { form?: Form; includeBase?: boolean; out?: string; dataset: boolean }) => {
    const out = options.out ?? (options.dataset ? "rows.jsonl" : "student.tar");
    if (options.dataset) {
      const { outcome } = await api().json<{ outcome?: { dataset_version_id: string } }>(
        "GET",
        `/v1/campaigns/${encodeURIComponent(id)}`,
      );
      if (outcome === undefined) throw new Stop("The campaign has not succeeded yet.", exitCodes.refused);
      await save(await api().download(`/v1/versions/${outcome.dataset_version_id}/export`), out);
      note(`Wrote ${out}.`);
      return;
    }
    const archive = archiveOf(out);
    const { path, made } = await readyExport(api(), id, { ...options, archive: archive ?? "tar" }, note);
    const body = await api().download(path);
    if (archive === undefined) await unpack(Readable.fromWeb(body as ReadableStream), out);
    else await save(body, out);
    note(`Wrote ${out}; ${archive === undefined ? `${out}/README.md` : "README.md in it"} says how to load it.`);
    if (out !== "-" && program.opts<Common>().json) print({ ...made, out }, () => "");
  });

program
  .command("predict <id> [inputs...]")
  .description("ask a campaign's student; without inputs the lines of standard input are asked")
  .option("--conversations", 'each input is a conversation: [{"role": "user", "content": "…"}]', false)
  .action(async (id: string, inputs: string[], options: { conversations: boolean }) => {
    const asked = inputs.length > 0 ? inputs : await standardInputLines();
    const questions = options.conversations ? asked.map(conversationOf) : asked;
    const predictions: { text: string; probability: number }[] = [];
    for (let first = 0; first < asked.length; first += mostInputs) {
      const part = questions.slice(first, first + mostInputs);
      const reply = await api().json<{ predictions: { text: string; probability: number }[] }>(
        "POST",
        `/v1/campaigns/${encodeURIComponent(id)}/predict`,
        options.conversations ? { conversations: part } : { inputs: part },
      );
      predictions.push(...reply.predictions);
    }
    print(predictions, () =>
      table(
        ["answer", "sure", "input"],
        predictions.map((one, index) => [one.text, percent(one.probability), asked[index] ?? ""]),
      ),
    );
  });

const campaigns = program
  .command("campaigns")
  .description("list, show, change, cancel, delete; their candidates, ledger, dataset");
campaigns
  .command("list")
  .option("--limit <count>", "most campaigns to list", "20")
  .option("--status <statuses>", "only these, separated by commas: queued, running, succeeded, failed, cancelled")
  .option("--name <text>", "only those whose name contains it")
  .option("--dataset <dataset>", "only those on this dataset's rows")
  .option("--since <time>", "only those started since a time or day, e.g. 2026-01-31")
  .option("--before <time>", "only those started before it")
  .option("--tag <tag>", "only those with this tag")
  .action(async ({ limit = "20", ...given }: Record<string, string | undefined>) => {
    type Page = { campaigns: Campaign[]; next_cursor: string };
    const page = await listed<Page>(api(), `/v1/campaigns${query(given)}`, "campaigns", { limit, note });
    print(page.campaigns, () =>
      table(
        ["id", "status", "started", "name", "gain"],
        page.campaigns.map(({ run, request, outcome }) => [
          run.id,
          run.status,
          run.created_at?.slice(0, 16).replace("T", " ") ?? "",
          request?.name ?? "",
          outcome === undefined
            ? ""
            : `${percent(outcome.final?.test_accuracy)} against ${percent(outcome.baseline?.test_accuracy)}`,
        ]),
      ),
    );
  });
campaigns.command("get <id>").action(async (id: string) => {
  const campaign = await api().json<Campaign>("GET", `/v1/campaigns/${encodeURIComponent(id)}`);
  print(campaign, () => JSON.stringify(campaign, undefined, 2));
});
campaigns.command("cancel <id>").action(async (id: string) => {
  const campaign = await api().json<Campaign>("POST", `/v1/campaigns/${encodeURIComponent(id)}/cancel`, {});
  print(campaign, () => `${id}: ${campaign.run.status === "cancelled" ? "cancelled" : "will stop within seconds"}`);
});
campaigns
  .command("delete <id>")
  .description("remove a campaign that has ended, with its dataset, students, predictions and teacher replies")
  .action(async (id: string) => {
    const removal = await remove(api(), `/v1/campaigns/${encodeURIComponent(id)}`);
    print(removal, () => removalText(removal));
  });

addCampaignCommands(campaigns, { api, print, note });

const datasets = program.command("datasets").description("list, versions, rows, diff, lineage, delete");
addDatasetCommands(datasets, { api, print, note });
addTaskCommands(program, { api, print, note });

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
  .command("test <name>")
  .description("one small real answer of a teacher or a student: prompt, reply, cost; or why not, and what to do")
  .option("--campaign <campaign.yaml>", "a teacher is asked for a row of this task instead of a preset one")
  .action(async (name: string, options: { campaign?: string }) => {
    const { text, result, ok } = await testProfile(api(), name, options.campaign);
    print(result, () => text);
    if (!ok) process.exitCode = exitCodes.failed;
  });

program
  .command("usage")
  .description("what all teacher calls used, those of deleted campaigns too")
  .action(async () => {
    type Usage = Record<"calls" | "reused_calls" | "prompt_tokens" | "completion_tokens" | "cost_micro_usd", number>;
    const usage = await api().json<Usage>("GET", "/v1/usage");
    print(
      usage,
      () =>
        `${usage.calls} calls (${usage.reused_calls} more answered from stored replies), ` +
        `${usage.prompt_tokens} + ${usage.completion_tokens} tokens, ${money(usage.cost_micro_usd)}`,
    );
  });

program
  .command("schema")
  .description("the JSON Schema of campaign.yaml, for editors")
  .action(() => {
    process.stdout.write(`${JSON.stringify(campaignJsonSchema(), undefined, 2)}\n`);
  });

program
  .command("doctor")
  .description("what is missing on this machine, and how to get it")
  .action(async () => {
    const findings = await examine(api().url);
    print(findings, () =>
      table(
        ["", "", "found", "what to do"],
        findings.map(({ name, state, found, fix }) => [{ ok: "✓", missing: "✗", note: "!" }[state], name, found, fix]),
      ),
    );
    if (findings.some(({ state }) => state === "missing")) process.exitCode = exitCodes.failed;
  });

/** The server takes this many inputs at once. */
const mostInputs = 256;

async function follow(id: string): Promise<void> {
  const began = performance.now();
  const { campaign, iterations } = await watch(api(), id, screen);
  print({ ...campaign, iterations }, () => outcomeText(campaign, iterations));
  note(`Done after ${duration((performance.now() - began) / 1_000)}. Next: tutelage report ${id} --out report.html`);
}

async function save(
  body: ReadableStream<Uint8Array> | globalThis.ReadableStream<Uint8Array>,
  out: string,
): Promise<void> {
  if (out === "-") return await pipeline(Readable.fromWeb(body as ReadableStream), process.stdout);
  // Nothing half-written is left under the name that was asked for.
  const partial = `${out}.partial`;
  await writeFile(partial, "").catch((error: Error) => {
    throw new Stop(`Cannot write ${out}: ${error.message}`, exitCodes.noInput);
  });
  await pipeline(Readable.fromWeb(body as ReadableStream), createWriteStream(partial));
  await rename(partial, out);
}

function conversationOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Stop(`${text.slice(0, 80)} is not JSON; write [{"role": "user", "content": "…"}].`, exitCodes.usage);
  }
}

async function standardInputLines(): Promise<string[]> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const lines = Buffer.concat(chunks).toString("utf8").split("\n");
  return lines.filter((line) => line.trim() !== "");
}

// "tutelage … | head" is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? exitCodes.ok : exitCodes.failed);
});
process.on("SIGINT", () => {
  if (screen.isTerminal) screen.write("\n");
  note("Stopped watching; a campaign goes on.");
  process.exit(exitCodes.interrupted);
});
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  else if (error instanceof Stop) {
    note(error.message);
    process.exitCode = error.code;
  } else throw error;
}
