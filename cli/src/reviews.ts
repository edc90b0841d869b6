/** tutelage campaigns reviews, review: seed rows in doubt, and what somebody decides of them. */
import { type Command, Option } from "commander";
import { type CommandContext, query } from "./context.js";
import { type Row, saidIn } from "./datasets.js";
import { listed } from "./listing.js";
import { percent, table } from "./show.js";

interface Opinion {
  answer: string;
  probability?: number;
}

export interface Review {
  seed_row_id: string;
  kind: string;
  status: string;
  row?: Row;
  evidence: { iteration: number; students?: Opinion; teacher?: Opinion; text: string }[];
  output: string;
  reading: string;
  acted_iteration?: number;
}

export function addReviewCommands(
  campaigns: Command,
  { api, print, note }: Pick<CommandContext, "api" | "print" | "note">,
): void {
  campaigns
    .command("reviews <id>")
    .description("your rows whose label is in doubt, or whose answer two readings grade differently")
    .option("--status <status>", "only these: open, accepted, relabelled or excluded")
    .option("--limit <count>", "most reviews to list", "100")
    .action(async (id: string, { limit, status }: { limit: string; status?: string }) => {
      const path = `/v1/campaigns/${encodeURIComponent(id)}/reviews${query({ status })}`;
      type Page = { reviews: Review[]; next_cursor: string };
      const { reviews } = await listed<Page>(api(), path, "reviews", { limit, note });
      print(reviews, () => reviewsTable(reviews));
    });

  campaigns
    .command("review <id> <row>")
    .description("settle one of them; the campaign takes it up when it next orders rows")
    .addOption(
      new Option("--decision <decision>", "the row stands, gets another output, or is left out")
        .choices(["accept", "relabel", "exclude"])
        .makeOptionMandatory(),
    )
    .option("--output <output>", "the new output, to relabel")
    .option("--reading <reading>", "which reading of the answers counts, strict or lenient; to accept a dispute")
    .option("--by <name>", "who decides, for people")
    .action(
      async (
        id: string,
        row: string,
        { by, ...given }: { decision: string; output?: string; reading?: string; by?: string },
      ) => {
        const path = `/v1/campaigns/${encodeURIComponent(id)}/reviews/${encodeURIComponent(row)}`;
        const review = await api().json<Review>("POST", path, { ...given, decided_by: by });
        print(review, () => `${row}: ${became(review)}`);
      },
    );
}

/** Each with what it is labelled, and what students and teacher last said of it. */
export function reviewsTable(reviews: readonly Review[]): string {
  return table(
    ["row", "kind", "status", "output", "students say", "teacher says", "input"],
    reviews.map((review) => {
      const last = review.evidence.at(-1);
      return [
        review.seed_row_id,
        review.kind,
        became(review),
        review.row?.output ?? "",
        review.kind === "dispute" ? `${said(last?.students)} in "${last?.text}"` : said(last?.students),
        said(last?.teacher),
        review.row === undefined ? "" : saidIn(review.row),
      ];
    }),
  );
}

function said(opinion: Opinion | undefined): string {
  if (opinion === undefined) return "";
  return opinion.probability === undefined ? opinion.answer : `${opinion.answer} (${percent(opinion.probability)})`;
}

function became({ status, output, reading, acted_iteration }: Review): string {
  const how = status === "relabelled" ? ` ${output}` : reading === "unspecified" ? "" : `, ${reading}`;
  const taken = status === "open" || acted_iteration !== undefined ? "" : " (not taken up yet)";
  return `${status}${how}${taken}`;
}
