import { expect, test } from "vitest";
import { commandsOf, missingLines } from "./blocks.js";

const block = (body: string, before = "", language = "sh") => `${before}\n\`\`\`${language}\n${body}\n\`\`\`\n`;

test("a command spans lines where bash says so, and is found at its line", () => {
  const body = [
    "# First, a variable.",
    "id=$(echo one |",
    "  cat)",
    "",
    "cat > file.yaml <<'END'",
    "a: 'it is",
    "END",
    "curl -s x \\",
    "  -d '{",
    "}'",
  ].join("\n");
  const commands = commandsOf("a.md", `Text.\n${block(body)}`);
  expect(commands.map(({ line, text }) => [line, text.split("\n").length])).toEqual([
    [5, 2],
    [8, 3],
    [11, 3],
  ]);
});

test("a mark counts for the block right after it only, and needs a reason", () => {
  const text = [
    block("ollama serve", "<!-- not-run: CI has no Ollama -->"),
    block("curl x", "<!-- fails: shows a refusal -->\n"),
    block("ls", "<!-- not-run: of no block -->\nA line between."),
    block("data: 1", "", "yaml"),
  ].join("\n");
  expect(commandsOf("a.md", text).map(({ text: command, notRun, fails }) => [command, notRun, fails])).toEqual([
    ["ollama serve", "CI has no Ollama", false],
    ["curl x", undefined, true],
    ["ls", undefined, false],
  ]);
  expect(() => commandsOf("a.md", block("ls", "<!-- not-run: -->"))).toThrow("a.md:1: not-run needs a reason");
});

test("what a document shows right after a block belongs to the block's output", () => {
  const text = [block("echo a\necho b"), block("a\n\nb", "", ""), "Text.", block("c", "", ""), block("ls")].join("\n");
  expect(commandsOf("a.md", text).map((command) => [command.block, command.shows])).toEqual([
    [1, []],
    [1, ["a", "b"]],
    [2, []],
  ]);
  expect(missingLines(["64 rows in version …", 'a:   "…" (b)'], '64 rows in version 7\n  a: "x" (b)\n')).toEqual([]);
  expect(missingLines(["64 rows", "a.c"], "64 rows in version 7\nabc\n")).toEqual(["64 rows", "a.c"]);
});

test("a block that would go unseen, or that bash cannot read, is refused", () => {
  expect(() => commandsOf("a.md", block("ls", "", "bash"))).toThrow("a.md:2: write ```sh");
  expect(() => commandsOf("a.md", block("echo 'open"))).toThrow("a.md:3: bash cannot read");
  expect(() => commandsOf("a.md", "```sh\nls\n")).toThrow("not closed");
});
