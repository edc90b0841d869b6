/** The tasks of ../shared/data that conformance runs use: how a row is asked, and what its labels mean. */

const labels = (described) => Object.entries(described).map(([name, description]) => ({ name, description }));

export const tasks = {
  trec: {
    seedRows: 60,
    task: {
      name: "trec",
      kind: "classification",
      prompt_template: "Question: {input}\nThe answer is a",
      labels: labels({
        ABBR: "questions about an abbreviation: what it stands for or what its short form is",
        DESC: "questions that ask for a description, a definition, a reason, or how something works",
        ENTY: "questions that ask for a thing: an animal, a colour, a food, a product, a sport, a word, a book or another object",
        HUM: "questions that ask for a person, a group or a company",
        LOC: "questions that ask for a place: a city, a country, a mountain or another location",
        NUM: "questions that ask for a number: a date, a count, a distance, a price or a duration",
      }),
      grader: "label",
      teacher_instructions: "Open-domain questions, each with the class of what it asks for.",
      row_noun: "questions",
    },
  },
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
  snips: {
    seedRows: 70,
    task: {
      name: "snips",
      kind: "classification",
      prompt_template: "Request: {input}\nThe user wants to",
      labels: labels({
        AddToPlaylist: "requests to add a song or an artist to a playlist",
        BookRestaurant: "requests to book a table at a restaurant",
        GetWeather: "requests about the weather",
        PlayMusic: "requests to play music",
        RateBook: "requests to rate a book",
        SearchCreativeWork: "requests to find a creative work such as a book, a song, a game or a TV show",
        SearchScreeningEvent: "requests for movie times or films at a cinema",
      }),
      grader: "label",
      teacher_instructions: "What people say to a voice assistant, each with the intent.",
      row_noun: "requests",
    },
  },
};
