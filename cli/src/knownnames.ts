/** Names in a campaign.yaml that its schema does not know, and which were meant. Pure. */
import { nearest } from "@tutelage/platform/suggestion";

/** As much of JSON Schema as says what may stand where. */
export interface SchemaNode {
  $ref?: string;
  type?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  properties?: Record<string, SchemaNode>;
  required?: string[];
  additionalProperties?: boolean | SchemaNode;
  items?: SchemaNode;
  anyOf?: SchemaNode[];
  $defs?: Record<string, SchemaNode>;
  minLength?: number;
  maxLength?: number;
  maxItems?: number;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
}

export interface UnknownName {
  /** Where it stands, itself last. */
  path: (string | number)[];
  meant: string | undefined;
}

/** @param schema whose $refs are to its own $defs */
export function unknownNames(value: unknown, schema: SchemaNode): UnknownName[] {
  const found: UnknownName[] = [];
  const visit = (one: unknown, node: SchemaNode | undefined, path: UnknownName["path"]): void => {
    const meant = formOf(one, node, schema.$defs ?? {});
    if (meant === undefined) return;
    if (Array.isArray(one)) {
      for (const [index, item] of one.entries()) visit(item, meant.items, [...path, index]);
      return;
    }
    const { properties = {}, additionalProperties } = meant;
    for (const [name, inner] of Object.entries(one as object)) {
      if (Object.hasOwn(properties, name)) visit(inner, properties[name], [...path, name]);
      else if (additionalProperties === false) {
        found.push({ path: [...path, name], meant: nearest(name, Object.keys(properties)) });
      }
    }
  };
  visit(value, schema, []);
  return found;
}

/** The form of a node that an object or a list has; undefined for plain values, and where there is none. */
function formOf(
  value: unknown,
  node: SchemaNode | undefined,
  defs: Record<string, SchemaNode>,
): SchemaNode | undefined {
  if (node === undefined || typeof value !== "object" || value === null) return undefined;
  if (node.$ref !== undefined) return formOf(value, defs[node.$ref.replace("#/$defs/", "")], defs);
  const form = Array.isArray(value) ? "array" : "object";
  if (node.anyOf !== undefined) {
    return node.anyOf.map((one) => formOf(value, one, defs)).find((one) => one !== undefined);
  }
  return node.type === form ? node : undefined;
}
