/**
 * Keeps others out. Without a token whoever reaches the port may do anything,
 * so only programs of this machine may: the socket is on loopback, and a
 * browser that was led here by another site's page (its Origin), or by a name
 * that was rebound to 127.0.0.1 (its Host), is refused. With one, whoever
 * shows it may call by any name; pages of other sites still may not.
 */
import { isLoopback } from "@tutelage/platform/loopback";
import { authorizes, authorizesBrowser } from "@tutelage/platform/token";
import type { FastifyReply, FastifyRequest } from "fastify";
import { type Problem, sendProblem } from "./problem.js";

/** Why a request is refused; undefined when it may pass. */
export function refusal(
  headers: { host?: string | undefined; origin?: string | undefined },
  { anyHost = false } = {},
): Problem | undefined {
  const host = headers.host ?? "";
  if (!anyHost && !isLocal(`http://${host}`)) {
    return refused("host_not_loopback", `The Host header is "${host}"; call this server as 127.0.0.1 or localhost.`);
  }
  const { origin } = headers;
  // Same host and port: another server on this machine is another site.
  if (origin !== undefined && ((!anyHost && !isLocal(origin)) || hostOf(origin) !== hostOf(`http://${host}`))) {
    return refused("origin_not_allowed", `Web pages of ${origin} may not call this server.`);
  }
  return undefined;
}

/** The check of every request; `token` undefined means that there is none. */
export function guard(token: string | undefined) {
  return async (request: FastifyRequest, reply: FastifyReply) => {
    const problem = refusal(request.headers, { anyHost: token !== undefined });
    if (problem !== undefined) return sendProblem(request, reply, problem);
    // Whoever only watches whether we live needs no token, and learns nothing else.
    if (token === undefined || ["/health", "/ready"].includes(request.url.split("?")[0] ?? "")) return;
    const { authorization, accept = "" } = request.headers;
    if (authorizes(authorization, token) || authorizesBrowser(authorization, token)) return;
    // A browser asks its person; programs are not told of a way that they do not need.
    const asksPerson = accept.includes("text/html");
    reply.header("www-authenticate", asksPerson ? 'Basic realm="Tutelage", charset="UTF-8"' : "Bearer");
    return sendProblem(request, reply, {
      status: 401,
      title: "The token is missing or wrong",
      detail: asksPerson
        ? "Give the token that this server was started with as the password, under any name."
        : "Send the header Authorization: Bearer TOKEN with the token that this server was started with.",
      reason: "unauthenticated",
    });
  };
}

function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).host : undefined;
}

function isLocal(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { hostname, username, pathname } = new URL(url);
  if (username !== "" || pathname !== "/") return false;
  return isLoopback(hostname);
}

function refused(reason: string, detail: string): Problem {
  return { status: 403, title: "Only programs of this machine may call", detail, reason };
}
