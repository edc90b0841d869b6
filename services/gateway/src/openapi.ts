/** The OpenAPI document: what it says of the whole API, and what is derived from each route. */
import type { FastifyDynamicSwaggerOptions } from "@fastify/swagger";
import { jsonSchemaTransform, jsonSchemaTransformObject } from "fastify-type-provider-zod";

export const openApi = ({ needsToken }: { needsToken: boolean }): FastifyDynamicSwaggerOptions => ({
  openapi: {
    openapi: "3.1.0",
    info: {
      title: "Tutelage",
      version: "0.1.0",
      description: "LLM2LLM campaigns: a few dozen labelled examples in, a better small language model out.",
      // An identifier is 3.1's way to name a licence; the plugin's types are 3.0's.
      license: { name: "Apache License 2.0", identifier: "Apache-2.0" } as { name: string },
    },
    servers: [{ url: "/", description: "The server that gave this document" }],
    components: {
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          description: "The shared token, where the server was started with TUTELAGE_TOKEN or TUTELAGE_TOKEN_FILE",
        },
      },
    },
    // Without a token there is nothing to send.
    security: needsToken ? [{ token: [] }] : [{ token: [] }, {}],
  },
  transform: (route) => {
    const { schema, url } = jsonSchemaTransform(route as Parameters<typeof jsonSchemaTransform>[0]);
    const method = [route.route.method].flat()[0] ?? "get";
    return { schema: { operationId: operationId(method, route.url), ...schema }, url };
  },
  transformObject: (document) => withoutUnused(jsonSchemaTransformObject(document) as Document),
});

/** GET /v1/datasets/:dataset/versions is getDatasetVersions: a name for generated clients. Pure. */
export function operationId(method: string, url: string): string {
  const segments = url.split("/").filter((segment) => segment !== "" && segment !== "v1");
  // "datasets/:dataset" is one dataset.
  const words = segments.filter((_, index) => !segments[index + 1]?.startsWith(":"));
  const name = words.flatMap((segment) => segment.split(/[^A-Za-z0-9]+/)).map((word) => capitalized(word));
  return method.toLowerCase() + name.join("");
}

function capitalized(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

type Document = ReturnType<typeof jsonSchemaTransformObject> & {
  components?: { schemas?: Record<string, unknown> };
};

/** Every schema is made for requests and for answers; those that only the other side uses are left out. Pure. */
function withoutUnused(document: Document): Document {
  const schemas = document.components?.schemas ?? {};
  const { components: _, ...rest } = document;
  const used = new Set<string>();
  const visit = (value: unknown) => {
    for (const [, name = ""] of JSON.stringify(value ?? null).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      if (used.has(name)) continue;
      used.add(name);
      visit(schemas[name]);
    }
  };
  visit(rest);
  const kept = Object.fromEntries(Object.entries(schemas).filter(([name]) => used.has(name)));
  return { ...document, components: { ...document.components, schemas: kept } } as Document;
}
