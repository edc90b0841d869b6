/** Every error as an RFC 9457 problem document: the one place where errors meet HTTP. */
import { asTutelageError, type ErrorCode, type FieldViolation } from "@tutelage/platform/errors";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { meantIssues, type UnionIssue } from "./unions.js";

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

/** Errors of Fastify itself, by its code. */
const framework: Record<string, [reason: string, title: string]> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ["body_too_large", "The request body is too large"],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ["unsupported_media_type", "The content type is not supported"],
  FST_ERR_CTP_INVALID_JSON_BODY: ["malformed_json", "The request body is not JSON"],
  FST_ERR_CTP_EMPTY_JSON_BODY: ["empty_body", "The request body is empty"],
};

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
  const problem = toProblem(thrown);
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

export function toProblem(thrown: unknown): Problem {
  if (hasZodFastifySchemaValidationErrors(thrown)) return invalidRequest(thrown.validation as unknown as Issue[]);
  const { code = "", statusCode = 0, message, name } = thrown as FastifyError;
  // A call that was aborted because the client had gone, who will not read this, or because the server stops.
  if (name === "AbortError") {
    return { status: 503, title: "The server is stopping", detail: "Try again in a moment.", reason: "stopping" };
  }
  if (statusCode >= 400 && statusCode < 500) {
    const [reason, title] = framework[code] ?? ["bad_request", "The request is not valid"];
    const hint =
      code === "FST_ERR_CTP_INVALID_MEDIA_TYPE" ? " Send application/json unless the route says otherwise." : "";
    return { status: statusCode, title, detail: message + hint, reason };
  }
  const error = asTutelageError(thrown);
  const [status, title] = statuses[error.code];
  return { status, title, detail: error.message, reason: error.reason, errors: error.fields };
}

/** An issue of zod as the type provider hands it on. */
interface Issue {
  keyword: string;
  instancePath: string;
  message: string;
  params: {
    expected?: string;
    values?: unknown[];
    keys?: string[];
    errors?: UnionIssue["params"]["errors"];
  };
}

function invalidRequest(issues: Issue[]): Problem {
  const errors = issues.flatMap(meantIssues).flatMap(explain);
  return {
    status: 400,
    title: "The request is not valid",
    detail: errors.map(({ field, description }) => (field === "" ? description : `${field}: ${description}`)).join(" "),
    reason: "invalid_request",
    errors,
  };
}

/** Names the field and the fix. */
function explain({ keyword, instancePath, message, params }: Issue): FieldViolation[] {
  const field = instancePath.slice(1).replaceAll("/", ".");
  if (keyword === "unrecognized_keys") {
    return (params.keys ?? []).map((key) => ({
      field: field === "" ? key : `${field}.${key}`,
      description: "is not a known field; remove it or correct its name.",
    }));
  }
  if (keyword === "invalid_union") {
    const expected = (params.errors ?? []).flatMap((one) => one.flatMap((issue) => issue.expected ?? []));
    if (expected.length > 0) return [{ field, description: `must be ${expected.map(article).join(" or ")}.` }];
  }
  if (keyword === "invalid_type" && message.endsWith("received undefined")) {
    return [{ field, description: `is missing; give ${article(params.expected ?? "value")}.` }];
  }
  if (keyword === "invalid_type") {
    return [{ field, description: `must be ${article(params.expected ?? "value")}.` }];
  }
  if (keyword === "invalid_value") {
    const values = (params.values ?? []).filter((value) => value !== "unspecified").map((value) => `"${value}"`);
    return [{ field, description: `must be one of ${values.join(", ")}.` }];
  }
  return [{ field, description: message.endsWith(".") ? message : `${message}.` }];
}

function article(noun: string): string {
  if (noun === "record" || noun === "object") return "a JSON object";
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}
