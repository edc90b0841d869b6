/** Reads the number that an answer ends in, exactly. */

/** A dash before a digit is a sign unless a word, digit or bracket comes before it: "10-5" has no -5. */
const sign = String.raw`(?:(?<![\p{L}\d)\]}.%])-|(?<=[=:]\s*)-\s+)?`;
const currency = String.raw`(?:[$€£¥₹]\s?)?`;
const whole = String.raw`(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)`;
const fraction = String.raw`(?:\.\d+)?`;
const exponent = String.raw`(?:[eE][+-]?\d{1,3}(?![\d\p{L}]))?`;
/** "3/4" is one number, "3/4/2026" is none of our business. */
const quotient = String.raw`(?:\s?/\s?(\d+)(?![\d.,]*\d))?`;
/** A digit inside a word ("H2O", "m2") is no number. */
const numberPattern = new RegExp(
  `(?<![\\p{L}\\d_])(${sign})${currency}(${sign})${currency}((?:${whole}${fraction}|(?<!\\d)\\.\\d+)${exponent})${quotient}`,
  "gu",
);

/**
 * The final number of a text as a canonical string, equal for equal values:
 * "18", "-5", "0.25", "1/3". Undefined when there is none. Where the text marks
 * its answer ("#### 18", "\boxed{18}") that place counts, else the last number.
 */
export function readFinalNumber(text: string): string | undefined {
  const plain = plainText(text);
  const marked =
    /####([^\n]*\d[^\n]*)/.exec(plain)?.[1] ?? [...plain.matchAll(/\\boxed\{([^{}]*\d[^{}]*)\}/g)].at(-1)?.[1];
  return lastNumber(marked ?? plain);
}

function lastNumber(text: string): string | undefined {
  let last: string | undefined;
  for (const [, outerSign, innerSign, digits = "", denominator] of text.matchAll(numberPattern)) {
    const negative = (outerSign || innerSign || "") !== "";
    last = canonical(negative, digits.replaceAll(",", ""), denominator) ?? last;
  }
  return last;
}

/** One spelling for what is written in several: minus signs, full-width digits, LaTeX fractions and separators. */
function plainText(text: string): string {
  return text
    .replace(/(?<=\d)[\u00A0\u2009\u202F'’](?=\d{3}(?!\d))/g, ",")
    .normalize("NFKC")
    .replace(/[\u2212\u2010\u2011\u2012\u2013\uFE63\uFF0D]/g, "-")
    .replaceAll("\u2044", "/")
    .replace(/\\[dt]?frac\{(\d+)\}\{(\d+)\}/g, "$1/$2")
    .replace(/\{,\}/g, ",")
    .replace(/\\[,!;: ]/g, "")
    .replaceAll("\\$", "$")
    .replaceAll("\\%", "%");
}

/** Value as a reduced fraction of big integers, so that 0.1 + 0.2 style errors cannot happen. */
function canonical(negative: boolean, decimal: string, denominatorDigits: string | undefined): string | undefined {
  const [mantissa = "", exponentDigits = "0"] = decimal.toLowerCase().split("e");
  const [wholeDigits = "", fractionDigits = ""] = mantissa.split(".");
  const scale = Number(exponentDigits) - fractionDigits.length;
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
