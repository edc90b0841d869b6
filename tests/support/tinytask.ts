/** What a two-layer student learns in seconds: to tell numbers from places by a closed vocabulary. */

export const words = {
  NUM: ["four", "seven", "count", "many", "legs", "number", "times", "sum"],
  LOC: ["city", "river", "tower", "north", "street", "land", "hill", "coast"],
};
export type Label = keyof typeof words;
export const labels = Object.keys(words) as Label[];

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
