/** The paper's own schedule (Lee et al. 2024, arXiv 2403.15042), and where a campaign departs from it. */
import { isDeepStrictEqual } from "node:util";
import {
  ErrorsFrom,
  Mining,
  Schedule,
  Selection,
  type Settings,
  StartFrom,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import { fieldName } from "./fieldname.js";

/** What the paper's runs set; its recipe is that of a model of 7 billion weights, so it is the student profile's here. */
export const paperSettings = {
  iterations: 10,
  mining: Mining.IN_SAMPLE,
  selection: Selection.ERRORS_ONLY,
  examplesPerError: 1,
  startFrom: StartFrom.BASE,
  errorsFrom: ErrorsFrom.SEED,
  maxRougeL: 0.95,
  checkStudents: Switch.OFF,
  checkTeacher: Switch.OFF,
  decoding: { scoreLabels: false, temperature: 0.7, topP: 0.9, maxNewTokens: 100, stop: [], seed: 0 },
} satisfies Partial<Settings>;

/** Where a campaign under the paper's schedule differs from the paper's runs, a line each; none for another schedule. */
export function departures(settings: Settings, { student, teacher }: { student: string; teacher: string }): string[] {
  if (settings.schedule !== Schedule.PAPER) return [];
  const changed = Object.entries(paperSettings).flatMap(([name, paper]) => {
    const own = settings[name as keyof typeof paperSettings];
    if (isDeepStrictEqual(own, paper)) return [];
    return [`${fieldName(name)} is ${told(own)}, the paper's ${told(paper)}.`];
  });
  return [
    `The student is ${student}, the paper's LLaMA2-7B, all of whose weights were trained: 3 epochs, AdamW, rate 2e-5.`,
    `The teacher is ${teacher}, the paper's GPT-3.5-turbo at temperature 1.`,
    "A candidate is compared with every kept row, the paper's with its step's wrong and new ones.",
    "A reply that does not parse is asked for again attempts_per_row times at most, the paper's without a limit.",
    ...changed,
  ];
}

function told(value: unknown): string {
  if (typeof value === "object" && value !== null) {
    return Object.entries(value)
      .map(([name, part]) => `${fieldName(name)} ${JSON.stringify(part)}`)
      .join(", ");
  }
  // "MINING_CROSS_FIT" is cross_fit, "SWITCH_OFF" off.
  return String(value ?? "the default")
    .replace(/^(?:MINING|SELECTION|START_FROM|ERRORS_FROM|SWITCH)_/, "")
    .toLowerCase();
}
