/**
 * Keeps web pages out. Without keys, whoever reaches the port may do anything,
 * so only programs of this machine may: the socket is on loopback, and a
 * browser that was led here by another site's page (its Origin), or by a name
 * that was rebound to 127.0.0.1 (its Host), is refused.
 */
import type { FastifyReply, FastifyRequest } from "fastify";
import { type Problem, sendProblem } from "./problem.js";

/** Why a request is refused; undefined when it may pass. */
export function refusal(headers: { host?: string | undefined; origin?: string | undefined }): Problem | undefined {
  const host = headers.host ?? "";
  if (!isLoopback(`http://${host}`)) {
    return refused("host_not_loopback", `The Host header is "${host}"; call this server as 127.0.0.1 or localhost.`);
  }
  const { origin } = headers;
  // Same host and port: another server on this machine is another site.
  if (origin !== undefined && (!isLoopback(origin) || new URL(origin).host !== new URL(`http://${host}`).host)) {
    return refused("origin_not_allowed", `Web pages of ${origin} may not call this server.`);
  }
  return undefined;
}

export async function guard(request: FastifyRequest, reply: FastifyReply) {
  const problem = refusal(request.headers);
  if (problem !== undefined) return sendProblem(request, reply, problem);
}

function isLoopback(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { hostname, username, pathname } = new URL(url);
  if (username !== "" || pathname !== "/") return false;
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

function refused(reason: string, detail: string): Problem {
  return { status: 403, title: "Only programs of this machine may call", detail, reason };
}
