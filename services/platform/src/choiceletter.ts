/** Reads the letter of a multiple-choice answer, however it is dressed. */

const open = String.raw`[\s("'“‘\[{*<]*`;
const close = String.raw`[\s)"'”’\]}*>.:,;!]*`;
/** Nothing but one letter: "B", "(b)", "B.", "**B**". */
const alone = new RegExp(`^${open}([A-Za-z])${close}$`);
/** A capital, or a small letter in brackets, before a stop, or at the end: "the answer is a dog" has no letter. */
const letter = String.raw`(?:([A-Z])(?![\p{L}\d'’])|[(\[{*]([a-z])[)\]}*]|([a-z])(?=[).:,;]|\s*$))`;
const announced = new RegExp(
  String.raw`\b(?:[Aa]nswer|ANSWER|[Oo]ption|[Cc]hoice)\b(?:\s+(?:is|was|would be|must be|should be))?\s*[:=]?\s*(?:option|choice|letter)?\s*["'“‘*]*${letter}`,
  "gmu",
);
const boxed = new RegExp(String.raw`\\boxed\{\s*(?:\\text\{)?${open}([A-Za-z])${close}\}`);
/** At the start of the text, set off from what follows: "B) Paris", "(b) Paris", "B: Paris". */
const leading = new RegExp(`^${open}([A-Za-z])\\s?[).:\\]}*]`);
/** A capital alone at the start: "B because …". "A" and "I" begin sentences too. */
const leadingCapital = /^([B-HJ-Z])(?=[\s,-])/;
const bracketed = /\(([A-Za-z])\)/g;

/** The letter, upper case; undefined when there is none or more than one could be meant. */
export function readChoiceLetter(text: string): string | undefined {
  const plain = text.normalize("NFKC").trim();
  const lines = plain.split(/\n+/).map((line) => line.trim());
  const found =
    alone.exec(plain)?.[1] ??
    boxed.exec(plain)?.[1] ??
    lastAnnounced(plain) ??
    alone.exec(lines[0] ?? "")?.[1] ??
    (bracketedLetters(plain).size > 1 ? undefined : leading.exec(plain)?.[1]) ??
    leadingCapital.exec(plain)?.[1] ??
    alone.exec(lines.at(-1) ?? "")?.[1] ??
    onlyBracketed(plain);
  return found?.toUpperCase();
}

function lastAnnounced(text: string): string | undefined {
  const match = [...text.matchAll(announced)].at(-1);
  return match?.slice(1).find((group) => group !== undefined);
}

function onlyBracketed(text: string): string | undefined {
  const letters = bracketedLetters(text);
  return letters.size === 1 ? [...letters][0] : undefined;
}

function bracketedLetters(text: string): Set<string> {
  return new Set([...text.matchAll(bracketed)].map(([, found = ""]) => found.toUpperCase()));
}
