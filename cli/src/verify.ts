/** `tutelage verify`: whether a bundle is what was downloaded, and whether its numbers follow from its parts. */
import type { Command } from "commander";
import type { CommandContext } from "./context.js";
import { exitCodes, Stop } from "./exit.js";
import { bytes } from "./show.js";
import type { Finding } from "./verify/findings.js";

export function addVerifyCommand(program: Command, { print, note, json }: CommandContext): void {
  program
    .command("verify <bundle.tar>")
    .description("check every byte of a campaign's evidence, and make every reported number again; needs no server")
    .option("--sha256 <digest>", "what the file's SHA-256 was when it was downloaded")
    .action(async (path: string, { sha256 }: { sha256?: string }) => {
      // The contracts are read only here: every other command starts without them.
      const { verify } = await import("./verify/verify.js");
      const { findings, ...verified } = await verify(path, sha256);
      if (findings.length > 0) {
        if (!json()) for (const one of findings) note(`${one.check}: ${one.member}: ${one.message}.`);
        const problem = { ...verified, findings, reason: "bundle_not_as_it_says" };
        throw new Stop(failure(path, findings), exitCodes.refused, problem);
      }
      print(verified, () =>
        [
          ...verified.checks.map(({ check, looked_at }) => `ok  ${check}: ${looked_at}`),
          `${path} (${bytes(verified.size_bytes)}, SHA-256 ${verified.sha256}) is whole, and its numbers follow from its parts.`,
          `Taken as stored: ${verified.taken_as_stored.join("; ")}.`,
        ].join("\n"),
      );
    });
}

function failure(path: string, findings: readonly Finding[]): string {
  const [first, ...others] = findings;
  const more = others.length === 0 ? "" : ` And ${others.length} more.`;
  return `${path} is not what it says. ${first?.member}: ${first?.message}.${more}`;
}
