/** Text as it is compared where case, punctuation and articles do not count. Pure. */

/**
 * Unicode NFKC, case folded, without punctuation, English articles and repeated
 * white space (the order of SQuAD's evaluation script, Rajpurkar et al. 2016).
 * A text of nothing but articles keeps them.
 * @param keepNumbers signs, and points within numbers, are words and not
 * punctuation: "-5" is not "5", "1.5" is not "15", but "1,000" is "1000"
 */
export function normalizedText(text: string, options: { keepNumbers: boolean } = { keepNumbers: false }): string {
  const composed = text.normalize("NFKC");
  const spelled = options.keepNumbers ? numbersAsWords(composed) : composed;
  const folded = caseFolded(spelled).replace(/\p{P}/gu, "");
  const withoutArticles = folded.replace(/(?<![\p{L}\p{N}])(?:a|an|the)(?![\p{L}\p{N}])/gu, " ");
  const words = (spaced: string) => spaced.trim().replace(/\s+/gu, " ");
  return words(withoutArticles) || words(folded);
}

/** Through upper case, so that "ß" and "ss" are one, and both sigmas. */
export function caseFolded(text: string): string {
  return text.toUpperCase().toLowerCase();
}

function numbersAsWords(text: string): string {
  return text
    .replace(/[\u2212\u2010-\u2013]/g, "-")
    .replace(/(?<=\d),(?=\d{3}(?!\d))/g, "")
    .replace(/(?<![\p{L}\p{N}])-(?=[$€£¥]?\.?\d)/gu, " minus ")
    .replace(/(?<=\d)([.,:/-])(?=\d)/g, (_, mark: string) => ` ${markWords[mark]} `);
}

const markWords: Record<string, string> = { ".": "point", ",": "comma", ":": "colon", "/": "slash", "-": "dash" };
