/** Texts that can be stored: Postgres holds neither U+0000 nor half a surrogate pair. Pure. */
import { invalidField } from "./errors.js";

/** What is wrong with a text and how to mend it; undefined when it can be stored. */
export function textMistake(text: string): string | undefined {
  if (text.includes("\0")) return "holds the character U+0000; remove it.";
  if (/\p{Surrogate}/u.test(text)) return "holds half a character (a lone surrogate); remove it or send the whole one.";
  return undefined;
}

/**
 * Looks at every text of a message or of JSON, names of members too.
 * Throws invalid_argument for the first that cannot be stored.
 * @param field where the value stands; empty for a whole request
 * @param place how the path of a member is written: "task.labels[0].name" unless said otherwise
 */
export function requireStorable(value: unknown, field: string, place = memberPlace): void {
  if (typeof value === "string") {
    const mistake = textMistake(value);
    if (mistake !== undefined) throw invalidField(field, mistake);
  } else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) requireStorable(item, place(field, index), place);
  } else if (typeof value === "object" && value !== null && !(value instanceof Date) && !ArrayBuffer.isView(value)) {
    const { $case: choice } = value as { $case?: unknown };
    for (const [name, member] of Object.entries(value)) {
      if (textMistake(name) !== undefined) throw invalidField(field || "body", "has a member with an unfit name.");
      // Of a oneof, the field that is set stands for its members.
      if (typeof choice === "string") requireStorable(member, name === "value" ? field : `${field}.$case`, place);
      else requireStorable(member, place(field, fieldNameOf(name, member)), place);
    }
  }
}

/** A oneof is no field of its own: the one that is set stands in its place. */
function fieldNameOf(name: string, member: unknown): string {
  const choice = typeof member === "object" && member !== null ? (member as { $case?: unknown }).$case : undefined;
  return typeof choice === "string" ? choice : name;
}

/** As the contracts name fields: "max_tokens", not "maxTokens". */
function memberPlace(field: string, member: string | number): string {
  if (typeof member === "number") return `${field}[${member}]`;
  const name = member.replace(/[A-Z]/g, (capital) => `_${capital.toLowerCase()}`);
  return field === "" ? name : `${field}.${name}`;
}
