/** The questions of a generation run that writes rows for our own example campaign. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TaskKind } from "@tutelage/proto/task/v1/task";
import { writeAsk, writePlan } from "../../services/teacher/dist/prompt.js";
import { root } from "../../tools/children.mjs";

const folder = join(root, "examples/support-intents");

/** `count` completion questions, each about another seed row, drawn greedily. */
export function askedOf(count, sampling) {
  const { labels } = JSON.parse(readFileSync(join(folder, "task.json"), "utf8"));
  const task = { kind: TaskKind.CLASSIFICATION, labels, rowNoun: "", fields: [], teacherInstructions: "" };
  const rows = readFileSync(join(folder, "seed.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line, index) => ({ id: `seed-${index}`, messages: [], ...JSON.parse(line) }));
  return Array.from({ length: count }, (_, index) => {
    const order = { seedRow: rows[index % rows.length], wrongAnswer: "", exampleRows: rows, openingTexts: [] };
    const attempt = Math.floor(index / rows.length);
    return writeAsk(writePlan("list_continuation", task, order, attempt, 0), sampling);
  });
}
