/** Reads the number that an answer ends in, exactly. */

/** A dash before a digit is a sign unless a word, digit or bracket comes before it: "10-5" has no -5. */
const sign = String.raw`(?:(?<![\p{L}\d)\]}.%])-|(?<=[=:]\s{0,3})-\s{1,3})?`;
const currency = String.raw`(?:[$€£¥₹]\s?)?`;
const whole = String.raw`(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)`;
const fraction = String.raw`(?:\.\d+)?`;
const exponent = String.raw`(?:[eE][+-]?\d{1,3}(?![\d\p{L}]))?`;
/** "3/4" is one number, "3/4/2026" is none of our business. */
const quotient = String.raw`(?:\s?/\s?(\d+)(?!\d)(?![.,][\d.,]{0,30}\d))?`;
const scale = String.raw`(?:\s?([Tt]housand|[Mm]illion|[Bb]illion|[Tt]rillion)s?(?!\p{L})|(k)(?![\p{L}\d]))?`;
/** A digit inside a word ("H2O", "m2") is no number. */
const numberPattern = new RegExp(
  `(?<![\\p{L}\\d_])(${sign})${currency}(${sign})${currency}((?:${whole}${fraction}|(?<!\\d)\\.\\d+)${exponent})${quotient}${scale}`,
  "gu",
);

/** Words and letters that multiply the number before them. */
const scaleOf: Readonly<Record<string, number>> = { thousand: 3, k: 3, million: 6, billion: 9, trillion: 12 };

/** Characters of a statement that are read, so that no text takes longer than its length. */
const statementCharacters = 200;
/** Where a text says that its answer stands; of several of one kind the last counts, of "####" the first. */
const hashed = new RegExp(`####([^\\n]{0,${statementCharacters}})`, "g");
const boxed = /\\(?:boxed|fbox)\s{0,3}\{((?:[^{}]|\{(?:[^{}]|\{[^{}]{0,99}\}){0,99}\}){0,200})\}/g;
const said = /\banswer(?: is|:| =|\s?\*\*:?)/gi;
/** A base model that has answered goes on with the next exercise, which is no part of its answer. */
const exercise = /\n[ \t#*]*(?:question|problem|exercise|q)[ \t]?\d*[ \t]?[:.]/gi;

/**
 * The final number of a text as a canonical string, equal for equal values:
 * "18", "-5", "0.25", "1/3". Undefined when there is none. What the text marks
 * as its answer counts, else its last number.
 */
export function readFinalNumber(text: string): string | undefined {
  return readMarkedNumber(text) ?? readLastNumber(text);
}

/** The strict reader: the number that the text itself marks as its answer ("#### 18", "\boxed{18}", "the answer is 18"). */
export function readMarkedNumber(text: string): string | undefined {
  const plain = plainText(text);
  const own = ownAnswer(plain);
  const afterHashes = [...own.matchAll(hashed)].map(([, line = ""]) => line).find(isResult);
  const inBox = [...own.matchAll(boxed)].map(([, content = ""]) => content).findLast(hasDigit);
  const afterWords = [...own.matchAll(said)]
    .map(
      ({ 0: words, index }) =>
        own.slice(index + words.length, index + words.length + statementCharacters).split("\n", 1)[0] ?? "",
    )
    .findLast(hasDigit);
  const marked = afterHashes ?? inBox ?? afterWords;
  return marked === undefined ? undefined : statedNumber(marked);
}

/** The lenient reader: the last number, wherever it stands. */
export function readLastNumber(text: string): string | undefined {
  const plain = plainText(text);
  return numbersOf(ownAnswer(plain)).at(-1) ?? numbersOf(plain).at(-1);
}

/** The text up to where the next exercise begins. */
function ownAnswer(text: string): string {
  const begins = text.search(/\S/);
  for (const { index } of text.matchAll(exercise)) if (begins >= 0 && index > begins) return text.slice(0, index);
  return text;
}

/** "#### Step 1: 12" is a heading. */
function isResult(line: string): boolean {
  return hasDigit(line) && !/^\s*(?:step|part|case)\b/i.test(line);
}

function hasDigit(text: string): boolean {
  return /\d/.test(text);
}

/** What may stand before an "=" that is reckoned out: numbers and signs, and a letter for the unknown. */
const reckoned = /^[^\p{L}(,;]*(?:\([^\p{L}()]*\)[^\p{L}(,;]*)*\p{L}?\s*$/u;

/** The number that a short statement is about: the first, or the result where it is reckoned out. */
function statedNumber(told: string): string | undefined {
  // What follows a full stop and a space is said of something else.
  const sentence = told.split(/(?<=[\d)}%])[.;!?]\s/, 1)[0] ?? told;
  const [before = "", ...results] = sentence.split(/[=≈]/);
  const result = reckoned.test(before) ? results.findLast(hasDigit) : undefined;
  return numbersOf(result ?? sentence)[0];
}

function numbersOf(text: string): string[] {
  const numbers: string[] = [];
  for (const [, outerSign, innerSign, digits = "", denominator, word, letter] of text.matchAll(numberPattern)) {
    const negative = (outerSign || innerSign || "") !== "";
    const number = canonical(
      negative,
      digits.replaceAll(",", ""),
      denominator,
      scaleOf[(word ?? letter ?? "").toLowerCase()] ?? 0,
    );
    if (number !== undefined) numbers.push(number);
  }
  return numbers;
}

/**
 * One spelling for what is written in several: minus signs, full-width digits,
 * LaTeX fractions and separators, powers of ten, mixed numbers ("1 1/2" as "3/2").
 */
function plainText(text: string): string {
  return text
    .replace(/(?<=\d)[\u00A0\u2009\u202F'’](?=\d{3}(?!\d))/g, ",")
    .replace(/(?<=\d)(?=[\u00BC-\u00BE\u2150-\u215E])/g, " ")
    .normalize("NFKC")
    .replace(/[\u2212\u2010\u2011\u2012\u2013\uFE63\uFF0D]/g, "-")
    .replaceAll("\u2044", "/")
    .replace(/(?<=\d)\\[dt]?frac/g, " \\frac")
    .replace(/\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}/g, "$1/$2")
    .replace(/\\[dt]?frac(\d)(\d)/g, "$1/$2")
    .replace(/\{,\}/g, ",")
    .replace(/\\[,!;: ]/g, "")
    .replace(/\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}/g, " $1 ")
    .replaceAll("\\$", "$")
    .replaceAll("\\%", "%")
    .replace(/(?<=\d)\s?(?:×|\*|x|\\times|\\cdot)\s?10\s?(?:\^\s?\{?|\*\*)\s?(-?\d{1,3})\}?/g, "e$1")
    .replace(/(?<![\d/.,])(\d{1,3}) (\d{1,4})\s?\/\s?(\d{1,4})(?![\d/])/g, (mixed, units, part, parts) =>
      Number(part) < Number(parts) ? `${Number(units) * Number(parts) + Number(part)}/${parts}` : mixed,
    );
}

/** Value as a reduced fraction of big integers, so that 0.1 + 0.2 style errors cannot happen. */
function canonical(
  negative: boolean,
  decimal: string,
  denominatorDigits: string | undefined,
  powerOfTen: number,
): string | undefined {
  const [mantissa = "", exponentDigits = "0"] = decimal.toLowerCase().split("e");
  const [wholeDigits = "", fractionDigits = ""] = mantissa.split(".");
  const scale = Number(exponentDigits) + powerOfTen - fractionDigits.length;
  let numerator = BigInt(wholeDigits + fractionDigits) * 10n ** BigInt(Math.max(scale, 0));
  let denominator = 10n ** BigInt(Math.max(-scale, 0)) * BigInt(denominatorDigits ?? 1);
  if (denominator === 0n) return undefined;
  const divisor = greatestCommonDivisor(numerator, denominator);
  numerator /= divisor;
  denominator /= divisor;
  const prefix = negative && numerator !== 0n ? "-" : "";
  return prefix + (asDecimal(numerator, denominator) ?? `${numerator}/${denominator}`);
}

/** The fraction written out, where it ends after at most 30 places; undefined else. */
function asDecimal(numerator: bigint, denominator: bigint): string | undefined {
  for (let places = 0; places <= 30; places++) {
    const scaled = numerator * 10n ** BigInt(places);
    if (scaled % denominator !== 0n) continue;
    const digits = (scaled / denominator).toString().padStart(places + 1, "0");
    return places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`;
  }
  return undefined;
}

function greatestCommonDivisor(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a === 0n ? 1n : a;
}
