/** Building blocks of the schemas: what several resources have in common. */

import type { Readable } from "node:stream";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { z } from "zod";

/** The one project until there are keys. */
export const projectId = "default";

/** An enum of the contracts as the lower-case names of JSON: RunStatus.QUEUED is "queued". */
export function enumName<Value extends string>(messages: Readonly<Record<string, Value>>) {
  const names = Object.keys(messages)
    .filter((name) => name !== "UNSPECIFIED")
    .map((name) => name.toLowerCase());
  // "unspecified" is left undocumented: a message may hold it, a client has no use for it.
  const schema = z.codec(z.enum([...names, "unspecified"]), z.enum(messages), {
    decode: (name) => messages[name.toUpperCase()] as Value,
    encode: (value) =>
      Object.keys(messages)
        .find((name) => messages[name] === value)
        ?.toLowerCase() ?? "unspecified",
  });
  // What is documented is the JSON side, in requests and in responses.
  return schema.meta({ type: "string", enum: names });
}

/** Query parameters are text; a whole number in them. */
export const wholeNumber = (low: number, high: number) =>
  z.coerce
    .number({ error: "must be a whole number" })
    .int("must be a whole number")
    .min(low, `must be from ${low} to ${high}`)
    .max(high, `must be from ${low} to ${high}`);

/** "true" or "false" in a query. */
export const queryFlag = z
  .enum(["true", "false"])
  .default("false")
  .transform((text) => text === "true");

export const pageQuery = {
  cursor: z.string().default("").describe("next_cursor of the page before"),
  limit: wholeNumber(1, 1000).default(100).describe("Most items to return, 1 to 1000"),
};

export const nextCursor = z.string().describe("Empty when there are no more");

export const idempotencyHeaders = z.object({
  "idempotency-key": z
    .string()
    .max(200)
    .default("")
    .describe("A second request with the same key returns what the first one made; 409 when its content differs"),
});

/** A share of rows with its 95 % Wilson score interval. */
export const proportion = z.object({
  successes: z.number().int(),
  n: z.number().int(),
  value: z.number().describe("successes / n, 0 to 1"),
  ci95_low: z.number(),
  ci95_high: z.number(),
});

/** What every long work says about itself. */
export const runSchema = z.object({
  id: z.string(),
  status: enumName(RunStatus),
  progress: z
    .object({
      done: z.number().int(),
      total: z.number().int().describe("0 while unknown"),
      unit: z.string(),
      eta_seconds: z.number().describe("0 while unknown"),
      message: z.string(),
    })
    .optional(),
  failure: z.object({ code: z.string(), message: z.string() }).optional().describe("Why it failed"),
  cancel_requested: z.boolean(),
  rest: z
    .object({
      code: z.string(),
      message: z.string(),
      until: z.date().optional().describe("When it goes on by itself; left out when it waits for somebody"),
    })
    .optional()
    .describe("Why it rests, while it is paused or its budget is exhausted"),
  created_at: z.date().optional(),
  started_at: z.date().optional(),
  finished_at: z.date().optional(),
});

export const problemSchema = z
  .object({
    type: z.string().describe("URN of the kind of problem, ends in the reason"),
    title: z.string(),
    status: z.number().int(),
    detail: z.string().describe("What happened and what to do about it"),
    instance: z.string().describe("The path that was asked for"),
    reason: z.string().describe("Stable, machine-readable"),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).describe("One entry a wrong field"),
    request_id: z.string(),
  })
  .meta({ id: "Problem" });

/** A streamed answer of a content type. */
export function streamed(contentType: string, description: string) {
  const schema = z.custom<Readable>().meta({ type: "string", format: "binary" });
  return { description, content: { [contentType]: { schema } } };
}

/** Documents that every error of a route is a problem document. */
export const problems = {
  "4xx": {
    description: "A problem that the client can mend (RFC 9457)",
    content: { "application/problem+json": { schema: problemSchema } },
  },
  "5xx": {
    description: "A problem on the server's side (RFC 9457)",
    content: { "application/problem+json": { schema: problemSchema } },
  },
};
