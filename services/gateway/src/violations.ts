/** What is wrong with a request by its schema, as sentences that name the field and the fix. Pure. */
import type { FieldViolation } from "@tutelage/platform/errors";
import { nearest } from "@tutelage/platform/suggestion";
import { meantIssues } from "./unions.js";

/** An issue of zod as the type provider hands it on. */
export interface Issue {
  keyword: string;
  instancePath: string;
  message: string;
  params: {
    expected?: string;
    values?: unknown[];
    keys?: string[];
    format?: string;
    origin?: string;
    minimum?: number;
    maximum?: number;
    inclusive?: boolean;
    errors?: (Issue["params"] & { code?: string; path?: PropertyKey[]; message?: string })[][];
  };
}

/**
 * @param part what the schema is of: "body", "querystring", "params" or "headers"
 * @param given that part of the request
 */
export function violationsOf(
  issues: readonly Issue[],
  { part, schema, given }: { part: string; schema: unknown; given: unknown },
): FieldViolation[] {
  return issues.flatMap(meantIssues).flatMap((issue): FieldViolation[] => {
    const path = issue.instancePath.split("/").filter((segment) => segment !== "");
    const field = path.join(".");
    if (issue.keyword !== "unrecognized_keys") {
      // What is missing altogether has no path.
      return [{ field: field === "" ? part : field, description: describe(issue, valueAt(given, path)) }];
    }
    const known = keysAt(schema, path);
    return (issue.params.keys ?? []).map((key) => {
      const meant = nearest(key, known);
      const fix = meant === undefined ? "remove it or correct its name." : `did you mean "${meant}"?`;
      return { field: field === "" ? key : `${field}.${key}`, description: `is not a known field; ${fix}` };
    });
  });
}

function describe({ keyword, message, params }: Issue, value: unknown): string {
  const { expected = "value" } = params;
  // A message of our own schemas says more than what follows.
  const ours = !/^(Invalid|Too (big|small))\b/.test(message);
  if (keyword === "invalid_type" && value === undefined && message.endsWith("received undefined")) {
    return `is missing; give ${article(expected)}.`;
  }
  if (ours) return sentence(message);
  if (keyword === "invalid_type") return `must be ${article(expected)}.`;
  if (keyword === "invalid_value") {
    const names = (params.values ?? []).filter((one) => one !== "unspecified").map(String);
    const meant = typeof value === "string" ? nearest(value, names) : undefined;
    const allowed = `must be one of ${quoted(names).join(", ")}`;
    return meant === undefined ? `${allowed}.` : `${allowed}; did you mean "${meant}"?`;
  }
  if (keyword === "invalid_union") {
    const kinds = (params.errors ?? [])
      .flat()
      .map((one) => one.expected ?? quoted((one.values ?? []).map(String)).join(" or "));
    const said = kinds.map((kind) => (kind.startsWith('"') ? kind : article(kind))).join(", or ");
    return value === undefined ? `is missing; give ${said}.` : `must be ${said}.`;
  }
  if (keyword === "invalid_format")
    return `must be ${article(params.format === "uuid" ? "UUID" : (params.format ?? ""))}.`;
  if (keyword === "too_big") return size(params, "most", params.maximum);
  if (keyword === "too_small") return size(params, "least", params.minimum);
  return sentence(message);
}

function size({ origin, inclusive = true }: Issue["params"], end: "most" | "least", bound = 0): string {
  if (origin === "string" && end === "least") return "is empty; give a text.";
  if (origin === "string") return `is too long; give at most ${bound} characters.`;
  if (origin === "array") return `has too ${end === "most" ? "many" : "few"} items; give at ${end} ${bound}.`;
  if (inclusive) return `must be at ${end} ${bound}.`;
  return `must be ${end === "most" ? "less" : "more"} than ${bound}.`;
}

function sentence(message: string): string {
  return /[.?]$/.test(message) ? message : `${message}.`;
}

function quoted(names: readonly string[]): string[] {
  return names.map((name) => `"${name}"`);
}

function article(noun: string): string {
  const words: Record<string, string> = {
    record: "a JSON object",
    object: "a JSON object",
    array: "a list",
    string: "a text",
    int: "a whole number",
    boolean: "true or false",
  };
  return words[noun] ?? `${/^[aeio]/.test(noun) ? "an" : "a"} ${noun}`;
}

function valueAt(given: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined | null)?.[key], given);
}

/** A schema of zod, as far as it is looked into. */
interface Node {
  def?: { type: string; innerType?: Node; in?: Node; element?: Node; shape?: Record<string, Node>; options?: Node[] };
}

/** The fields that a schema knows at a path; none where it is not an object. */
function keysAt(schema: unknown, path: readonly string[]): string[] {
  let nodes = alternatives(schema as Node | undefined);
  for (const key of path) {
    nodes = nodes.flatMap(({ def }) => alternatives(def?.type === "array" ? def.element : def?.shape?.[key]));
  }
  return nodes.flatMap(({ def }) => Object.keys(def?.shape ?? {}));
}

/** A schema below what wraps it; of a union, each of its alternatives. */
function alternatives(node: Node | undefined): Node[] {
  const inner = unwrapped(node);
  return inner?.def?.options?.flatMap(alternatives) ?? (inner === undefined ? [] : [inner]);
}

/** Below optional, default, pipe and the like. */
function unwrapped(node: Node | undefined): Node | undefined {
  let inner = node;
  for (;;) {
    const next = inner?.def?.innerType ?? inner?.def?.in;
    if (next === undefined) return inner;
    inner = next;
  }
}
