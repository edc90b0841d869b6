/** tutelage report: what came of a campaign, as text, as data, or as a page. */
import type { Command } from "commander";
import type { Campaign, Iteration } from "./api.js";
import type { CommandContext } from "./context.js";
import { pour, refuseBytes, saveFile } from "./download.js";
import { type OverlapCount, overlapText } from "./overlaps.js";
import { type Review, reviewsTable } from "./reviews.js";
import { outcomeText } from "./show.js";

interface Report {
  campaign: Campaign;
  iterations: Iteration[];
  advice: string[];
  claims: string[];
  reviews: Review[];
  split_overlaps?: { counts: OverlapCount[] };
}

export function addReportCommand(program: Command, { api, print, note, json }: CommandContext): void {
  program
    .command("report <id>")
    .description("what came of a campaign; as a page with --out report.html")
    .option("--out <file>", "write the page, one file that needs nothing else")
    .action(async (id: string, { out }: { out?: string }) => {
      const path = `/v1/campaigns/${encodeURIComponent(id)}/report`;
      if (out !== undefined) {
        refuseBytes(out, json());
        const page = await api().download(`${path}.html`);
        if (out === "-") return await pour(page, "text", process.stdout);
        const saved = await saveFile(page, out);
        if (json()) print(saved, () => "");
        else note(`Wrote ${out}.`);
        return;
      }
      const report = await api().json<Report>("GET", path);
      print(report, () => {
        const overlaps = overlapText(report.split_overlaps?.counts ?? [], report.iterations);
        const parts = [
          outcomeText(report.campaign, report.iterations),
          ["What the test rows support", ...report.claims.map((line) => `- ${line}`)].join("\n"),
          report.reviews.length === 0 ? "" : `Seed rows in doubt\n${reviewsTable(report.reviews)}`,
          overlaps === "" ? "" : `What dev and test rows have in common with others\n${overlaps}`,
          ["What to try next", ...report.advice.map((line, index) => `${index + 1}. ${line}`)].join("\n"),
        ];
        return parts.filter((part) => part.includes("\n")).join("\n\n");
      });
    });
}
