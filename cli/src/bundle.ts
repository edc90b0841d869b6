/** `tutelage campaigns bundle`: a campaign's evidence as one file. */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { pour, refuseBytes, saveFile } from "./download.js";

export function addBundleCommand(campaigns: Command, { api, print, note, json }: CommandContext): void {
  campaigns
    .command("bundle <id>")
    .description("download all that shows how a campaign came to its numbers, for `tutelage verify`")
    .option("-o, --out <file>", "the tar archive (default bundle.tar); - for standard output", "bundle.tar")
    .action(async (id: string, { out }: { out: string }) => {
      refuseBytes(out, json());
      const body = await api().download(`/v1/campaigns/${encodeURIComponent(id)}/bundle`);
      if (out === "-") return await pour(body, "archive", process.stdout);
      const digest = createHash("sha256");
      const saved = await saveFile(Readable.from(digested(body, digest), { objectMode: false }), out);
      const sha256 = digest.digest("hex");
      if (json()) print({ ...saved, sha256 }, () => "");
      else note(`Wrote ${out}. Its SHA-256 is ${sha256}: keep that elsewhere, and check with tutelage verify ${out}.`);
    });
}

async function* digested(body: Readable, digest: ReturnType<typeof createHash>): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    digest.update(chunk);
    yield chunk;
  }
}
