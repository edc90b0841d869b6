/**
 * The public tasks of the LLM2LLM paper by the names that presets and import
 * layouts have, and their closed label sets as the public data writes them.
 * Here, because a preset and a layout of one name must agree on them.
 */

export const publicTasks = ["casehold", "gsm8k", "snips", "sst2", "trec"] as const;
export type PublicTask = (typeof publicTasks)[number];

/** TREC's coarse classes. */
export const trecLabels = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"] as const;

/** SST-2's classes by GLUE's numbers: 0 is negative, 1 positive. */
export const sst2Labels = ["negative", "positive"] as const;

/** The intents of SNIPS' 2017 data. */
export const snipsLabels = [
  "AddToPlaylist",
  "BookRestaurant",
  "GetWeather",
  "PlayMusic",
  "RateBook",
  "SearchCreativeWork",
  "SearchScreeningEvent",
] as const;

/** CaseHOLD's five holdings by its numbers: 0 is A, 4 is E. */
export const caseholdLetters = ["A", "B", "C", "D", "E"] as const;
