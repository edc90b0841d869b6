/** The campaigns of a chaos run: many and short, each with rows, a seed and a cap of its own. */
import type { LabelledRow } from "@tutelage/standalone/trial";
import type { TeacherCall } from "../support/teacher-server.js";
import { type Label, labels, words } from "../support/tinytask.js";
import { randomOf } from "./plan.js";

export interface PlannedCampaign {
  /** "c007": in each of its rows, so that the teacher knows whose call it is. */
  tag: string;
  rows: LabelledRow[];
  settings: Record<string, unknown>;
  /** Its cap does not pay for all of it: what must hold is the cap. The others' must come out as if nothing had happened. */
  isTight: boolean;
}

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
