/**
 * Tasks that come with Tutelage: one or more for each kind, complete as they
 * stand. A prompt ends where a base model itself would go on with the answer
 * in plain words; on TREC "The answer is a" gives plain fine-tuning 9 points
 * more than "Class:". Beside them the paper's five tasks by their own names, with
 * rows and labels as the public data has them (datasets reads its layouts).
 */
import type { snipsLabels, sst2Labels, trecLabels } from "@tutelage/platform/publictasks";
import { FieldType, Grader, type Label, Task, TaskKind } from "@tutelage/proto/task/v1/task";

export interface Preset {
  task: Task;
  /** One line for a person. */
  description: string;
}

type PresetTask = Partial<Task> & Pick<Task, "name" | "kind" | "promptTemplate">;

function preset(description: string, task: PresetTask): Preset {
  return { task: Task.fromPartial(task), description };
}

function labels<Name extends string>(described: Record<Name, string>): Label[] {
  return Object.entries<string>(described).map(([name, description]) => ({ name, description }));
}

const field = (name: string, type: FieldType, optional: boolean, description: string) => ({
  name,
  type,
  optional,
  description,
});

const reviewPrompt = "Review: {input}\nThe opinion in this review is";
const problemPrompt = "Problem: {input}\nSolution, step by step:";

const questionType = {
  name: "question-type",
  kind: TaskKind.CLASSIFICATION,
  grader: Grader.LABEL,
  promptTemplate: "Question: {input}\nThe answer is a",
  labels: labels<(typeof trecLabels)[number]>({
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
} satisfies PresetTask;

const multipleChoice = {
  name: "multiple-choice",
  kind: TaskKind.MULTIPLE_CHOICE,
  grader: Grader.CHOICE_LETTER,
  promptTemplate: "{input}\nThe letter of the right choice is",
  teacherInstructions:
    "Each input is a question, then its choices, one on each line, each beginning with its letter and a full stop: " +
    '"A. …". Exactly one choice is right; the wrong ones are plausible. The output is the letter of the right choice, ' +
    "and nothing else. The right letter varies from row to row.",
  rowNoun: "questions with lettered choices",
} satisfies PresetTask;

const all: Preset[] = [
  preset("Whether a review is positive or negative (as SST-2).", {
    name: "sentiment",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: reviewPrompt,
    labels: labels({
      positive: "reviews that are positive",
      negative: "reviews that are negative",
    }),
    teacherInstructions:
      "Each row is one review, or a sentence of one, as customers and critics write them: some short, some rambling, some " +
      "ironic. The label is the opinion that the writer has when all is said, not the mood of single words.",
    rowNoun: "reviews",
  }),
  preset("What a question asks for, in the six coarse classes of TREC.", questionType),
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
  preset("A question with lettered choices, of which one is right (as ARC or CaseHOLD).", multipleChoice),
  preset("A problem in words whose solution ends in a number (as GSM8K).", {
    name: "math-word-problem",
    kind: TaskKind.MATH,
    grader: Grader.FINAL_NUMBER,
    promptTemplate: problemPrompt,
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

  // The paper's tasks. Its prompts end in "Class:", "Sentiment:", "Intent:" or "Answer:", the first of which costs 9 points
  // (above): trec and sst2 end as question-type and sentiment do, whose endings were measured, the others in plain words too.
  preset("TREC's questions in six coarse classes, as they are published (layout trec).", {
    ...questionType,
    name: "trec",
    teacherInstructions: `${questionType.teacherInstructions} Punctuation marks stand apart, as words of their own.`,
    workedExample: {
      input: "Which tool does a cooper bend barrel staves with ?",
      output: "ENTY",
      wrongAnswer: "DESC",
      newInput: "What part of a loom carries the weft thread ?",
      newOutput: "ENTY",
    },
  }),
  preset("SST-2's sentences from movie reviews, positive or negative (layout sst2).", {
    name: "sst2",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: reviewPrompt,
    labels: labels<(typeof sst2Labels)[number]>({
      negative: "movie reviews that are negative",
      positive: "movie reviews that are positive",
    }),
    teacherInstructions:
      "Each row is a sentence of a movie review, or a part of one that stands for itself, in lower case, with punctuation " +
      "marks apart as words of their own. The label is the opinion that the writer has when all is said, not the mood of " +
      "single words: praise for an actor in a film that bores is negative.",
    rowNoun: "movie reviews",
    workedExample: {
      input: "for all its clever wiring , the heist never draws a spark .",
      output: "negative",
      wrongAnswer: "positive",
      newInput: "the jokes arrive on time and leave without being noticed .",
      newOutput: "negative",
    },
  }),
  preset("What somebody wants of a voice assistant, in SNIPS' seven intents (layout snips).", {
    name: "snips",
    kind: TaskKind.CLASSIFICATION,
    grader: Grader.LABEL,
    promptTemplate: "Request: {input}\nThe user wants to",
    labels: labels<(typeof snipsLabels)[number]>({
      AddToPlaylist: "requests to add a song or an artist to a playlist",
      BookRestaurant: "requests to book a table at a restaurant",
      GetWeather: "requests about the weather",
      PlayMusic: "requests to play music",
      RateBook: "requests to rate a book",
      SearchCreativeWork: "requests to find a creative work such as a book, a song, a game or a TV show",
      SearchScreeningEvent: "requests for movie times or films at a cinema",
    }),
    teacherInstructions: "What people say to a voice assistant, each with the intent.",
    rowNoun: "requests",
    workedExample: {
      input: "find out what is on at the picture house by the canal tonight",
      output: "SearchScreeningEvent",
      wrongAnswer: "SearchCreativeWork",
      newInput: "which films start after eight at the cinema near the harbour",
      newOutput: "SearchScreeningEvent",
    },
  }),
  preset("CaseHOLD: which of five holdings a court's citation stands for (layout casehold).", {
    ...multipleChoice,
    name: "casehold",
    teacherInstructions:
      "Each input is a passage of a court's opinion that cites a case, with <HOLDING> in the place of what that case held; " +
      "then the question which holding belongs there; then five holdings, A to E, one on each line, each beginning with " +
      'its letter and a full stop: "A. holding that …". The passage alone tells the right one: the wrong ones are on ' +
      "neighbouring points of law. The output is the letter of the right holding, and nothing else. The right letter " +
      "varies from row to row.",
    rowNoun: "legal passages with lettered holdings",
    workedExample: {
      input:
        "The lease says nothing of the roof, and the tenant asks us to read a duty to repair into it. We have refused to do " +
        "so before. See Harrow v. Millbank Estates, 41 Ex. 3d 207, 210 (Ex. 1994) (<HOLDING>). Nor does the statute help.\n" +
        "Which holding belongs in the place of <HOLDING>?\n" +
        "A. holding that a landlord who promises repairs must make them within a reasonable time\n" +
        "B. holding that a tenant who repairs may set the cost off against the rent\n" +
        "C. holding that no duty to repair is implied in a lease that is silent on repairs\n" +
        "D. holding that a lease for more than a year must be in writing\n" +
        "E. holding that a landlord may enter to inspect the premises on notice",
      output: "C",
      wrongAnswer: "A",
      newInput:
        "The carrier answers that the crates were badly packed, but it took them without a word. That is enough to put the " +
        "burden on it. See Osei Lines v. Tallow Co., 112 Ex. 2d 88, 91 (Ex. 1940) (<HOLDING>). It has shown nothing.\n" +
        "Which holding belongs in the place of <HOLDING>?\n" +
        "A. holding that a shipper must insure goods of more than ordinary value\n" +
        "B. holding that a carrier which accepts goods without complaint must prove that they were badly packed\n" +
        "C. holding that delay alone does not make a carrier liable for lost profits\n" +
        "D. holding that a carrier may sell perishable goods that nobody calls for\n" +
        "E. holding that a bill of lading may limit the time to sue",
      newOutput: "B",
    },
  }),
  preset("GSM8K's word problems, whose solutions end in a line with the number (layout gsm8k).", {
    name: "gsm8k",
    kind: TaskKind.MATH,
    grader: Grader.FINAL_NUMBER,
    promptTemplate: problemPrompt,
    maxAnswerTokens: 320,
    teacherInstructions:
      "Each input is a short problem from everyday life that two to eight steps of arithmetic solve. The output works it " +
      'out, a step on each line, and ends with a line of its own: "#### " and the number that answers it, without a unit. ' +
      "Check every step: the last number must be right.",
    rowNoun: "word problems",
    workedExample: {
      input:
        "A baker fills 6 trays with 12 rolls each and keeps 9 rolls for her family. She sells the others at $2 for every 3 " +
        "rolls. How many dollars does she take?",
      output:
        "She bakes 6 * 12 = 72 rolls.\nShe sells 72 - 9 = 63 of them.\nThat is 63 / 3 = 21 times 3 rolls.\n" +
        "She takes 21 * 2 = $42.\n#### 42",
      wrongAnswer: "She bakes 6 * 12 = 72 rolls.\nThat is 72 / 3 = 24 times 3 rolls.\nShe takes 24 * 2 = $48.\n#### 48",
      newInput:
        "A gardener sets 5 rows of 14 tulips, and 4 of the tulips do not come up. He ties the others into bunches of 6, which " +
        "he sells for $7 each. How much money does he make?",
      newOutput:
        "He sets 5 * 14 = 70 tulips.\nOf these 70 - 4 = 66 come up.\nThey make 66 / 6 = 11 bunches.\n" +
        "He makes 11 * 7 = $77.\n#### 77",
    },
  }),
];

/** By name, in alphabetical order. */
export const presets: ReadonlyMap<string, Preset> = new Map(
  all.sort((a, b) => (a.task.name < b.task.name ? -1 : 1)).map((one) => [one.task.name, one]),
);
