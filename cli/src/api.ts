/** The REST API as the commands use it. */
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, fetch, type RequestInit, type Response } from "undici";
import { connectionStop } from "./connection.js";
import { exitCodes, type Problem, Stop } from "./exit.js";
import { tokenHeaders } from "./token.js";

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
  /** Candidates that were refused for what they have in common with dev and test rows; an older server tells none. */
  overlaps_by_kind?: Record<string, number>;
  seconds: number;
}

export interface Arm {
  name: string;
  train_rows: number;
  steps: number;
  test_accuracy?: Proportion;
  left_out: string;
}

export interface Campaign {
  run: {
    id: string;
    status:
      | "queued"
      | "running"
      | "pausing"
      | "paused"
      | "budget_exhausted"
      | "cancelling"
      | "succeeded"
      | "failed"
      | "cancelled";
    cancel_requested?: boolean;
    created_at?: string;
    failure?: { code: string; message: string };
    rest?: { code: string; message: string; until?: string };
    progress?: { done: number; total: number; eta_seconds: number; message: string };
  };
  request?: { name: string; settings?: { iterations: number } };
  iteration: number;
  phase: string;
  usage?: { calls: number; cost_micro_usd: number };
  teacher_wait?: { profile: string; message: string; since?: string; until?: string };
  outcome?: { summary: string; chosen_iteration: number; baseline?: Arm; final?: Arm; other_arms: Arm[] };
}

/** A service that is started again is away for seconds: reads wait for it this long. */
const patienceMs = 60_000;
/** Nothing that is only read takes this long; giving it up costs nothing. */
const readTimeoutMs = 300_000;

export class Api {
  private readonly reading: Agent;
  /**
   * For whatever changes something or moves a file. The server has a deadline
   * for each of these (900 s for a deletion, 1,800 s for an import) and answers
   * when it is over; giving up before would leave nobody knowing what came of it.
   */
  private readonly waiting = new Agent({ headersTimeout: 0, bodyTimeout: 0 });

  constructor(
    readonly url: string,
    private readonly timeoutMs = readTimeoutMs,
  ) {
    this.reading = new Agent({ headersTimeout: timeoutMs, bodyTimeout: timeoutMs });
  }

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
        dispatcher: method === "GET" ? this.reading : this.waiting,
        headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (response.ok) return await this.parsed<Reply>(response);
      if (response.status === 503 && method === "GET" && performance.now() < until) {
        await response.body?.cancel();
        await sleep(500);
        continue;
      }
      throw await refusal(response);
    }
  }

  /**
   * Sends a file, or one that is read as it is sent. The answer is given for
   * success and 422 alike: both list what was wrong with rows.
   * @param key a second upload with the same key answers as the first did; empty for none
   */
  async upload<Reply>(
    path: string,
    contentType: string,
    body: string | Uint8Array<ArrayBuffer> | Readable,
    key: string,
  ): Promise<Reply> {
    const headers = { "content-type": contentType, ...(key === "" ? {} : { "idempotency-key": key }) };
    const sent: RequestInit = body instanceof Readable ? { body, duplex: "half" } : { body };
    const response = await this.fetch(path, { method: "POST", dispatcher: this.waiting, headers, ...sent });
    if (response.ok || response.status === 422) return await this.parsed<Reply>(response);
    throw await refusal(response);
  }

  /** Deletes what has no answer but that it is gone. */
  async delete(path: string): Promise<void> {
    const response = await this.fetch(path, { method: "DELETE", dispatcher: this.waiting });
    if (!response.ok) throw await refusal(response);
  }

  /** The bytes of an answer. They end with a Stop when the connection breaks before they are whole. */
  async download(path: string): Promise<Readable> {
    const response = await this.fetch(path, { method: "GET", dispatcher: this.waiting });
    if (!response.ok || response.body === null) throw await refusal(response);
    return Readable.from(this.whole(response.body), { objectMode: false });
  }

  private async *whole(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* body;
    } catch (error) {
      throw connectionStop(error, this.url, this.timeoutMs);
    }
  }

  private async parsed<Reply>(response: Response): Promise<Reply> {
    const text = await response.text().catch((error: unknown) => {
      throw connectionStop(error, this.url, this.timeoutMs);
    });
    try {
      return JSON.parse(text) as Reply;
    } catch {
      throw new Stop(
        `${this.url} answers, but not as Tutelage does. Name the server with --url or TUTELAGE_URL.`,
        exitCodes.unavailable,
        { reason: "not_tutelage" },
      );
    }
  }

  private async fetch(path: string, options: RequestInit): Promise<Response> {
    const headers = { ...(options.headers as Record<string, string> | undefined), ...tokenHeaders() };
    try {
      return await fetch(`${this.url}${path}`, { ...options, headers });
    } catch (error) {
      throw connectionStop(error, this.url, this.timeoutMs);
    }
  }
}

/** What a person is told of an answer that is no success: what and how to mend it, a line for each wrong field. */
export async function refusal(response: Pick<Response, "status" | "json">): Promise<Stop> {
  const parsed = await response.json().catch(() => undefined);
  const isDocument = parsed !== null && typeof parsed === "object" && !Array.isArray(parsed);
  const problem: Problem = isDocument ? (parsed as Problem) : { status: response.status };
  if (response.status === 401) {
    const how = "Set TUTELAGE_TOKEN, or TUTELAGE_TOKEN_FILE, to the token that the server was started with.";
    return new Stop(`The server wants its token. ${how}`, exitCodes.refused, problem);
  }
  const lines = [problem.detail ?? problem.title ?? `The server answered ${response.status}.`];
  for (const { field, message, description } of problem.errors ?? []) {
    const text = message ?? description ?? "";
    if (!lines[0]?.includes(text)) lines.push(`  ${field}: ${text}`);
  }
  return new Stop(lines.join("\n"), response.status === 503 ? exitCodes.unavailable : exitCodes.refused, problem);
}
