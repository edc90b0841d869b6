/** Every error as an RFC 9457 problem document: the one place where errors meet HTTP. */
import { asTutelageError, type ErrorCode, type FieldViolation } from "@tutelage/platform/errors";
import type { FastifyError, FastifyReply, FastifyRequest, FastifySchema } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { type Issue, violationsOf } from "./violations.js";

export interface Problem {
  status: number;
  title: string;
  detail: string;
  reason: string;
  errors?: readonly FieldViolation[];
  /** Further members of the document. */
  extra?: Record<string, unknown>;
}

const statuses: Record<ErrorCode, [status: number, title: string]> = {
  invalid_argument: [400, "The request is not valid"],
  not_found: [404, "There is no such thing"],
  already_exists: [409, "It is already there"],
  failed_precondition: [409, "Not possible in this state"],
  unauthenticated: [401, "The token is missing or wrong"],
  resource_exhausted: [429, "Too much at once"],
  aborted: [409, "It was interrupted"],
  cancelled: [499, "The request was cancelled"],
  deadline_exceeded: [504, "It took too long"],
  unavailable: [503, "A service is not available"],
  data_loss: [500, "Stored data is damaged"],
  unimplemented: [501, "Not implemented"],
  internal: [500, "Something went wrong"],
};

/** Reasons that HTTP has a status of its own for. */
const reasonStatuses: Record<string, [status: number, title: string]> = {
  disk_full: [507, "The disk is full"],
  disk_read_only: [507, "The disk cannot be written"],
};

/** Errors of Fastify itself, by its code: reason, title, and where it is known the field and what to say of it. */
const framework: Record<
  string,
  [reason: string, title: string, field?: string, fix?: (request: FastifyRequest, message: string) => string]
> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ["body_too_large", "The request body is too large", "body", tooLarge],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    "unsupported_media_type",
    "The content type is not supported",
    "content-type",
    (request) => `is ${shownType(request)}; send ${acceptedTypes(request).join(" or ")}.`,
  ],
  FST_ERR_BAD_URL: ["malformed_url", "The URL is not valid", "url", () => 'has a "%" that encodes nothing; write %25.'],
};

/** A route that reads its body itself says more than Fastify does. */
function tooLarge({ routeOptions }: FastifyRequest, message: string): string {
  return message === "Request body is too large"
    ? `is larger than ${routeOptions.bodyLimit} bytes; send less.`
    : message;
}

function shownType({ headers }: FastifyRequest): string {
  return headers["content-type"] === undefined ? "missing" : `"${headers["content-type"]}"`;
}

/** What a route takes; its schema says so where that is not JSON. */
function acceptedTypes({ routeOptions }: FastifyRequest): readonly string[] {
  return (routeOptions?.schema as { consumes?: string[] } | undefined)?.consumes ?? ["application/json"];
}

/** Refuses a body of a type that the route's schema does not name: a parser for it may be there for other routes. */
export async function checkContentType(request: FastifyRequest) {
  const type = request.headers["content-type"]?.split(";")[0]?.trim().toLowerCase();
  // Without a body its type cannot matter; some clients name one all the same.
  const bodyless = request.method === "GET" || request.method === "HEAD";
  if (type === undefined || bodyless || request.is404 || acceptedTypes(request).includes(type)) return;
  throw Object.assign(new Error("unsupported"), { statusCode: 415, code: "FST_ERR_CTP_INVALID_MEDIA_TYPE" });
}

export function sendProblem(request: FastifyRequest, reply: FastifyReply, problem: Problem) {
  const document = {
    type: `urn:tutelage:problem:${problem.reason}`,
    title: problem.title,
    status: problem.status,
    detail: problem.detail,
    instance: request.url.split("?")[0],
    reason: problem.reason,
    errors: (problem.errors ?? []).map(({ field, description }) => ({ field, message: description })),
    ...problem.extra,
    request_id: request.id,
  };
  return reply.code(problem.status).type("application/problem+json").send(JSON.stringify(document));
}

/** What Fastify calls with whatever a route or a hook threw. */
export function handleError(thrown: unknown, request: FastifyRequest, reply: FastifyReply) {
  if (reply.raw.headersSent) {
    // A stream broke in the middle: the client sees an unfinished answer, never a shortened one that looks whole.
    request.log.error({ err: thrown }, "answer broke off");
    reply.raw.destroy();
    return reply;
  }
  const problem = toProblem(thrown, request);
  if (problem.status >= 500 && problem.reason !== "stopping") request.log.error({ err: thrown }, "request failed");
  return sendProblem(request, reply, problem);
}

export function handleNotFound(request: FastifyRequest, reply: FastifyReply) {
  return sendProblem(request, reply, {
    status: 404,
    title: "There is no such route",
    detail: `Nothing answers ${request.method} ${request.url.split("?")[0]}; /docs lists what does.`,
    reason: "route_not_found",
  });
}

export function toProblem(thrown: unknown, request: FastifyRequest): Problem {
  if (hasZodFastifySchemaValidationErrors(thrown)) return invalidRequest(thrown as unknown as FastifyError, request);
  const { code = "", statusCode = 0, message, name } = thrown as FastifyError;
  // A call that was aborted because the client had gone, who will not read this, or because the server stops.
  if (name === "AbortError") {
    return { status: 503, title: "The server is stopping", detail: "Try again in a moment.", reason: "stopping" };
  }
  if (statusCode >= 400 && statusCode < 500) {
    const [reason, title, field, fix] = framework[code] ?? ["bad_request", "The request is not valid"];
    if (field === undefined) return { status: statusCode, title, detail: message, reason };
    const description = fix === undefined ? message : fix(request, message);
    return { status: statusCode, title, detail: `${field}: ${description}`, reason, errors: [{ field, description }] };
  }
  const error = asTutelageError(thrown);
  const [status, title] = reasonStatuses[error.reason] ?? statuses[error.code];
  return { status, title, detail: error.message, reason: error.reason, errors: error.fields };
}

/** The part of a request that did not fit its schema. */
function invalidRequest(
  { validation, validationContext: part = "body" }: FastifyError,
  request: FastifyRequest,
): Problem {
  const given = { body: request.body, querystring: request.query, params: request.params, headers: request.headers };
  const errors = violationsOf(validation as unknown as Issue[], {
    part,
    schema: request.routeOptions.schema?.[part as keyof FastifySchema],
    given: given[part as keyof typeof given],
  });
  return {
    status: 400,
    title: "The request is not valid",
    detail: errors.map(({ field, description }) => `${field}: ${description}`).join(" "),
    reason: "invalid_request",
    errors,
  };
}
