/**
 * Whether a service is healthy, as a program for a container's health check:
 * `node healthcheck.js 127.0.0.1:50051` asks gRPC, `http://…/health` HTTP.
 * Ends with 0 or 1.
 */
import { healthProbe } from "./health.js";

const timeoutMs = 4_000;
const [target = ""] = process.argv.slice(2);
const problem = target.startsWith("http") ? await overHttp(target) : await overGrpc(target);
if (problem !== undefined) {
  process.stderr.write(`${target}: ${problem}\n`);
  process.exit(1);
}

async function overHttp(url: string): Promise<string | undefined> {
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) }).catch(() => undefined);
  if (response === undefined) return "no answer";
  return response.ok ? undefined : `status ${response.status}`;
}

async function overGrpc(address: string): Promise<string | undefined> {
  const probe = healthProbe(address);
  const health = await probe.check(timeoutMs).finally(() => probe.close());
  return health === "serving" ? undefined : health;
}
