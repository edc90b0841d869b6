/** tutelage report: what came of a campaign, as text, as data, or as a page. */
import type { Command } from "commander";
import type { Campaign, Iteration } from "./api.js";
import type { CommandContext } from "./context.js";
import { pour, refuseBytes, saveFile } from "./download.js";
import { type Review, reviewsTable } from "./reviews.js";
import { outcomeText } from "./show.js";

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
      type Report = { campaign: Campaign; iterations: Iteration[]; advice: string[]; reviews: Review[] };
      const report = await api().json<Report>("GET", path);
      print(report, () => {
        const next = report.advice.map((line, index) => `${index + 1}. ${line}`).join("\n");
        const doubted = report.reviews.length === 0 ? "" : `\n\nSeed rows in doubt\n${reviewsTable(report.reviews)}`;
        return `${outcomeText(report.campaign, report.iterations)}${doubted}${next === "" ? "" : `\n\nWhat to try next\n${next}`}`;
      });
    });
}
