/** tutelage campaigns …: which there are, what one did, and what it is called. */
import { type Command, Option } from "commander";
import type { Campaign, Iteration } from "./api.js";
import { addBundleCommand } from "./bundle.js";
import { type CommandContext, query } from "./context.js";
import { addControlCommands } from "./control.js";
import { type Row, saidIn } from "./datasets.js";
import { removalText, remove } from "./deletion.js";
import { exitCodes, Stop } from "./exit.js";
import { addForkCommand } from "./fork.js";
import { listed } from "./listing.js";
import { addReviewCommands } from "./reviews.js";
import { duration, money, percent, table } from "./show.js";
import { wholeNumber } from "./wholenumber.js";

interface Candidate {
  number: number;
  iteration: number;
  accepted: boolean;
  rejection: string;
  output: string;
  input: string;
  probability: number;
}

interface SeedRow {
  row?: Row;
  grades: { iteration: number; correct: boolean; answer: string }[];
  candidates: number;
  accepted: number;
  state: string;
}

interface LedgerCall {
  id: string;
  purpose: string;
  iteration?: number;
  finished_at: string;
  prompt_tokens: number;
  completion_tokens: number;
  cost_micro_usd: number;
  seconds: number;
  outcome: string;
  error_code: string;
  after_crash: boolean;
}

interface LedgerTotal {
  purpose: string;
  calls: number;
  failed_calls: number;
  reused_calls: number;
  prompt_tokens: number;
  completion_tokens: number;
  cost_micro_usd: number;
  teacher_seconds: number;
  saved_micro_usd: number;
}

/** Adds `campaigns` with its commands. */
export function addCampaignCommands(program: Command, context: CommandContext): void {
  const { api, print, note } = context;
  const campaigns = program
    .command("campaigns")
    .description(
      "list, show, change, pause, resume, cancel, retry, fork, delete; their iterations, seed rows, reviews, candidates, ledger, dataset, evidence",
    );
  campaigns
    .command("list")
    .option("--limit <count>", "most campaigns to list", "20")
    .option("--status <statuses>", "only these, separated by commas: running, paused, failed, …")
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
  addControlCommands(campaigns, { api, print });
  addForkCommand(campaigns, { api, print });
  addBundleCommand(campaigns, context);
  campaigns
    .command("delete <id>")
    .description("remove a campaign that has ended, with its dataset, students, predictions and teacher replies")
    .action(async (id: string) => {
      const removal = await remove(api(), `/v1/campaigns/${encodeURIComponent(id)}`);
      print(removal, () => removalText(removal));
    });

  campaigns
    .command("iterations <id>")
    .description("what each iteration trained on, found, kept and scored")
    .action(async (id: string) => {
      const { iterations } = await api().json<{ iterations: Iteration[] }>(
        "GET",
        `/v1/campaigns/${encodeURIComponent(id)}/iterations`,
      );
      print(iterations, () => iterationsTable(iterations));
    });

  campaigns
    .command("seed-rows <id>")
    .description("your rows: right or wrong in each mined iteration, and what was written from them")
    .option("--limit <count>", "most rows to list", "100")
    .action(async (id: string, { limit }: { limit: string }) => {
      const path = `/v1/campaigns/${encodeURIComponent(id)}/seed-rows`;
      const { rows } = await listed<{ rows: SeedRow[]; next_cursor: string }>(api(), path, "rows", { limit, note });
      print(rows, () => seedRowsTable(rows));
    });

  addReviewCommands(campaigns, { api, print, note });
  campaigns
    .command("update <id>")
    .description(
      "rename or annotate a campaign, or raise a cap, which resumes one that it stopped; what is left out stays",
    )
    .option("--name <name>", "a name for people")
    .option("--note <text>", "whatever is worth remembering; empty removes it")
    .option("--tag <tag...>", "instead of the tags it has")
    .option("--max-teacher-calls <count>", "a higher cap; 0 for none", wholeNumber)
    .option("--max-teacher-tokens <count>", "a higher cap; 0 for none", wholeNumber)
    .option("--max-cost-micro-usd <amount>", "a higher cap; 0 for none", wholeNumber)
    .option("--max-training-seconds <seconds>", "a higher cap; 0 for none", wholeNumber)
    .action(
      async (
        id: string,
        given: Partial<
          Record<"maxTeacherCalls" | "maxTeacherTokens" | "maxCostMicroUsd" | "maxTrainingSeconds", number>
        > & {
          name?: string;
          note?: string;
          tag?: string[];
        },
      ) => {
        const change = {
          name: given.name,
          note: given.note,
          tags: given.tag,
          max_teacher_calls: given.maxTeacherCalls,
          max_teacher_tokens: given.maxTeacherTokens,
          max_cost_micro_usd: given.maxCostMicroUsd,
          max_training_seconds: given.maxTrainingSeconds,
        };
        if (Object.values(change).every((value) => value === undefined)) {
          throw new Stop("Say what to change: --name, --note, --tag, or a cap; see --help.", exitCodes.usage);
        }
        const campaign = await api().json<Campaign>("PATCH", `/v1/campaigns/${encodeURIComponent(id)}`, change);
        print(campaign, () => `${id}: changed`);
      },
    );

  campaigns
    .command("candidates <id>")
    .description("what the teacher wrote, and what became of it")
    .addOption(new Option("--accepted", "only those that became rows").conflicts("rejected"))
    .option("--rejected", "only those that did not")
    .option("--reason <reason>", "only those rejected for this reason, e.g. near_duplicate")
    .option("--seed-row <row>", "only those written from this seed row")
    .option("--iteration <number>", "only this iteration")
    .option("--limit <count>", "most candidates to list", "100")
    .action(
      async (
        id: string,
        given: Record<"reason" | "seedRow" | "iteration" | "limit", string | undefined> &
          Record<"accepted" | "rejected", true | undefined>,
      ) => {
        const asked = query({
          accepted: given.accepted ? "true" : given.rejected ? "false" : undefined,
          rejection: given.reason,
          seed_row: given.seedRow,
          iteration: given.iteration,
        });
        const path = `/v1/campaigns/${encodeURIComponent(id)}/candidates${asked}`;
        type Page = { candidates: Candidate[]; next_cursor: string };
        const { candidates } = await listed<Page>(api(), path, "candidates", { limit: given.limit ?? "100", note });
        print(candidates, () =>
          table(
            ["iteration", "", "sure", "output", "input"],
            candidates.map((one) => [
              String(one.iteration),
              one.accepted ? "kept" : one.rejection,
              percent(one.probability),
              one.output,
              one.input,
            ]),
          ),
        );
      },
    );

  campaigns
    .command("ledger <id> [call]")
    .description("every teacher call and what it cost; or one call with its prompt and raw reply")
    .option("--limit <count>", "most calls to list; the totals are over all", "100")
    .action(async (id: string, call: string | undefined, { limit }: { limit: string }) => {
      if (call !== undefined) {
        const one = await api().json<LedgerCall & { prompt: string; raw_reply: string }>(
          "GET",
          `/v1/campaigns/${encodeURIComponent(id)}/ledger/${encodeURIComponent(call)}`,
        );
        print(one, () => `${callsTable([one])}\n\nPrompt\n${one.prompt}\n\nReply\n${one.raw_reply}`);
        return;
      }
      const path = `/v1/campaigns/${encodeURIComponent(id)}/ledger`;
      type Page = { calls: LedgerCall[]; totals: LedgerTotal[]; next_cursor: string };
      const ledger = await listed<Page>(api(), path, "calls", { limit, note });
      print(ledger, () => `${totalsTable(ledger.totals)}\n\n${callsTable(ledger.calls)}`);
    });

  campaigns
    .command("dataset <id>")
    .description("the dataset version that the returned student was trained on")
    .action(async (id: string) => {
      const dataset = await api().json<{ version: { id: string; row_count: number }; seed_version_id: string }>(
        "GET",
        `/v1/campaigns/${encodeURIComponent(id)}/dataset`,
      );
      print(dataset, () =>
        table(
          ["version", "rows", "began with"],
          [[dataset.version.id, String(dataset.version.row_count), dataset.seed_version_id]],
        ),
      );
    });
}

function iterationsTable(iterations: readonly Iteration[]): string {
  return table(
    ["iteration", "rows", "errors", "kept", "of", "dev", "cross-fit", "test", "time"],
    iterations.map((one) => [
      String(one.number),
      String(one.train_rows),
      one.mined ? String(one.errors) : "–",
      String(one.accepted),
      String(one.candidates),
      percent(one.dev_accuracy),
      percent(one.cross_fit_accuracy),
      percent(one.test_accuracy),
      duration(one.seconds),
    ]),
  );
}

function seedRowsTable(rows: readonly SeedRow[]): string {
  return table(
    ["row", "by iteration", "state", "kept", "of", "output", "last answer", "input"],
    rows.map(({ row, grades, state, accepted, candidates }) => [
      row?.id ?? "",
      grades.map(({ correct }) => (correct ? "✓" : "✗")).join(""),
      state,
      String(accepted),
      String(candidates),
      row?.output ?? "",
      grades.at(-1)?.answer ?? "",
      row === undefined ? "" : saidIn(row),
    ]),
  );
}

function callsTable(calls: readonly LedgerCall[]): string {
  return table(
    ["call", "ended", "purpose", "iteration", "tokens in", "out", "cost", "seconds", ""],
    calls.map((one) => [
      one.id,
      one.finished_at.slice(0, 19).replace("T", " "),
      one.purpose,
      one.iteration === undefined ? "–" : String(one.iteration),
      String(one.prompt_tokens),
      String(one.completion_tokens),
      money(one.cost_micro_usd),
      one.seconds.toFixed(1),
      `${one.outcome === "failed" ? `failed: ${one.error_code}` : one.outcome}${one.after_crash ? ", made again" : ""}`,
    ]),
  );
}

function totalsTable(totals: readonly LedgerTotal[]): string {
  return table(
    ["purpose", "calls", "failed", "reused", "saved", "tokens in", "out", "cost", "time"],
    totals.map((one) => [
      one.purpose,
      String(one.calls),
      String(one.failed_calls),
      String(one.reused_calls),
      money(one.saved_micro_usd),
      String(one.prompt_tokens),
      String(one.completion_tokens),
      money(one.cost_micro_usd),
      duration(one.teacher_seconds),
    ]),
  );
}
