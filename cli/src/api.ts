/** The REST API as the commands use it. */
import { setTimeout as sleep } from "node:timers/promises";
import { exitCodes, Stop } from "./exit.js";
import { tokenHeaders } from "./token.js";

/** A refusal of the server, as RFC 9457 has it. */
interface Problem {
  title?: string;
  detail?: string;
  reason?: string;
  errors?: { field: string; message?: string; description?: string }[];
}

export interface Proportion {
  n: number;
  value: number;
  ci95_low: number;
  ci95_high: number;
}

export interface Iteration {
  number: number;
  train_rows: number;
  mined: boolean;
  errors: number;
  candidates: number;
  accepted: number;
  cross_fit_accuracy?: Proportion;
  dev_accuracy?: Proportion;
  test_accuracy?: Proportion;
  seconds: number;
}

export interface Arm {
  name: string;
  train_rows: number;
  steps: number;
  test_accuracy?: Proportion;
}

export interface Campaign {
  run: {
    id: string;
    status: "queued" | "running" | "succeeded" | "failed" | "cancelled";
    created_at?: string;
    failure?: { code: string; message: string };
    progress?: { done: number; total: number; eta_seconds: number; message: string };
    cancel_requested?: boolean;
  };
  request?: { name: string; settings?: { iterations: number } };
  iteration: number;
  phase: string;
  usage?: { calls: number; cost_micro_usd: number };
  outcome?: { summary: string; chosen_iteration: number; baseline?: Arm; final?: Arm; other_arms: Arm[] };
}

/** A service that is started again is away for seconds: reads wait for it this long. */
const patienceMs = 60_000;

export class Api {
  constructor(readonly url: string) {}

  /** One call with a JSON answer. Throws Stop with the problem's words. A read waits while a service is away (503). */
  async json<Reply>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const until = performance.now() + patienceMs;
    for (;;) {
      const response = await this.fetch(path, {
        method,
        headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (response.ok) return (await response.json()) as Reply;
      if (response.status === 503 && method === "GET" && performance.now() < until) {
        await sleep(500);
        continue;
      }
      throw await refusal(response);
    }
  }

  /** Sends a file. The answer is given for success and 422 alike: both list what was wrong with rows. */
  async upload<Reply>(
    path: string,
    contentType: string,
    body: string | Uint8Array<ArrayBuffer>,
    key: string,
  ): Promise<Reply> {
    const headers = { "content-type": contentType, "idempotency-key": key };
    const response = await this.fetch(path, { method: "POST", headers, body });
    if (response.ok || response.status === 422) return (await response.json()) as Reply;
    throw await refusal(response);
  }

  /** Deletes what has no answer but that it is gone. */
  async delete(path: string): Promise<void> {
    const response = await this.fetch(path, { method: "DELETE" });
    if (!response.ok) throw await refusal(response);
  }

  /** The bytes of an answer. */
  async download(path: string): Promise<ReadableStream<Uint8Array>> {
    const response = await this.fetch(path, { method: "GET" });
    if (!response.ok || response.body === null) throw await refusal(response);
    return response.body;
  }

  private async fetch(path: string, options: RequestInit): Promise<Response> {
    try {
      return await fetch(`${this.url}${path}`, { ...options, headers: { ...options.headers, ...tokenHeaders() } });
    } catch (error) {
      if (error instanceof Stop) throw error;
      throw new Stop(
        `Nobody answers at ${this.url}. Start the server with "tutelage up", or name another with --url or TUTELAGE_URL.`,
        exitCodes.unavailable,
      );
    }
  }
}

/** What a person is told of an answer that is no success: what and how to mend it, a line for each wrong field. */
export async function refusal(response: Response): Promise<Stop> {
  const problem = (await response.json().catch(() => ({}))) as Problem;
  if (response.status === 401) {
    const how = "Set TUTELAGE_TOKEN, or TUTELAGE_TOKEN_FILE, to the token that the server was started with.";
    return new Stop(`The server wants its token. ${how}`, exitCodes.refused);
  }
  const lines = [problem.detail ?? problem.title ?? `The server answered ${response.status}.`];
  for (const { field, message, description } of problem.errors ?? []) {
    const text = message ?? description ?? "";
    if (!lines[0]?.includes(text)) lines.push(`  ${field}: ${text}`);
  }
  return new Stop(lines.join("\n"), response.status === 503 ? exitCodes.unavailable : exitCodes.refused);
}
