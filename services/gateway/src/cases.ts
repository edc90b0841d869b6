/** Messages speak camelCase, JSON speaks snake_case: the same names otherwise, checked by the compiler. */

type SnakeCase<Name extends string> = Name extends `${infer First}${infer Rest}`
  ? First extends Lowercase<First>
    ? `${First}${SnakeCase<Rest>}`
    : `_${Lowercase<First>}${SnakeCase<Rest>}`
  : Name;

type CamelCase<Name extends string> = Name extends `${infer Head}_${infer Rest}`
  ? `${Head}${Capitalize<CamelCase<Rest>>}`
  : Name;

/** A message with the names of its JSON form. */
export type Snaked<T> = T extends Date | Uint8Array
  ? T
  : T extends readonly (infer Item)[]
    ? Snaked<Item>[]
    : T extends object
      ? { [Name in keyof T as Name extends string ? SnakeCase<Name> : Name]: Snaked<T[Name]> }
      : T;

/** A JSON value with the names of its message; what is undefined is left out. */
export type Cameled<T> = T extends Date | Uint8Array
  ? T
  : T extends readonly (infer Item)[]
    ? Cameled<Item>[]
    : T extends object
      ? { [Name in keyof T as Name extends string ? CamelCase<Name> : Name]: Cameled<Exclude<T[Name], undefined>> }
      : T;

/** Fields whose keys are data, not names: they stay as they are. */
const maps = new Set(["metadata", "rejected", "phaseSeconds", "phase_seconds", "overlapsByKind", "overlaps_by_kind"]);

export function snake<T>(message: T): Snaked<T> {
  return renamed(message, (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)) as Snaked<T>;
}

export function camel<T>(json: T): Cameled<T> {
  return renamed(json, (name) =>
    name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
  ) as Cameled<T>;
}

function renamed(value: unknown, rename: (name: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
  if (value === null || typeof value !== "object" || value instanceof Date || value instanceof Uint8Array) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => [rename(name), maps.has(name) ? item : renamed(item, rename)]),
  );
}
