/** The closed-class words of English: they hold a sentence together and have no synonyms worth the name. */

const groups = {
  articles: "a an the",
  pronouns:
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers " +
    "herself it its itself they them their theirs themselves one oneself",
  demonstratives: "this that these those such same",
  questions: "what which who whom whose when where why how whatever whichever whoever whenever wherever however",
  quantifiers:
    "all any anybody anyone anything both each either enough every everybody everyone everything few fewer less many " +
    "more most much neither nobody none nothing no other others another several some somebody someone something",
  auxiliaries:
    "be am is are was were been being have has had having do does did doing done will would shall should can could may " +
    "might must ought cannot",
  prepositions:
    "about above across after against along amid among around as at before behind below beneath beside besides between " +
    "beyond by despite down during except for from in inside into like near of off on onto out outside over past per " +
    "since through throughout till to toward towards under underneath until up upon via with within without",
  conjunctions: "and but or nor so yet if unless because although though while whereas whether than then",
  adverbs: "not never here there now too very also just only again even ever",
};

const words = new Set(Object.values(groups).flatMap((group) => group.split(" ")));

/** Whether a lower-case word is closed-class, contracted or not: "it", "it's", "don't". */
export function isStopWord(word: string): boolean {
  const apostrophe = word.indexOf("'");
  return words.has(word) || word.endsWith("n't") || (apostrophe > 0 && words.has(word.slice(0, apostrophe)));
}
