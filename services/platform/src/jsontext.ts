/**
 * JSON as language models write it, in the middle of a text: raw line breaks in
 * strings, trailing commas, Python's True and None. Unlike JSON.parse it keeps
 * a number as it is written, and tells of a key that comes twice. Pure.
 */

/** A number as it is written: 1e3 stays "1e3", and no digit is lost. */
export class JsonNumber {
  constructor(readonly text: string) {}
}

/** An object; `members` has the last value of a key that is there twice. */
export class JsonObject {
  readonly members = new Map<string, JsonValue>();
  /** Keys that are there more than once. */
  readonly repeated = new Set<string>();
}

export type JsonValue = string | boolean | null | JsonNumber | JsonObject | JsonValue[];

/** A text with more braces than this before its object is rubbish; reading on would take quadratic time. */
const maxObjects = 64;
/** Nothing that we ask for is nested deeper; the reader calls itself. */
const maxDepth = 32;

/** The objects of a text, each from an opening brace on, whatever stands around them: prose, code fences, an array. */
export function* objectsIn(text: string): Generator<JsonObject> {
  let tries = maxObjects;
  for (let start = text.indexOf("{"); start !== -1 && tries > 0; start = text.indexOf("{", start + 1)) {
    tries -= 1;
    const object = new Reader(text, start).value(0);
    if (object instanceof JsonObject) yield object;
  }
}

/** The object that a text consists of, white space apart; undefined when it is anything else. */
export function wholeObject(text: string): JsonObject | undefined {
  const reader = new Reader(text, text.length - text.trimStart().length);
  const value = reader.value(0);
  return value instanceof JsonObject && text.slice(reader.at).trim() === "" ? value : undefined;
}

/** A value as JSON, with a space after commas and colons as Python's json has them: what models have read most of. */
export function jsonText(value: JsonValue): string {
  if (value instanceof JsonNumber) return value.text;
  if (Array.isArray(value)) return `[${value.map(jsonText).join(", ")}]`;
  if (value instanceof JsonObject) {
    return `{${[...value.members].map(([key, one]) => `${JSON.stringify(key)}: ${jsonText(one)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

const numberForm = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?![\w.])/y;
const wordForm = /[A-Za-z]+/y;
const words = new Map<string, boolean | null>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["null", null],
  ["None", null],
]);
const escapes: Record<string, string> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f" };

/** Reads one value; `undefined` from any method means that there is none. */
class Reader {
  constructor(
    private readonly text: string,
    public at: number,
  ) {}

  value(depth: number): JsonValue | undefined {
    if (depth > maxDepth) return undefined;
    this.skipSpace();
    const first = this.text[this.at];
    if (first === "{") return this.object(depth);
    if (first === "[") return this.array(depth);
    if (first === '"') return this.string();
    const number = this.match(numberForm);
    if (number !== undefined) return new JsonNumber(number);
    return words.get(this.match(wordForm) ?? "");
  }

  private object(depth: number): JsonObject | undefined {
    const object = new JsonObject();
    this.at += 1;
    for (;;) {
      this.skipSpace();
      if (this.takes("}")) return object;
      if (this.text[this.at] !== '"') return undefined;
      const key = this.string();
      this.skipSpace();
      if (key === undefined || !this.takes(":")) return undefined;
      const value = this.value(depth + 1);
      if (value === undefined) return undefined;
      if (object.members.has(key)) object.repeated.add(key);
      object.members.set(key, value);
      this.skipSpace();
      if (!this.takes(",") && this.text[this.at] !== "}") return undefined;
    }
  }

  private array(depth: number): JsonValue[] | undefined {
    const items: JsonValue[] = [];
    this.at += 1;
    for (;;) {
      this.skipSpace();
      if (this.takes("]")) return items;
      const value = this.value(depth + 1);
      if (value === undefined) return undefined;
      items.push(value);
      this.skipSpace();
      if (!this.takes(",") && this.text[this.at] !== "]") return undefined;
    }
  }

  private string(): string | undefined {
    let read = "";
    for (let at = this.at + 1; at < this.text.length; at += 1) {
      const character = this.text[at] as string;
      if (character === '"') {
        this.at = at + 1;
        return read;
      }
      if (character !== "\\") {
        read += character;
        continue;
      }
      at += 1;
      const escaped = this.text[at];
      if (escaped === undefined) return undefined;
      if (escaped === "u") {
        const digits = this.text.slice(at + 1, at + 5);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) return undefined;
        read += String.fromCharCode(Number.parseInt(digits, 16));
        at += 4;
      } else read += escapes[escaped] ?? escaped;
    }
    return undefined;
  }

  private skipSpace(): void {
    while (/\s/.test(this.text[this.at] ?? "")) this.at += 1;
  }

  private takes(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private match(form: RegExp): string | undefined {
    form.lastIndex = this.at;
    const found = form.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }
}
