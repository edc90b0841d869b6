/**
 * Tasks that come with Tutelage: one or more for each kind, complete as they
 * stand. A prompt ends where a base model itself would go on with the answer
 * in plain words; on TREC "The answer is a" gives plain fine-tuning 9 points
 * more than "Class:".
 */
import { FieldType, Grader, type Label, Task, TaskKind } from "@tutelage/proto/task/v1/task";

export interface Preset {
  task: Task;
  /** One line for a person. */
  description: string;
}

function preset(description: string, task: Partial<Task> & Pick<Task, "name" | "kind" | "promptTemplate">): Preset {
  return { task: Task.fromPartial(task), description };
}

const labels = (described: Record<string, string>): Label[] =>
  Object.entries(described).map(([name, description]) => ({ name, description }));

const field = (name: string, type: FieldType, optional: boolean, description: string) => ({
  name,
  type,
  optional,
  description,
});

const all: Preset[] = [
  preset("Whether a review is positive or negative (as SST-2).", {
    name: "sentiment",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: "Review: {input}\nThe opinion in this review is",
    labels: labels({
      positive: "reviews that are positive",
      negative: "reviews that are negative",
    }),
    teacherInstructions:
      "Each row is one review, or a sentence of one, as customers and critics write them: some short, some rambling, some " +
      "ironic. The label is the opinion that the writer has when all is said, not the mood of single words.",
    rowNoun: "reviews",
  }),
  preset("What a question asks for, in the six coarse classes of TREC.", {
    name: "question-type",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: "Question: {input}\nThe answer is a",
    labels: labels({
      ABBR: "questions about an abbreviation: what it stands for or what its short form is",
      DESC: "questions that ask for a description, a definition, a reason, or how something works",
      ENTY: "questions that ask for a thing: an animal, a colour, a food, a product, a sport, a word, a book or another object",
      HUM: "questions that ask for a person, a group or a company",
      LOC: "questions that ask for a place: a city, a country, a mountain or another location",
      NUM: "questions that ask for a number: a date, a count, a distance, a price or a duration",
    }),
    teacherInstructions:
      "Each row is one question on general knowledge, with the class of what would answer it. The answer's kind decides, " +
      "not the topic: who founded a city is HUM, where its founder was born is LOC.",
    rowNoun: "questions",
  }),
  preset("The topic of a news text, in four classes (as AG News).", {
    name: "news-topic",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: "News: {input}\nThis is news about",
    labels: labels({
      world: "news texts about countries, governments, conflicts or disasters",
      sports: "news texts about games, teams, athletes or results",
      business: "news texts about companies, markets, trade or jobs",
      science: "news texts about science, computers, the internet or space",
    }),
    teacherInstructions:
      "Each row is the headline and first sentences of a news text, with its topic. Where two topics meet, the one that the " +
      "text would be filed under decides: a software maker's profits are business, its new program is science.",
    rowNoun: "news texts",
  }),
  preset("A question with lettered choices, of which one is right (as ARC or CaseHOLD).", {
    name: "multiple-choice",
    kind: TaskKind.MULTIPLE_CHOICE,
    grader: Grader.CHOICE_LETTER,
    promptTemplate: "{input}\nThe letter of the right choice is",
    teacherInstructions:
      "Each input is a question, then its choices, one on each line, each beginning with its letter and a full stop: " +
      '"A. …". Exactly one choice is right; the wrong ones are plausible. The output is the letter of the right choice, ' +
      "and nothing else. The right letter varies from row to row.",
    rowNoun: "questions with lettered choices",
  }),
  preset("A problem in words whose solution ends in a number (as GSM8K).", {
    name: "math-word-problem",
    kind: TaskKind.MATH,
    grader: Grader.FINAL_NUMBER,
    promptTemplate: "Problem: {input}\nSolution, step by step:",
    teacherInstructions:
      "Each input is a short problem from everyday life that arithmetic solves. The output works it out in a few short " +
      "sentences and ends with the number that answers it, without a unit. Check every step: the last number must be right.",
    rowNoun: "word problems",
  }),
  preset("An order or booking read from a message, as a JSON object.", {
    name: "order-details",
    kind: TaskKind.EXTRACTION,
    grader: Grader.JSON_FIELDS,
    promptTemplate: "Message: {input}\nThe order as JSON:",
    fields: [
      field("item", FieldType.STRING, false, "What is ordered, as the message calls it."),
      field("quantity", FieldType.NUMBER, false, "How many; 1 where the message does not say."),
      field("date", FieldType.STRING, true, "The day it is wanted on, as the message says it."),
      field("extras", FieldType.STRING_LIST, true, "What is wanted besides, one entry each."),
    ],
    maxAnswerTokens: 96,
    teacherInstructions:
      "Each input is one message in which somebody orders something, as people write: some terse, some chatty, some with a " +
      "correction halfway, of which the last word counts. The output holds what the message says and nothing that it does not.",
    rowNoun: "messages that order something",
  }),
  preset("A question with a short answer in free text (as SQuAD without the passage).", {
    name: "short-answer",
    kind: TaskKind.TEXT,
    grader: Grader.NORMALIZED_TEXT,
    promptTemplate: "Question: {input}\nThe short answer is:",
    teacherInstructions:
      "Each input is a question, with what must be known to answer it where that is not general knowledge. The output is " +
      "the answer in as few words as answer it, without a sentence around them. Only one answer is right.",
    rowNoun: "questions",
  }),
];

/** By name, in alphabetical order. */
export const presets: ReadonlyMap<string, Preset> = new Map(
  all.sort((a, b) => (a.task.name < b.task.name ? -1 : 1)).map((one) => [one.task.name, one]),
);
