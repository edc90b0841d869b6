/** The campaigns of a chaos run: many and short, each with rows, a seed and a cap of its own. */
import type { LabelledRow } from "@tutelage/standalone/trial";
import type { TeacherCall } from "../support/teacher-server.js";
import { randomOf } from "./plan.js";

export interface PlannedCampaign {
  /** "c007": in each of its rows, so that the teacher knows whose call it is. */
  tag: string;
  rows: LabelledRow[];
  settings: Record<string, unknown>;
  /** Its cap does not pay for all of it: what must hold is the cap. The others' must come out as if nothing had happened. */
  isTight: boolean;
}

/** Colours of speech that a two-layer student can tell apart in a few steps. */
const words = {
  NUM: ["four", "seven", "count", "many", "legs", "number", "times", "sum", "twelve", "pair"],
  LOC: ["city", "river", "tower", "north", "street", "land", "hill", "coast", "valley", "harbour"],
};
type Label = keyof typeof words;
const labels = Object.keys(words) as Label[];
const hits = (text: string, label: Label) => words[label].filter((word) => text.includes(word)).length;

/** The label of a text, for the teacher's answers. */
export function labelOf(text: string): Label {
  return labels.reduce((best, label) => (hits(text, label) > hits(text, best) ? label : best), "NUM" as Label);
}

export const task = {
  name: "tiny",
  kind: "classification",
  prompt_template: "Question: {input}\nClass:",
  labels: [
    { name: "NUM", description: "questions that ask for a number" },
    { name: "LOC", description: "questions that ask for a place" },
  ],
  grader: "label",
  row_noun: "questions",
};

/** Every fourth campaign meets its cap. */
const tightEvery = 4;

export function planCampaigns(seed: number, count: number, iterations: number): PlannedCampaign[] {
  return Array.from({ length: count }, (_, index) => {
    const tag = `c${String(index + 1).padStart(3, "0")}`;
    const random = randomOf(`campaign ${seed} ${index}`);
    const rows = (["train", "dev", "test"] as const).flatMap((split) =>
      labels.flatMap((label) =>
        Array.from({ length: split === "train" ? 5 : 3 }, (_, number) => rowOf(tag, split, label, number, random)),
      ),
    );
    const settings = {
      seed: index + 1,
      iterations,
      folds: 2,
      rows_per_seed_row: 1,
      attempts_per_row: 1,
      plain_tries: 1,
    };
    return { tag, rows, settings, isTight: index % tightEvery === tightEvery - 1 };
  });
}

function rowOf(
  tag: string,
  split: LabelledRow["split"],
  label: Label,
  number: number,
  random: () => number,
): LabelledRow {
  const pick = () => words[label][Math.floor(random() * words[label].length)];
  return { input: `${tag} ${split} ${number} ${pick()} ${pick()} ${pick()} ${pick()} ?`, output: label, split };
}

/** The tag of the campaign for which a call was made. */
export function tagOf({ prompt }: Pick<TeacherCall, "prompt">): string {
  const [, tag] = /\b(c\d{3}) train\b/.exec(prompt) ?? [];
  if (tag === undefined) throw new Error(`The teacher was asked for something that is no campaign's: ${prompt}`);
  return tag;
}
