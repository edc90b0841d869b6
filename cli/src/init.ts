/** tutelage init: a commented campaign.yaml from a data file. */
import { writeFile } from "node:fs/promises";
import { basename, dirname, extname, relative, resolve } from "node:path";
import { stringify } from "yaml";
import { exitCodes, Stop } from "./exit.js";
import { type Guess, guess } from "./guess.js";
import { readSource, requireHeader } from "./rows.js";
import { mostTaskName } from "./run.js";

/** Fewer rows than this leave none to hold back. */
const leastForHoldBack = 80;

/** Writes the file and returns what was guessed. Never overwrites unless told to. */
export async function init(dataFile: string, options: { out: string; force: boolean }): Promise<Guess> {
  const source = await readSource(dataFile);
  requireHeader(source);
  const { rows } = source;
  let guessed: Guess;
  try {
    guessed = guess(rows);
  } catch (error) {
    throw new Stop(`${dataFile}: ${(error as Error).message}.`, exitCodes.refused);
  }
  const text = specText(dataFile, options.out, guessed);
  await writeFile(options.out, text, { flag: options.force ? "w" : "wx" }).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "EEXIST"
      ? new Stop(`${options.out} is there already; --force overwrites it, --out names another.`, exitCodes.usage)
      : new Stop(`Cannot write ${options.out}: ${error.message}`, exitCodes.noInput);
  });
  return guessed;
}

/** The file as a person would write it. Pure. */
export function specText(dataFile: string, out: string, guessed: Guess): string {
  const { columns, kind, labels, fields, conversations, promptTemplate, reasons, rows } = guessed;
  const name = basename(dataFile, extname(dataFile)).slice(0, mostTaskName);
  const path = relative(dirname(resolve(out)), resolve(dataFile));
  // On one line, whatever is in it: a column's name may hold a line break, and so may a file's.
  const quoted = (value: string) =>
    stringify(value, { lineWidth: 0, blockQuote: false, doubleQuotedAsJSON: true }).trimEnd();
  const hold = columns.split === undefined && rows >= leastForHoldBack;
  const lines = [
    "# A campaign for: tutelage run",
    "# yaml-language-server: $schema=./campaign.schema.json   (tutelage schema > campaign.schema.json)",
    `name: ${quoted(name)}`,
    "",
    "data:",
    `  train: ${quoted(path)} # ${rows} rows`,
    "  # dev: dev.jsonl    # rows that choose the best iteration; without them cross-fitting does",
    hold
      ? "  hold_back: 0.4      # this share of the rows is held back as test rows; or name a file: test: test.jsonl"
      : "  # test: test.jsonl  # rows that only measure; without them nobody can say how good the student is",
    `  columns: # ${reasons.columns}`,
    `    input: ${quoted(columns.input)}`,
    `    output: ${quoted(columns.output)}`,
    ...(columns.split === undefined ? [] : [`    split: ${quoted(columns.split)}`]),
    "",
    "student: smollm2-135m # tutelage profiles lists what the server offers",
    conversations
      ? "teacher: my-chat-teacher # write conversations: a chat model, see services/teacher/profiles.yaml"
      : "teacher: gemma3-270m",
    "",
    "task:",
    `  name: ${quoted(name)}`,
    `  kind: ${kind} # ${reasons.kind}`,
    `  # ${reasons.prompt}`,
    ...(conversations ? [] : [`  prompt_template: ${JSON.stringify(promptTemplate)}`]),
    ...(kind === "classification"
      ? [
          "  # Describe each label in plain words: the teacher writes by the description.",
          "  labels:",
          ...labels.map((label) => `    - {name: ${JSON.stringify(label)}, description: ""}`),
        ]
      : []),
    ...(kind === "extraction"
      ? [
          "  # What the JSON object holds, in this order. Describe each field in plain words.",
          "  fields:",
          ...fields.map(
            ({ name: field, type, optional }) =>
              `    - {name: ${JSON.stringify(field)}, type: ${type}${optional ? ", optional: true" : ""}, description: ""}`,
          ),
        ]
      : []),
    ...(kind === "text"
      ? [
          "  # grader: rouge_l        # near is right; normalized_text, the default, wants the same words",
          "  # rouge_l_threshold: 0.5",
        ]
      : []),
    '  # row_noun: "customer messages" # what rows are called',
    "  # teacher_instructions: >",
    "  #   What the task is, who writes such rows, what they sound like.",
    "",
    "settings:",
    "  iterations: 3",
    "  # seed: 1               # of every random choice",
    "  # max_teacher_calls: 0  # a cap; 0 for none",
    "  # max_cost_micro_usd: 0",
    "",
  ];
  return lines.join("\n");
}
