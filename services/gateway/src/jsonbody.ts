/** Reads a JSON body, and says where one that is no JSON goes wrong: engines differ in what they tell. Pure. */
import { TutelageError } from "@tutelage/platform/errors";
import { requireStorable } from "@tutelage/platform/text";

/** Characters of the text shown at the mistake. */
const shownCharacters = 20;

/** Throws invalid_argument with line and column. */
export function parseJsonBody(text: string): unknown {
  if (text.trim() === "") {
    const description = "is empty; send a JSON object.";
    throw new TutelageError("invalid_argument", `The request body ${description}`, {
      reason: "empty_body",
      fields: [{ field: "body", description }],
    });
  }
  try {
    const body: unknown = JSON.parse(text, withoutPrototype);
    // Bytes cannot hold half a character, and a bare U+0000 is no JSON: both are written as escapes.
    if (/\\u(?:0000|d[89a-f])/i.test(text)) requireStorable(body, "", pathOf);
    return body;
  } catch (cause) {
    if (cause instanceof TutelageError) throw cause;
    const offset = jsonMistake(text) ?? text.length;
    const before = text.slice(0, offset).split("\n");
    const place = `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}`;
    const rest = text.slice(offset, offset + shownCharacters).split("\n")[0] ?? "";
    const what = offset >= text.length ? "it ends too early" : `${JSON.stringify(rest)} cannot stand there`;
    const description = `is not JSON at ${place}: ${what}; mend it there.`;
    throw new TutelageError("invalid_argument", `The request body ${description}`, {
      reason: "malformed_json",
      fields: [{ field: "body", description }],
      cause,
    });
  }
}

/** A place as every refusal of a body names it: "task.labels.0.name". */
function pathOf(field: string, member: string | number): string {
  return field === "" ? String(member) : `${field}.${member}`;
}

/** "__proto__" as a key means harm in JavaScript, and nothing here has such a field. */
function withoutPrototype(key: string, value: unknown): unknown {
  if (key !== "__proto__") return value;
  const description = 'has a field "__proto__"; remove it.';
  throw new TutelageError("invalid_argument", `The request body ${description}`, {
    reason: "malformed_json",
    fields: [{ field: "body", description }],
  });
}

const space = /[ \t\n\r]*/y;
/** From the space up, as control characters may not stand in it. */
const string = /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const scalar = /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])/y;

/** Where a text stops being JSON; undefined when it is JSON. */
export function jsonMistake(text: string): number | undefined {
  let at = 0;
  const take = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text) !== null;
    if (found) at = pattern.lastIndex;
    return found;
  };
  const is = (character: string) => {
    take(space);
    if (text[at] !== character) return false;
    at++;
    return true;
  };
  // What is open: a list of brackets, not a recursion, as a body may nest as deep as it is long.
  const open: ("{" | "[")[] = [];
  for (;;) {
    take(space);
    if (text[at] === "{" || text[at] === "[") {
      const bracket = text[at] as "{" | "[";
      at++;
      if (!is(bracket === "{" ? "}" : "]")) {
        open.push(bracket);
        if (bracket === "{" && !key()) return at;
        continue;
      }
    } else if (!take(string) && !take(scalar)) return at;
    // A value has ended: so may what it stands in.
    while (open.length > 0 && is(open.at(-1) === "{" ? "}" : "]")) open.pop();
    take(space);
    if (open.length === 0) return at === text.length ? undefined : at;
    if (!is(",")) return at;
    if (open.at(-1) === "{" && !key()) return at;
  }

  function key(): boolean {
    take(space);
    return take(string) && is(":");
  }
}
