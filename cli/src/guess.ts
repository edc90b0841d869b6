/** Guesses from a data file what a campaign on it would look like, and says why. Pure. */
import { type GuessedField, guessFields } from "./guessfields.js";
import { inputOf, messagesOf, type SourceRow } from "./rows.js";

export interface Guess {
  columns: { input: string; output: string; split: string | undefined };
  kind: "classification" | "multiple_choice" | "math" | "text" | "extraction";
  labels: string[];
  /** Of an extraction; else empty. */
  fields: GuessedField[];
  /** Rows are conversations: the model's chat template is the prompt. */
  conversations: boolean;
  /** Empty for conversations. */
  promptTemplate: string;
  /** Why, in the order of the fields. */
  reasons: { columns: string; kind: string; prompt: string };
  rows: number;
}

const inputNames = ["input", "text", "question", "message", "prompt", "sentence", "query", "instruction", "utterance"];
const outputNames = ["output", "label", "answer", "intent", "class", "category", "target", "sentiment", "completion"];
const splitNames = ["split", "set", "fold", "partition"];
const splits = new Set(["train", "dev", "test"]);
/** A closed set has few values that come again: at most this many, and each three times on average. */
const mostLabels = 200;
const leastRepeats = 3;
/** Share of rows that must look alike before a kind is guessed from them. */
const most = 0.9;

/** Throws Error with what is wrong when no two columns can be told. */
export function guess(rows: readonly SourceRow[]): Guess {
  const known = rows.flatMap(({ fields }) => (fields === undefined ? [] : [fields]));
  if (known.length === 0) throw new Error("it has no row that is a JSON object or a CSV record");
  if (known.filter((fields) => messagesOf(fields) !== undefined).length >= known.length * most) {
    return guessConversations(known, rows.length);
  }
  // A column without a name, as spreadsheets and data frames write the row's number, cannot be asked for.
  const names = [...new Set(known.flatMap((fields) => Object.keys(fields)))].filter((name) => name !== "");
  const values = (name: string) => known.map((fields) => text(fields[name])).filter((value) => value !== "");
  const filled = names.filter((name) => values(name).length >= known.length * most);
  const split = filled.find((name) => isNamed(name, splitNames) && values(name).every((value) => splits.has(value)));
  const candidates = filled.filter((name) => name !== split);
  if (candidates.length < 2) {
    throw new Error(`two columns are needed, one for inputs and one for outputs; it has: ${names.join(", ")}`);
  }
  const byName = (list: readonly string[]) =>
    list.flatMap((wanted) => candidates.filter((name) => name.toLowerCase() === wanted)).at(0);
  const lengthOf = (name: string) => mean(values(name).map((value) => value.length));
  const longest = [...candidates].sort((a, b) => lengthOf(b) - lengthOf(a));
  const input = byName(inputNames) ?? (longest.find((name) => !isNamed(name, outputNames)) as string);
  const others = candidates.filter((name) => name !== input);
  // The one whose values come again most, if none has a name that says it.
  const variety = (name: string) => new Set(values(name)).size;
  const output =
    byName(outputNames.filter((name) => name !== input)) ??
    ([...others].sort((a, b) => variety(a) - variety(b))[0] as string);
  const outputs = values(output);
  const inputs = values(input);
  const { kind, reason, labels, fields } = kindOf(inputs, outputs);
  const named = byName(inputNames) === input && byName(outputNames) === output;
  return {
    columns: { input, output, split },
    kind,
    labels,
    fields,
    conversations: false,
    promptTemplate: promptOf(kind, inputs).promptTemplate,
    reasons: {
      columns: named
        ? "by their names"
        : `${JSON.stringify(input)} has the longest texts, ${JSON.stringify(output)} ${labels.length > 0 ? "the values that come again" : "is what is left"}`,
      kind: reason,
      prompt: promptOf(kind, inputs).reason,
    },
    rows: rows.length,
  };
}

/** Conversations: the answer is the last message, or a column of its own where the last message is the user's. */
function guessConversations(known: readonly Record<string, unknown>[], rows: number): Guess {
  const names = [...new Set(known.flatMap((fields) => Object.keys(fields)))];
  const filled = (name: string, among: typeof known) =>
    among.filter((fields) => text(fields[name]) !== "").length >= among.length * most;
  const split = names.find(
    (name) =>
      isNamed(name, splitNames) &&
      filled(name, known) &&
      known.every((fields) => fields[name] === undefined || splits.has(text(fields[name]))),
  );
  const lastOf = (fields: Record<string, unknown>) => messagesOf(fields)?.at(-1);
  const open = known.filter((fields) => lastOf(fields)?.role !== "assistant");
  const output = open.length === 0 ? undefined : outputNames.find((name) => names.includes(name) && filled(name, open));
  if (output === undefined && open.length > known.length * (1 - most)) {
    throw new Error('its "messages" have no answer: end them with the assistant\'s, or give a column "output"');
  }
  const answers = known.map((fields) => {
    const last = lastOf(fields);
    return last?.role === "assistant" ? last.content : output === undefined ? "" : text(fields[output]);
  });
  const { kind, reason, labels, fields } = kindOf(
    known.map((one) => inputOf(one, "messages") ?? ""),
    answers,
  );
  return {
    columns: { input: "messages", output: output ?? "output", split },
    kind,
    labels,
    fields,
    conversations: true,
    promptTemplate: "",
    reasons: {
      columns:
        output === undefined
          ? "the answer is the last message, the assistant's"
          : `the answer is in ${JSON.stringify(output)} where the last message is not the assistant's`,
      kind: reason,
      prompt: "the model's own chat template renders conversations",
    },
    rows,
  };
}

type KindGuess = Pick<Guess, "kind" | "labels" | "fields"> & { reason: string };

function kindOf(inputs: readonly string[], outputs: readonly string[]): KindGuess {
  const open = (kind: Guess["kind"], reason: string): KindGuess => ({ kind, reason, labels: [], fields: [] });
  const fields = guessFields(outputs);
  if (fields !== undefined) return { ...open("extraction", "the outputs are JSON objects"), fields };
  const share = (matches: (value: string, index: number) => boolean) =>
    outputs.filter((value, index) => matches(value, index)).length / Math.max(1, outputs.length);
  if (share((value, index) => /^\(?[A-J]\)?\.?$/.test(value.trim()) && /\bB[).:]/.test(inputs[index] ?? "")) >= most) {
    return open("multiple_choice", "the outputs are letters, and the inputs list lettered choices");
  }
  const distinct = new Set(outputs).size;
  if (distinct >= 2 && distinct <= mostLabels && outputs.length / distinct >= leastRepeats) {
    const reason = `${distinct} outputs come again and again over ${outputs.length} rows`;
    return { ...open("classification", reason), labels: [...new Set(outputs)].sort() };
  }
  if (share((value) => /(####\s*|\\boxed\{|=\s*)?-?[$€£]?\d[\d,.]*%?\}?\.?\s*$/.test(value)) >= most) {
    return open("math", "the outputs end in a number");
  }
  return open("text", `${distinct} different outputs over ${outputs.length} rows: no closed set`);
}

/** A prompt that a base model goes on from with the answer in plain words. */
function promptOf(kind: Guess["kind"], inputs: readonly string[]): { promptTemplate: string; reason: string } {
  const questions = inputs.filter((text_) => text_.trim().endsWith("?")).length >= inputs.length / 2;
  const noun = questions ? "Question" : "Text";
  if (kind === "classification") {
    return {
      promptTemplate: questions ? "Question: {input}\nThe answer is a" : "Text: {input}\nThis is about",
      reason: "end it where the model would go on with the label in plain words; this matters more than any setting",
    };
  }
  if (kind === "extraction") return { promptTemplate: `${noun}: {input}\nJSON:`, reason: "a plain form" };
  if (kind === "text") return { promptTemplate: `${noun}: {input}\nAnswer:`, reason: "a plain form" };
  return { promptTemplate: "Question: {input}\nAnswer:", reason: "the usual form" };
}

function isNamed(name: string, list: readonly string[]): boolean {
  return list.includes(name.toLowerCase());
}

function text(value: unknown): string {
  if (typeof value === "string") return value;
  return value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
}
