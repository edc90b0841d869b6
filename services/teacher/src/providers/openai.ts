/** Teachers behind an OpenAI-compatible HTTP endpoint: chat completions and completions. */
import { refuseInTransaction } from "@tutelage/platform/database";
import { parseRetryAfter } from "@tutelage/platform/retryafter";
import { storable } from "@tutelage/platform/teacheroutcome";
import { Agent, errors, request } from "undici";
import { z } from "zod";
import { type OpenAiProfile, resolveSecret } from "../profile.js";
import { isRetryableStatus } from "../retry.js";
import { type Answer, type Ask, type CallMark, type Reply, type Teacher, TeacherFailure } from "../teacher.js";
import { completionTokenBound, promptTokenBound } from "../usage.js";

/** A reply of more than this is not a row. */
const maxBodyBytes = 4 * 1024 * 1024;
/** Of a failed call's body the ledger keeps this much. */
const maxFailedBodyCharacters = 16_384;
const connectTimeoutMs = 10_000;

const tokenCount = z.number().int().min(0).max(1e9);
const usageSchema = z.object({ prompt_tokens: tokenCount, completion_tokens: tokenCount });
const topLogprobs = z.array(z.object({ token: z.string(), logprob: z.number() }));
const bodySchema = z.object({
  choices: z
    .array(
      z.object({
        finish_reason: z.string().nullish(),
        text: z.string().nullish(),
        message: z.object({ content: z.string().nullish() }).nullish(),
        logprobs: z.object({ content: z.array(z.object({ top_logprobs: topLogprobs.nullish() })).nullish() }).nullish(),
      }),
    )
    .min(1),
  usage: z.unknown().optional(),
});

export class OpenAiTeacher implements Teacher {
  private readonly agent: Agent;
  private readonly url: string;

  constructor(private readonly profile: OpenAiProfile) {
    this.agent = new Agent({
      connect: { timeout: Math.min(connectTimeoutMs, profile.timeout_ms) },
      headersTimeout: profile.timeout_ms,
      bodyTimeout: profile.timeout_ms,
      connections: profile.max_concurrency,
    });
    const path = profile.api === "chat" ? "chat/completions" : "completions";
    this.url = `${profile.base_url.replace(/\/+$/, "")}/${path}`;
  }

  async identify(): Promise<string> {
    return this.profile.model;
  }

  async close(): Promise<void> {
    await this.agent.destroy();
  }

  async ask(ask: Ask, mark: CallMark, signal: AbortSignal): Promise<Answer> {
    const secret = this.profile.api_key === undefined ? undefined : await resolveSecret(this.profile.api_key);
    const { status, headers, text } = await this.post(ask, mark, secret, signal);
    // A provider that repeats the key in its reply must not bring it into the ledger.
    const raw = storable(secret === undefined ? text : text.replaceAll(secret, "[redacted]"));
    if (status !== 200) throw failureOf(status, headers, raw, this.url);
    return { reply: readBody(raw, ask), raw };
  }

  private async post(ask: Ask, mark: CallMark, secret: string | undefined, signal: AbortSignal) {
    refuseInTransaction("A call of the teacher");
    const deadline = AbortSignal.timeout(this.profile.timeout_ms);
    try {
      const response = await request(this.url, {
        method: "POST",
        dispatcher: this.agent,
        headers: {
          "content-type": "application/json",
          accept: "application/json",
          // A provider that heeds it answers a call that was cut from what it has, and bills it once.
          "idempotency-key": mark.digest,
          ...(secret === undefined ? {} : { authorization: `Bearer ${secret}` }),
        },
        body: JSON.stringify(this.body(ask, mark.seed)),
        signal: AbortSignal.any([signal, deadline]),
      });
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of response.body) {
        bytes += (chunk as Buffer).length;
        if (bytes > maxBodyBytes) {
          response.body.destroy();
          throw new TeacherFailure("teacher_reply_too_big", `The teacher's reply exceeds ${maxBodyBytes} bytes.`, {
            retryable: true,
            maybeBilled: true,
          });
        }
        chunks.push(chunk as Buffer);
      }
      return { status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString("utf8") };
    } catch (error) {
      if (error instanceof TeacherFailure) throw error;
      if (signal.aborted) {
        throw new TeacherFailure("call_stopped", "The call was stopped before its reply came.", { maybeBilled: true });
      }
      throw networkFailure(error, deadline.aborted, this.profile.timeout_ms);
    }
  }

  private body(ask: Ask, seed: number): object {
    if (ask.kind === "score") throw new Error("An HTTP endpoint is not asked for scores.");
    const { temperature, topP, maxTokens } = ask.sampling;
    return {
      model: this.profile.model,
      temperature,
      top_p: topP,
      [this.profile.max_tokens_field]: maxTokens,
      ...(this.profile.seed_field === undefined ? {} : { [this.profile.seed_field]: seed }),
      ...(ask.kind === "chat"
        ? {
            messages: ask.messages,
            ...(ask.choices.length === 0 ? {} : { logprobs: true, top_logprobs: 20 }),
          }
        : { prompt: ask.prompt, stop: ask.stop }),
    };
  }
}

function readBody(raw: string, ask: Ask): Reply {
  const bad = (why: string) =>
    new TeacherFailure("teacher_bad_reply", `The teacher's reply is ${why}: ${excerpt(raw)}`, {
      retryable: true,
      maybeBilled: true,
      raw: raw.slice(0, maxFailedBodyCharacters),
    });
  let json: unknown;
  try {
    json = JSON.parse(raw);
  } catch {
    throw bad(raw.trim() === "" ? "empty" : "not JSON");
  }
  const parsed = bodySchema.safeParse(json);
  if (!parsed.success) throw bad("not a completion");
  const [choice] = parsed.data.choices;
  const text = storable(choice?.message?.content ?? choice?.text ?? "");
  const usage = usageSchema.safeParse(parsed.data.usage);
  // Without believable usage the ledger takes the most that the call can have used: no text is made of no tokens.
  const believable = usage.success && usage.data.prompt_tokens > 0 && (usage.data.completion_tokens > 0 || text === "");
  const top = choice?.logprobs?.content?.[0]?.top_logprobs ?? [];
  const scores = ask.kind === "chat" ? choiceScores(ask.choices, top) : undefined;
  return {
    text,
    finish: choice?.finish_reason === "length" ? "length" : "stop",
    promptTokens: believable ? usage.data.prompt_tokens : promptTokenBound(ask),
    // Not by the text's length: a model that thinks first is billed for what is not shown.
    completionTokens: believable ? usage.data.completion_tokens : completionTokenBound(ask),
    ...(scores === undefined ? {} : { choiceScores: scores }),
  };
}

/**
 * Log-probability of each choice as the first token; one that is not among the
 * top tokens gets the least of them. Undefined when none is: the reply begins
 * otherwise, and its text says more than scores that are all alike.
 */
function choiceScores(choices: string[], top: { token: string; logprob: number }[]): number[] | undefined {
  if (!top.some(({ token }) => choices.includes(token.trim()))) return undefined;
  const floor = Math.min(...top.map(({ logprob }) => logprob)) - 1;
  return choices.map((choice) => {
    const mass = top
      .filter(({ token }) => token.trim() === choice)
      .reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    return mass === 0 ? floor : Math.log(mass);
  });
}

function failureOf(
  status: number,
  headers: Record<string, string | string[] | undefined>,
  raw: string,
  url: string,
): TeacherFailure {
  const said = `HTTP ${status}: ${excerpt(raw)}`;
  const kept = { raw: raw.slice(0, maxFailedBodyCharacters) };
  if (status === 401 || status === 403) {
    return new TeacherFailure("teacher_unauthorized", `The teacher refuses our key; check api_key. ${said}`, {
      fatal: true,
      ...kept,
    });
  }
  if (status === 404) {
    return new TeacherFailure(
      "teacher_model_not_found",
      `The teacher does not know the model or the address; check model and base_url. ${said}`,
      { fatal: true, ...kept },
    );
  }
  if (status === 402 || (status === 429 && raw.includes("insufficient_quota"))) {
    return new TeacherFailure("teacher_quota_exhausted", `The teacher's account has no credit left. ${said}`, {
      fatal: true,
      ...kept,
    });
  }
  if (status >= 300 && status < 400) {
    return new TeacherFailure(
      "teacher_redirected",
      `${url} redirects elsewhere, which is not followed; set base_url to where it points.`,
      { fatal: true, ...kept },
    );
  }
  if (isRetryableStatus(status)) {
    const retryAfterMs = parseRetryAfter(headers["retry-after"], Date.now());
    return new TeacherFailure(
      status === 429 ? "teacher_rate_limited" : status === 408 ? "teacher_timeout" : "teacher_unavailable",
      `The teacher cannot answer now. ${said}`,
      {
        retryable: true,
        maybeBilled: mayHaveWorked(status),
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
        ...kept,
      },
    );
  }
  if (status < 300) {
    return new TeacherFailure("teacher_bad_reply", `The teacher's reply is not a completion. ${said}`, {
      retryable: true,
      maybeBilled: true,
      ...kept,
    });
  }
  return new TeacherFailure("teacher_refused_request", `The teacher refuses the request. ${said}`, kept);
}

/**
 * Whether the model may have worked before this status came: it failed midway,
 * or whoever stands between gave up waiting. 503 and 529 (overloaded) turn the
 * request away, as 4xx do.
 */
function mayHaveWorked(status: number): boolean {
  return status === 408 || (status >= 500 && status !== 503 && status !== 529);
}

/** Codes of errors after which the request cannot have reached the provider. */
const neverSent = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function networkFailure(error: unknown, outOfTime: boolean, timeoutMs: number): TeacherFailure {
  const code = (error as { code?: string }).code ?? "unknown";
  if (
    outOfTime ||
    error instanceof errors.HeadersTimeoutError ||
    error instanceof errors.BodyTimeoutError ||
    error instanceof errors.ConnectTimeoutError
  ) {
    return new TeacherFailure("teacher_timeout", `The teacher did not answer within ${timeoutMs} ms.`, {
      retryable: true,
      maybeBilled: !neverSent.has(code),
    });
  }
  return new TeacherFailure("teacher_unavailable", `The connection to the teacher failed (${code}).`, {
    retryable: true,
    maybeBilled: !neverSent.has(code),
  });
}

function excerpt(raw: string): string {
  const text = raw.replace(/\s+/g, " ").trim();
  return text === "" ? "(nothing)" : text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
