/** Grades extraction: reads the JSON object of an answer and compares its fields. Pure. */

import { type ExtractionField, FieldType, type Task } from "@tutelage/proto/task/v1/task";
import { readFinalNumber } from "./finalnumber.js";
import { JsonNumber, JsonObject, type JsonValue, jsonText, objectsIn } from "./jsontext.js";
import { normalizedText } from "./normalizedtext.js";

/**
 * The answer's object as JSON, its declared fields in their order and first;
 * undefined when there is none. Of several objects the first with a declared
 * field counts. A key that comes twice is two answers in one, and none.
 */
export function readObject(text: string, task: Task): string | undefined {
  let found: JsonObject | undefined;
  for (const object of objectsIn(text)) {
    found ??= object;
    if (!task.fields.some(({ name }) => object.members.has(name))) continue;
    found = object;
    break;
  }
  if (found === undefined || found.repeated.size > 0) return undefined;
  const ordered = new JsonObject();
  for (const name of [...task.fields.map((field) => field.name), ...found.members.keys()]) {
    const value = found.members.get(name) ?? null;
    if (value !== null) ordered.members.set(name, value);
  }
  return jsonText(ordered);
}

/** What an answer does with one field. */
export interface FieldGrade {
  field: string;
  declared: boolean;
  expected: boolean;
  answered: boolean;
  /** Both have it and agree, or neither has it. */
  right: boolean;
}

/** Every declared field, and each undeclared one that the answer has. Both texts are from `readObject`, or undefined. */
export function gradeFields(
  answer: string | undefined,
  expected: string | undefined,
  fields: readonly ExtractionField[],
): FieldGrade[] {
  const [answered, wanted] = [membersOf(answer), membersOf(expected)];
  const grades = fields.map(({ name, type }): FieldGrade => {
    const [a, b] = [comparable(answered.get(name), type), comparable(wanted.get(name), type)];
    // An unreadable answer is not right to leave a field out: it says nothing.
    const right = answer !== undefined && a === b;
    return { field: name, declared: true, expected: b !== undefined, answered: answered.has(name), right };
  });
  for (const name of answered.keys()) {
    if (fields.some((field) => field.name === name)) continue;
    grades.push({ field: name, declared: false, expected: false, answered: true, right: false });
  }
  return grades;
}

function membersOf(text: string | undefined): ReadonlyMap<string, JsonValue> {
  const [object] = objectsIn(text ?? "");
  return object?.members ?? new Map();
}

/** A value in the form in which equal values are equal texts; undefined when the field is not there. */
function comparable(value: JsonValue | undefined, type: FieldType): string | undefined {
  if (value === undefined || value === null) return undefined;
  // What is of another type equals only the same of that type.
  const other = `?${jsonText(value)}`;
  if (type === FieldType.NUMBER) {
    const written = value instanceof JsonNumber ? value.text : typeof value === "string" ? value : undefined;
    const number = written === undefined ? undefined : readFinalNumber(written);
    return number === undefined ? other : `=${number}`;
  }
  if (type === FieldType.BOOLEAN) {
    const said = typeof value === "string" ? value.trim().toLowerCase() : String(value);
    return said === "true" || said === "false" ? `=${said}` : other;
  }
  if (type === FieldType.STRING_LIST) {
    const items = (Array.isArray(value) ? value : [value]).map(plainText);
    return items.includes(undefined) ? other : `=${JSON.stringify([...new Set(items)].sort())}`;
  }
  const text = plainText(value);
  return text === undefined ? other : `=${text}`;
}

function plainText(value: JsonValue): string | undefined {
  const text = value instanceof JsonNumber ? value.text : typeof value === "boolean" ? String(value) : value;
  return typeof text === "string" ? normalizedText(text, { keepNumbers: true }) : undefined;
}
