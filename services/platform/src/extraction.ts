/** Outputs of extraction tasks: JSON objects with declared fields. Pure. */
import { type ExtractionField, FieldType } from "@tutelage/proto/task/v1/task";
import { invalidField } from "./errors.js";
import { JsonNumber, JsonObject, type JsonValue, jsonText, wholeObject } from "./jsontext.js";

const mostFields = 64;

/** What a type is called in requests and to a teacher. */
export const fieldTypeNames: Readonly<Record<FieldType, string>> = {
  [FieldType.UNSPECIFIED]: "",
  [FieldType.STRING]: "string",
  [FieldType.NUMBER]: "number",
  [FieldType.BOOLEAN]: "true or false",
  [FieldType.STRING_LIST]: "list of strings",
};

/** The declared fields, checked. Throws invalid_argument that names one, below `field`. */
export function requireFields(fields: readonly ExtractionField[], field: string): void {
  if (fields.length > mostFields)
    throw invalidField(field, `has ${fields.length} fields; declare at most ${mostFields}.`);
  const seen = new Set<string>();
  for (const [index, { name, type }] of fields.entries()) {
    const place = `${field}[${index}]`;
    if (name.trim() === "") throw invalidField(`${place}.name`, "is empty; name every field.");
    if (seen.has(name)) throw invalidField(`${place}.name`, `repeats "${name}"; declare it once.`);
    seen.add(name);
    if (type === FieldType.UNSPECIFIED) {
      throw invalidField(`${place}.type`, "is not set; use string, number, boolean or string_list.");
    }
  }
}

/** Why an object is not an output of the task. */
export interface FieldProblem {
  /** The field at fault. */
  field: string;
  /** What is wrong and how to mend it; goes on from the field's name. */
  message: string;
}

/** The first thing by which an object does not fit the declared fields; undefined when it fits. */
export function fieldProblem(object: JsonObject, fields: readonly ExtractionField[]): FieldProblem | undefined {
  for (const key of object.members.keys()) {
    if (object.repeated.has(key)) return { field: key, message: "is there twice; keep one of them." };
    if (!fields.some(({ name }) => name === key)) {
      return { field: key, message: `is not declared; leave it out, or use one of ${shownNames(fields)}.` };
    }
  }
  for (const { name, type, optional } of fields) {
    const value = object.members.get(name) ?? null;
    if (value === null) {
      if (optional) continue;
      return { field: name, message: `is missing; give a ${fieldTypeNames[type]}, or declare the field optional.` };
    }
    const fix = typeFix(value, type);
    if (fix !== undefined) return { field: name, message: fix };
  }
  return undefined;
}

/** The output as it is stored: the fields in declared order, those that are null left out. */
export function orderedOutput(object: JsonObject, fields: readonly ExtractionField[]): string {
  const ordered = new JsonObject();
  for (const { name } of fields) {
    const value = object.members.get(name) ?? null;
    if (value !== null) ordered.members.set(name, value);
  }
  return jsonText(ordered);
}

/** A row's output, strictly read: the output as it is stored, or why it does not fit. */
export function readFields(
  output: string,
  fields: readonly ExtractionField[],
): { output: string } | { problem: FieldProblem } {
  const object = wholeObject(output);
  if (object === undefined) {
    const message = `is not a JSON object; write one with the fields ${shownNames(fields)}.`;
    return { problem: { field: "", message } };
  }
  const problem = fieldProblem(object, fields);
  return problem === undefined ? { output: orderedOutput(object, fields) } : { problem };
}

function typeFix(value: JsonValue, type: FieldType): string | undefined {
  const shown = jsonText(value).slice(0, 60);
  if (type === FieldType.STRING) {
    return typeof value === "string" ? undefined : `is ${shown}; write it as text, in quotes.`;
  }
  if (type === FieldType.NUMBER) {
    return value instanceof JsonNumber ? undefined : `is ${shown}; write a number, without quotes and separators.`;
  }
  if (type === FieldType.BOOLEAN) {
    return typeof value === "boolean" ? undefined : `is ${shown}; write true or false, without quotes.`;
  }
  const isList = Array.isArray(value) && value.every((item) => typeof item === "string");
  return isList ? undefined : `is ${shown}; write a list of texts, e.g. ["one", "two"].`;
}

function shownNames(fields: readonly ExtractionField[]): string {
  return fields.map(({ name }) => JSON.stringify(name)).join(", ");
}
