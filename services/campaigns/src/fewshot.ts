/** Seed rows in the prompt of a base model: what a user would try before any training. Pure. */
import type { Row, Task } from "@tutelage/proto/task/v1/task";
import { shuffled } from "./random.js";

const mostRows = 12;
/** About 2,000 tokens: what small models were pretrained on, and what a forward pass of many rows bears. */
const mostCharacters = 8_000;

/**
 * The rows that are shown: of every output in turn, drawn by `parts`, as many as there is room for.
 * Conversations cannot be shown in a prompt template, nor a text that holds the place of the input itself.
 */
export function fewShotRows(seedRows: readonly Row[], task: Task, parts: readonly (string | number)[]): Row[] {
  const turns = new Map<string, number>();
  const drawn = shuffled(
    seedRows.filter(
      (row) => task.promptTemplate !== "" && row.messages.length === 0 && !shown(task, row).includes(place),
    ),
    (row) => row.id,
    ...parts,
  ).map((row) => {
    const turn = turns.get(row.output) ?? 0;
    turns.set(row.output, turn + 1);
    return { row, turn };
  });
  let room = mostCharacters;
  return drawn
    .sort((a, b) => a.turn - b.turn)
    .map(({ row }) => row)
    .filter((row) => {
      const fits = shown(task, row).length <= room;
      if (fits) room -= shown(task, row).length;
      return fits;
    })
    .slice(0, mostRows);
}

/** The task with the rows before its prompt, each as the model is trained to read and answer it. */
export function fewShotTask(task: Task, rows: readonly Row[]): Task {
  return { ...task, promptTemplate: rows.map((row) => shown(task, row)).join("") + task.promptTemplate };
}

const place = "{input}";

function shown(task: Task, row: Row): string {
  // An answer after a template begins with a space; the function keeps "$" in an input from meaning anything.
  return `${task.promptTemplate.replace(place, () => row.input)} ${row.output.trim()}\n\n`;
}
