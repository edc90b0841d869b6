/** Prompts that have a teacher write a new row. Pure: the same order and attempt give the same prompt. */
import { rowText } from "@tutelage/platform/conversation";
import { fieldTypeNames } from "@tutelage/platform/extraction";
import { type AskedRow, answerMark, type PromptForm, questionMark } from "@tutelage/platform/teacherreply";
import { Row, type Task, TaskKind, type WorkedExample } from "@tutelage/proto/task/v1/task";
import { type WriteOrder, WriteStyle } from "@tutelage/proto/teacher/v1/teacher";
import { shuffled } from "./digest.js";
import type { Ask, ChatMessage, Sampling } from "./teacher.js";

/** Examples beside the seed row: with it a list of four, which measured best for a small base model. */
const shownExamples = 3;

/** An order with what is shown for one attempt. */
export interface WritePlan extends AskedRow {
  wrongAnswer: string;
  style: WriteStyle;
  /** Shown rows, never the seed row itself: the two of the task's worked example, or such as were drawn. */
  examples: Row[];
  /** What a student answered to the first of them; empty where nobody says. */
  exampleWrongAnswer: string;
  /**
   * Those of another row of the same label. Measured with Gemma 3 270M on TREC: the label is right for .67 of the rows
   * without, .72 with one word, .81 with two; on SST-2 .71 without and .77 with one.
   */
  opening: string;
}

/**
 * What one attempt shows: each attempt draws other examples, so that a fixed prompt does not cap the variety.
 * @param roomCharacters what the shown rows may take; examples that do not fit beside the seed row are left out
 */
export function writePlan(
  form: PromptForm,
  task: Task,
  order: WriteOrder,
  attempt: number,
  seed: number,
  roomCharacters = Number.POSITIVE_INFINITY,
  style = WriteStyle.VARY,
): WritePlan {
  const seedRow = order.seedRow as Row;
  const isConversation = seedRow.messages.length > 0;
  const others = order.exampleRows.filter(
    (row) =>
      row.id !== seedRow.id &&
      // A teacher that is shown both forms answers in either.
      row.messages.length > 0 === isConversation &&
      rowText(row) !== rowText(seedRow) &&
      (task.kind !== TaskKind.CLASSIFICATION || row.output === seedRow.output),
  );
  // A conversation is written in another form than the task's example.
  const worked = form === "chat" && !isConversation ? task.workedExample : undefined;
  const drawn = worked === undefined ? shuffled(others, `${seed}\0${seedRow.id}\0${attempt}`) : workedRows(worked);
  let room = roomCharacters - shownCharacters(seedRow);
  const examples = drawn
    .filter((row) => {
      const fits = shownCharacters(row) <= room;
      if (fits) room -= shownCharacters(row);
      return fits;
    })
    .slice(0, shownExamples);
  const opens = form === "list_continuation" && task.kind === TaskKind.CLASSIFICATION;
  const lenders =
    order.openingTexts.length > 0
      ? order.openingTexts.map((text) => ({ id: text, text }))
      : others.map((row) => ({ id: row.id, text: rowText(row) }));
  // Drawn anew, so that rows which are not shown lend their words too.
  const [lender] = opens ? shuffled(lenders, `${seed}\0${seedRow.id}\0${attempt}\0opening`) : [];
  const opening = lender === undefined ? "" : firstWords(lender.text);
  const exampleWrongAnswer = worked?.wrongAnswer ?? "";
  return { task, seedRow, wrongAnswer: order.wrongAnswer, style, examples, exampleWrongAnswer, form, opening };
}

/** The task's own example of the work: the wrong row, then the one that was made of it. */
function workedRows({ input, output, newInput, newOutput }: WorkedExample): Row[] {
  return [Row.fromPartial({ input, output }), Row.fromPartial({ input: newInput, output: newOutput })];
}

function shownCharacters(row: Row): number {
  return rowText(row).length + row.output.length;
}

/** Two words of a text, one where two would be half of it. */
function firstWords(text: string): string {
  const words = text.trim().split(/\s+/);
  return words.slice(0, words.length > 4 ? 2 : 1).join(" ");
}

/** The question of a plan. */
export function writeAsk(plan: WritePlan, sampling: Sampling): Ask {
  if (plan.form === "chat") return { kind: "chat", messages: chatMessages(plan), sampling, choices: [] };
  const { prompt, stop } = continuation(plan);
  return { kind: "completion", prompt, stop: [stop], sampling };
}

/** What rows are called, plural. */
export function rowNoun(task: Task, row?: Row): string {
  if (task.rowNoun.trim() !== "") return task.rowNoun.trim();
  return row !== undefined && row.messages.length > 0 ? "conversations" : "examples";
}

/** "book_flight" and "BookFlight" as a person would say it. */
export function plainLabel(name: string): string {
  if (/^[A-Z0-9]+$/.test(name)) return name;
  return name
    .replace(/[_-]+/g, " ")
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .toLowerCase();
}

/** What the rows of a label are, in a plural noun phrase: "questions that ask for a place". */
export function labelPhrase(task: Task, name: string): string {
  const noun = rowNoun(task);
  const description =
    task.labels
      .find((label) => label.name === name)
      ?.description.trim()
      .replace(/[.:]+$/, "") ?? "";
  if (description === "") return `${noun} of the kind "${plainLabel(name)}"`;
  if (description.toLowerCase().startsWith(noun.toLowerCase())) return description;
  return `${noun} (${description})`;
}

/** A base model continues a list whose last item is the row that the student got wrong. */
function continuation(plan: WritePlan): { prompt: string; stop: string } {
  const shown = [...plan.examples, plan.seedRow];
  if (plan.task.kind !== TaskKind.CLASSIFICATION) return questionAndAnswer(plan.task, shown);
  const heading = `A list of ${labelPhrase(plan.task, plan.seedRow.output)}:\n`;
  const texts = shown.map(rowText);
  const opening = plan.opening === "" ? "" : ` ${plan.opening}`;
  if (texts.some((text) => text.includes("\n"))) {
    // A dash cannot delimit texts of several lines.
    return {
      prompt: `${heading}\n${texts.map((text) => `<<<\n${text}\n>>>\n`).join("")}<<<\n${plan.opening}`,
      stop: "\n>>>",
    };
  }
  return { prompt: `${heading}${texts.map((text) => `- ${text}\n`).join("")}-${opening}`, stop: "\n" };
}

function questionAndAnswer(task: Task, shown: Row[]): { prompt: string; stop: string } {
  const names = task.fields.map(({ name }) => name).join(", ");
  const answers = task.kind === TaskKind.EXTRACTION ? `answers: JSON objects with the fields ${names}` : "answers";
  const heading = `A list of ${rowNoun(task)} with their ${answers}.\n\n`;
  const blocks = shown.map((row) => `${questionMark} ${rowText(row)}\n${answerMark} ${row.output}\n\n`);
  return { prompt: `${heading}${blocks.join("")}${questionMark}`, stop: `\n${questionMark}` };
}

/** The paper's prompt: instructions, one wrong row turned into a new one, then the row that the student got wrong. */
function chatMessages(plan: WritePlan): ChatMessage[] {
  const { task, examples, exampleWrongAnswer, style } = plan;
  const lines = [
    `You write training examples for a small language model. Each example is one of: ${rowNoun(task, plan.seedRow)}.`,
    ...(task.teacherInstructions.trim() === "" ? [] : [task.teacherInstructions.trim()]),
    ...(task.labels.length === 0 ? [] : ["The output is exactly one of these labels:", ...labelLines(task)]),
    outputRule(task),
    ...(task.kind === TaskKind.EXTRACTION ? fieldLines(task) : []),
    ...replyForm(task, plan.seedRow),
  ];
  const [from, to] = examples;
  const worked: ChatMessage[] =
    // Two rows that say different things show nobody how to rephrase.
    from === undefined || to === undefined || style === WriteStyle.REPHRASE
      ? []
      : [
          { role: "user", content: request(task, from, exampleWrongAnswer) },
          { role: "assistant", content: rowJson(task, to) },
        ];
  return [
    { role: "system", content: lines.join("\n") },
    ...worked,
    { role: "user", content: request(task, plan.seedRow, plan.wrongAnswer, style) },
  ];
}

function request(task: Task, row: Row, wrongAnswer: string, style = WriteStyle.VARY): string {
  if (style === WriteStyle.REPHRASE) {
    return [
      "An example:",
      rowJson(task, row),
      "Say its input in other words, with the same meaning. Keep the output as it is.",
    ].join("\n");
  }
  const wrong = wrongAnswer.trim();
  const same = task.kind === TaskKind.CLASSIFICATION ? " and the same output" : "";
  return [
    "The model got this example wrong:",
    rowJson(task, row),
    ...(wrong === "" ? [] : [`The model answered: ${JSON.stringify(wrong)}`]),
    `Write one new example that tests the same skill${same}, with different content and wording.`,
  ].join("\n");
}

function replyForm(task: Task, row: Row): string[] {
  const output = task.kind === TaskKind.EXTRACTION ? "{…}" : '"…"';
  if (row.messages.length === 0) {
    return [`Reply with one JSON object and nothing else: {"input": "…", "output": ${output}}`];
  }
  return [
    "The messages are a conversation that ends with the user's message; the output is the assistant's answer to it.",
    `Reply with one JSON object and nothing else: {"messages": [{"role": "user", "content": "…"}, …], "output": ${output}}`,
  ];
}

/** The declared fields, one a line. */
export function fieldLines(task: Task): string[] {
  return task.fields.map(({ name, type, optional, description }) => {
    const kind = `${fieldTypeNames[type]}${optional ? ", left out where the input does not say it" : ""}`;
    return `- ${JSON.stringify(name)} (${kind})${description.trim() === "" ? "" : `: ${description.trim()}`}`;
  });
}

function outputRule(task: Task): string {
  if (task.kind === TaskKind.EXTRACTION) {
    return "The output is a JSON object with exactly these fields, read from the input and from nothing else:";
  }
  if (task.kind === TaskKind.MATH) return "The output shows the reasoning and ends with the final number.";
  if (task.kind === TaskKind.MULTIPLE_CHOICE) {
    return "The input ends with the lettered choices; the output is the letter of the right one.";
  }
  return "The output must be right for the input.";
}

export function labelLines(task: Task): string[] {
  return task.labels.map(({ name, description }) => (description === "" ? `- ${name}` : `- ${name}: ${description}`));
}

/** A row as the teacher is to write one; the output of an extraction is JSON already. */
function rowJson(task: Task, row: Row): string {
  const asked =
    row.messages.length === 0
      ? `"input":${JSON.stringify(row.input)}`
      : `"messages":${JSON.stringify(row.messages.map(({ role, content }) => ({ role, content })))}`;
  return `{${asked},"output":${task.kind === TaskKind.EXTRACTION ? row.output : JSON.stringify(row.output)}}`;
}
