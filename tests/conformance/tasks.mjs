/** The tasks of ../shared/data that conformance runs use: a preset's name, or how a row is asked and what its labels mean. */

const labels = (described) => Object.entries(described).map(([name, description]) => ({ name, description }));

export const tasks = {
  trec: { seedRows: 60, task: "trec" },
  // Not the preset, which ends as the preset sentiment does: the figures so far are of this prompt.
  sst2: {
    seedRows: 20,
    task: {
      name: "sst2",
      kind: "classification",
      prompt_template: "Review: {input}\nSentiment:",
      labels: labels({
        positive: "sentences from movie reviews that are positive",
        negative: "sentences from movie reviews that are negative",
      }),
      grader: "label",
      teacher_instructions: "Sentences and phrases from movie reviews, each with its sentiment.",
      row_noun: "movie reviews",
    },
  },
  snips: { seedRows: 70, task: "snips" },
};
