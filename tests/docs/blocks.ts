/** The shell commands of a document: which there are, and which are to be run. */
import { spawnSync } from "node:child_process";

export interface DocCommand {
  /** Line of the document on which it begins, from 1. */
  line: number;
  text: string;
  /** Why it is not run here; undefined when it is. */
  notRun: string | undefined;
  /** The point of the block is a refusal: the command must fail. */
  fails: boolean;
  /** Number of the block that it stands in. */
  block: number;
  /** What the document shows right after the block, with its last command: lines of the block's output, "…" for anything. */
  shows: readonly string[];
}

const fence = /^(\s*)```+\s*(\S*)\s*$/;
/** `<!-- not-run: reason -->` or `<!-- fails: reason -->` right before a block. */
const mark = /^\s*<!--\s*(not-run|fails):\s*(.*?)\s*-->\s*$/;
/** Fences that would hide commands from this check. */
const otherShells = new Set(["bash", "shell", "console", "zsh", "shell-session"]);

/** Every command of every sh block, in order. Throws where a block is not closed, or its mark has no reason. */
export function commandsOf(file: string, text: string): DocCommand[] {
  const lines = text.split("\n");
  const commands: DocCommand[] = [];
  let marked: { kind: string; reason: string } | undefined;
  let blocks = 0;
  /** The block just above, with nothing between. */
  let above: DocCommand | undefined;
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? "";
    const said = mark.exec(line);
    if (said !== null) {
      const [, kind = "", reason = ""] = said;
      if (reason === "") throw new Error(`${file}:${at + 1}: ${kind} needs a reason.`);
      marked = { kind, reason };
      continue;
    }
    const open = fence.exec(line);
    if (open === null) {
      if (line.trim() !== "") marked = above = undefined;
      continue;
    }
    const [, indent = "", language = ""] = open;
    if (otherShells.has(language)) throw new Error(`${file}:${at + 1}: write \`\`\`sh, so that the block is run.`);
    const first = at + 1;
    while (at + 1 < lines.length && !/^\s*```+\s*$/.test(lines[at + 1] ?? "")) at++;
    if (at + 1 >= lines.length) throw new Error(`${file}:${first}: the block is not closed.`);
    const block = lines.slice(first, at + 1).map((one) => (one.startsWith(indent) ? one.slice(indent.length) : one));
    if (language === "sh") {
      const notRun = marked?.kind === "not-run" ? marked.reason : undefined;
      const fails = marked?.kind === "fails";
      blocks++;
      for (const command of cut(file, block, first + 1)) {
        commands.push({ ...command, notRun, fails, block: blocks, shows: [] });
      }
    } else if (language === "" && above !== undefined) {
      above.shows = block.filter((one) => one.trim() !== "");
    }
    above = language === "sh" ? commands.at(-1) : undefined;
    at++;
    marked = undefined;
  }
  return commands;
}

/** Cuts a block where bash says that a command is complete: quotes, pipes, loops and here-documents span lines. */
function cut(file: string, block: readonly string[], firstLine: number): Pick<DocCommand, "line" | "text">[] {
  const commands: Pick<DocCommand, "line" | "text">[] = [];
  let pending: string[] = [];
  let begun = 0;
  for (const [index, line] of block.entries()) {
    if (pending.length === 0) {
      if (/^\s*(#|$)/.test(line)) continue;
      begun = firstLine + index;
    }
    pending.push(line);
    const text = pending.join("\n");
    if (line.endsWith("\\") || !isComplete(text)) continue;
    commands.push({ line: begun, text });
    pending = [];
  }
  if (pending.length > 0) throw new Error(`${file}:${begun}: bash cannot read this command to its end.`);
  return commands;
}

/** A here-document that does not end is only warned of. */
function isComplete(text: string): boolean {
  const { status, stderr } = spawnSync("bash", ["-n"], { input: `${text}\n`, encoding: "utf8" });
  return status === 0 && stderr === "";
}

/** The lines of `shows` that are not in the output, spaces aside. */
export function missingLines(shows: readonly string[], output: string): string[] {
  const tidy = (text: string) => text.trim().replace(/\s+/g, " ");
  const lines = output.split("\n").map(tidy);
  return shows.filter((line) => {
    const parts = tidy(line)
      .split("…")
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const pattern = new RegExp(`^${parts.join(".*")}$`);
    return !lines.some((one) => pattern.test(one));
  });
}
