/** Guesses the fields of an extraction from its outputs. Pure. */

/** A field as campaign.yaml declares it. */
export interface GuessedField {
  name: string;
  type: "string" | "number" | "boolean" | "string_list";
  /** Some outputs lack it. */
  optional: boolean;
}

/** Share of outputs that must be objects. */
const most = 0.9;

/** The fields, or undefined when the outputs are no objects of plain values. */
export function guessFields(outputs: readonly string[]): GuessedField[] | undefined {
  const objects = outputs.map(objectOf).filter((object) => object !== undefined);
  if (objects.length === 0 || objects.length < outputs.length * most) return undefined;
  const names = [...new Set(objects.flatMap((object) => Object.keys(object)))];
  if (names.length === 0) return undefined;
  const fields: GuessedField[] = [];
  for (const name of names) {
    const values = objects.map((object) => object[name]).filter((value) => value !== undefined && value !== null);
    const type = typeOf(values);
    if (type === undefined) return undefined;
    fields.push({ name, type, optional: values.length < objects.length });
  }
  return fields;
}

/** The type that all values have; undefined for nested objects and for values of several types. */
function typeOf(values: readonly unknown[]): GuessedField["type"] | undefined {
  const all = (is: (value: unknown) => boolean) => values.every(is);
  if (all((value) => typeof value === "string")) return "string";
  if (all((value) => typeof value === "number")) return "number";
  if (all((value) => typeof value === "boolean")) return "boolean";
  if (all((value) => Array.isArray(value) && value.every((item) => typeof item === "string"))) return "string_list";
  return undefined;
}

function objectOf(output: string): Record<string, unknown> | undefined {
  if (!output.trimStart().startsWith("{")) return undefined;
  try {
    return JSON.parse(output) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
