/** The `tutelage` command: a client of the REST API, and `up` for a server of one's own. */
import { Command, CommanderError, Option } from "commander";
import { Api } from "./api.js";
import { addBudgetCommand } from "./budget.js";
import { addCampaignCommands } from "./campaigns.js";
import { addColdCopyCommands } from "./coldcopy.js";
import type { CommandContext } from "./context.js";
import { addDatasetCommands } from "./datasets.js";
import { addDoctorCommand } from "./doctor.js";
import { exitCodes, problemOf, Stop } from "./exit.js";
import { addExportCommand } from "./export.js";
import { follow } from "./follow.js";
import { init } from "./init.js";
import { addMaintenanceCommands } from "./maintenance.js";
import { addPredictCommand } from "./predict.js";
import { addProfileCommands } from "./profiles.js";
import { addReportCommand } from "./report.js";
import { prepare, start } from "./run.js";
import { jsonLine, money, table, visible } from "./show.js";
import { campaignJsonSchema, readSpec } from "./spec.js";
import { addTaskCommands } from "./tasks.js";
import { up } from "./up.js";
import { addVerifyCommand } from "./verify.js";
import type { Screen } from "./watch.js";
import { addWebhookCommands } from "./webhooks.js";

const screen: Screen = {
  isTerminal: process.stderr.isTTY === true,
  columns: process.stderr.columns ?? 80,
  write: (text) => process.stderr.write(text),
};

const program = new Command("tutelage")
  .description("A few dozen labelled examples in, a better small language model out, with the proof.")
  .version("0.1.0")
  .addOption(new Option("--url <url>", "the server").env("TUTELAGE_URL").default("http://127.0.0.1:8080"))
  .option("--json", "one JSON document on standard output, everything else on standard error", false)
  .configureHelp({ showGlobalOptions: true })
  .exitOverride()
  .addHelpText(
    "after",
    `
Begin:
  tutelage up                    start a server on this machine (in another shell)
  tutelage init data.csv         write a commented campaign.yaml
  tutelage run campaign.yaml     import, start, watch

Exit codes: 0 done; 1 the campaign failed, was cancelled or its budget is exhausted, a check (doctor, profiles test)
found something wrong, or an import left rows out; 64 wrong usage; 65 refused, the message says why; 66 a file cannot be
read or written; 69 nobody answers, not in time, or not to the end; 130 interrupted (a campaign goes on).

With --json standard output is one JSON document, whatever the end: the result; the campaign with its failure; or, with
the codes from 64 on, a problem document (RFC 9457) whose "reason" is stable: the server's own, or one of the same form.`,
  );

/** Also where the arguments cannot be understood, and nobody knows which option is whose. */
const json = () => program.opts<{ json: boolean }>().json || process.argv.includes("--json");
const document = (value: unknown) => process.stdout.write(`${jsonLine(value)}\n`);

/** One for all calls of a command, so that they share its connections. */
let server: Api | undefined;

const context: CommandContext = {
  api: () => {
    server ??= new Api(program.opts<{ url: string }>().url.replace(/\/+$/, ""));
    return server;
  },
  json,
  print: (value, text) => {
    if (json()) document(value);
    else process.stdout.write(`${visible(text())}\n`);
  },
  note: (line) => {
    process.stderr.write(`${visible(line)}\n`);
  },
};
const { api, print, note } = context;

program
  .command("up")
  .description("run the whole server on this machine until Ctrl-C, which ends it with code 0")
  .option("--port <port>", "HTTP port on loopback (default 8080)")
  .option("--home <directory>", "where everything is kept (default ~/.tutelage)")
  .action(async (options: { port?: string; home?: string }) => {
    if (json()) throw new Stop('"up" runs until Ctrl-C and has no result: leave --json out.', exitCodes.usage);
    await up(options);
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
    await follow(started.run.id, screen, context);
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
  .description("follow a campaign to its end; Ctrl-C ends the watching only")
  .action(async (id: string) => await follow(id, screen, context));

addReportCommand(program, context);
addExportCommand(program, context);
addVerifyCommand(program, context);
addPredictCommand(program, context);
addCampaignCommands(program, context);
addDatasetCommands(program, context);
addTaskCommands(program, context);
addProfileCommands(program, context);
addWebhookCommands(program, context);

program
  .command("usage")
  .description("what all teacher calls used, those of deleted campaigns too")
  .action(async () => {
    type Usage = Record<
      "calls" | "reused_calls" | "saved_micro_usd" | "prompt_tokens" | "completion_tokens" | "cost_micro_usd",
      number
    >;
    const usage = await api().json<Usage>("GET", "/v1/usage");
    print(
      usage,
      () =>
        `${usage.calls} calls (${usage.reused_calls} more answered from stored replies, which had cost ${money(usage.saved_micro_usd)}), ` +
        `${usage.prompt_tokens} + ${usage.completion_tokens} tokens, ${money(usage.cost_micro_usd)}`,
    );
  });

addBudgetCommand(program, context);

program
  .command("schema")
  .description("the JSON Schema of campaign.yaml, for editors")
  .action(() => {
    const schema = campaignJsonSchema();
    print(schema, () => JSON.stringify(schema, undefined, 2));
  });

addMaintenanceCommands(program, context);
addColdCopyCommands(program, context);
addDoctorCommand(program, context);

/** Says how it ended, and gives the exit code. */
function ended(error: unknown): number {
  if (error instanceof CommanderError) {
    // Commander has printed help, version, or what is wrong with the arguments.
    if (error.exitCode === 0) return exitCodes.ok;
    const message = error.code === "commander.help" ? 'Which command? "tutelage --help" lists them.' : error.message;
    if (json()) document(problemOf(new Stop(message, exitCodes.usage)));
    return exitCodes.usage;
  }
  if (error instanceof Stop) {
    note(error.message);
    if (json()) document(problemOf(error));
    return error.code;
  }
  // A fault of this program: whoever reports it needs the stack.
  note(error instanceof Error ? (error.stack ?? error.message) : String(error));
  if (json()) document(problemOf(new Stop(String(error), exitCodes.failed, { reason: "internal" })));
  return exitCodes.failed;
}

// "tutelage … | head" is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? exitCodes.ok : exitCodes.failed);
});
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = ended(error);
  // What was interrupted may still be under way.
  if (process.exitCode === exitCodes.interrupted) process.stdout.write("", () => process.exit());
}
