/**
 * A teacher endpoint for tests: speaks OpenAI's HTTP protocol, answers what the
 * teacher service asks in the way a good model would, and misbehaves on demand.
 * With a profile that sends a seed (`seed_field: seed`) each reply depends on
 * the request alone; teacher-weather.ts gives faults that depend on the request
 * and on how often it was sent.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** One request as the server saw it. */
export interface TeacherCall {
  /** Number of the request, from 1, over all. */
  number: number;
  /** How often this very prompt was asked before, plus one. */
  time: number;
  /** What makes it the same call when it comes again: its Idempotency-Key, or prompt and seed. */
  key: string;
  /** How often this call came before, plus one. */
  try: number;
  /** What the caller sent as seed of sampling. */
  seed: number | undefined;
  /** "answered" once a good reply went out whole; "refused" by a bad one; "cut" by whichever side before its end. */
  ended: "open" | "answered" | "refused" | "cut";
  /** When it ended, in ms since 1970. */
  endedAt?: number;
  /** What the model used, where it was asked: a provider bills that, delivered or not. */
  usage?: { prompt_tokens: number; completion_tokens: number };
  api: "chat" | "completions";
  /** The whole prompt: messages one after another, or the completion prompt. */
  prompt: string;
  body: Record<string, unknown>;
  authorization: string | undefined;
  /** "write" wants a row, "label" a label; told from the prompt. */
  wants: "write" | "label";
  /** The row that is to be varied or labelled. */
  input: string;
  output: string;
  /** The same as it stands in a chat prompt that wants a row. */
  row?: AskedRow;
}

/** A row that is to be varied: a text or a conversation; the output of an extraction is an object. */
export interface AskedRow {
  input?: string;
  messages?: { role: string; content: string }[];
  output?: string | object;
}

/** What the server does with a request. */
export type TeacherBehaviour =
  | {
      kind: "reply";
      text: string;
      finish?: "stop" | "length";
      usage?: unknown;
      delayMs?: number;
      topLogprobs?: { token: string; logprob: number }[];
    }
  /** The answer of a good model, after a while. */
  | { kind: "good"; delayMs: number }
  | { kind: "status"; status: number; body?: string; headers?: Record<string, string>; delayMs?: number }
  /** A page with status 200, as a captive portal or a proxy sends it. */
  | { kind: "html" }
  | { kind: "half-json" }
  | { kind: "empty-body" }
  /** Cuts the connection before a reply. */
  | { kind: "reset" }
  /** Sends half of the body, then cuts. */
  | { kind: "reset-midway" }
  /** Never answers. */
  | { kind: "hang" }
  /** A body of this many bytes. */
  | { kind: "huge"; bytes: number };

export interface TeacherServerOptions {
  /** The right label of a text, of those that the prompt names; without it the first of them. */
  labelOf?: ((text: string, labels: readonly string[]) => string) | undefined;
  /** What to do with a request; undefined answers it well. */
  behave?: ((call: TeacherCall) => TeacherBehaviour | undefined) | undefined;
  /** Milliseconds before each good answer. */
  delayMs?: number | undefined;
  /** Models that it knows; any other is answered with 404. All, when absent. */
  models?: string[];
}

export interface TeacherServer {
  /** Value for base_url. */
  url: string;
  port: number;
  /** Every request so far. */
  calls: TeacherCall[];
  /** Most requests that were open at once. */
  maxConcurrent: number;
  options: TeacherServerOptions;
  stop(): Promise<void>;
}

export async function startTeacherServer(options: TeacherServerOptions = {}, port = 0): Promise<TeacherServer> {
  const times = new Map<string, number>();
  const tries = new Map<string, number>();
  let open = 0;
  const server = createServer((request, response) => {
    open += 1;
    running.maxConcurrent = Math.max(running.maxConcurrent, open);
    response.on("close", () => {
      open -= 1;
    });
    handle(request, response).catch(() => response.destroy());
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "";
    if (request.method === "GET" && path.endsWith("/models")) {
      const data = (running.options.models ?? ["test-model"]).map((id) => ({ id, object: "model" }));
      return json(response, 200, { object: "list", data });
    }
    const api = path.endsWith("/chat/completions") ? "chat" : path.endsWith("/completions") ? "completions" : undefined;
    if (request.method !== "POST" || api === undefined)
      return json(response, 404, { error: { message: "no such path" } });
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Record<string, unknown>;
    const messages = (body.messages as { role: string; content: string }[] | undefined) ?? [];
    const prompt = api === "chat" ? messages.map(({ content }) => content).join("\n\n") : String(body.prompt);
    const seed = typeof body.seed === "number" ? body.seed : undefined;
    const key = String(request.headers["idempotency-key"] ?? `${seed ?? ""} ${prompt}`);
    const call: TeacherCall = {
      number: running.calls.length + 1,
      time: raised(times, prompt),
      key,
      try: raised(tries, key),
      seed,
      ended: "open",
      api,
      prompt,
      body,
      authorization: request.headers.authorization,
      ...asked(api, messages.at(-1)?.content ?? prompt),
    };
    running.calls.push(call);
    let isPaid = false;
    response.on("close", () => {
      call.ended = !response.writableFinished ? "cut" : isPaid ? "answered" : "refused";
      call.endedAt = Date.now();
    });
    if (running.options.models !== undefined && !running.options.models.includes(String(body.model))) {
      return json(response, 404, { error: { message: `The model ${String(body.model)} does not exist` } });
    }
    const wanted = running.options.behave?.(call) ?? { kind: "good", delayMs: running.options.delayMs ?? 0 };
    const behaviour: TeacherBehaviour =
      wanted.kind === "good"
        ? { kind: "reply", text: goodReply(call, running.options), delayMs: wanted.delayMs }
        : wanted;
    isPaid = behaviour.kind === "reply";
    await act(behaviour, call, response);
  }

  const running: TeacherServer = {
    url: "",
    port: 0,
    calls: [],
    maxConcurrent: 0,
    options,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  running.port = (server.address() as AddressInfo).port;
  running.url = `http://127.0.0.1:${running.port}/v1`;
  return running;
}

/** Counts one more of a thing, and gives how many there are now. */
function raised(counts: Map<string, number>, of: string): number {
  const count = (counts.get(of) ?? 0) + 1;
  counts.set(of, count);
  return count;
}

async function act(
  behaviour: Exclude<TeacherBehaviour, { kind: "good" }>,
  call: TeacherCall,
  response: ServerResponse,
): Promise<void> {
  if ("delayMs" in behaviour && behaviour.delayMs) await sleep(behaviour.delayMs);
  switch (behaviour.kind) {
    case "reply":
      return json(response, 200, completion(behaviour, call));
    case "status":
      response.writeHead(behaviour.status, { "content-type": "application/json", ...behaviour.headers });
      response.end(behaviour.body ?? JSON.stringify({ error: { message: `status ${behaviour.status}` } }));
      return;
    case "html":
      response.writeHead(200, { "content-type": "text/html" });
      response.end("<html><body><h1>Sign in to the network</h1></body></html>");
      return;
    case "half-json":
      response.writeHead(200, { "content-type": "application/json" });
      response.end('{"choices":[{"message":{"content":"{\\"input\\": \\"Wh');
      return;
    case "empty-body":
      response.writeHead(200, { "content-type": "application/json" });
      response.end();
      return;
    case "reset":
      response.socket?.resetAndDestroy();
      return;
    case "reset-midway":
      response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
      response.write('{"choices":[{"message":');
      setTimeout(() => response.socket?.resetAndDestroy(), 20);
      return;
    case "hang":
      return;
    case "huge":
      response.writeHead(200, { "content-type": "application/json" });
      response.end(`{"choices":[{"message":{"content":"${"x".repeat(behaviour.bytes)}"}}]}`);
  }
}

function completion(reply: Extract<TeacherBehaviour, { kind: "reply" }>, call: TeacherCall): object {
  call.usage = {
    prompt_tokens: Math.ceil(call.prompt.length / 4),
    completion_tokens: Math.ceil(reply.text.length / 4) + 1,
  };
  const usage = "usage" in reply ? reply.usage : call.usage;
  const logprobs =
    reply.topLogprobs === undefined
      ? {}
      : { logprobs: { content: [{ token: reply.topLogprobs[0]?.token, top_logprobs: reply.topLogprobs }] } };
  const finish_reason = reply.finish ?? "stop";
  const said =
    call.api === "chat" ? { message: { role: "assistant", content: reply.text }, ...logprobs } : { text: reply.text };
  return { id: `reply-${call.number}`, model: call.body.model, choices: [{ index: 0, finish_reason, ...said }], usage };
}

/** What a prompt of the teacher service asks for. */
function asked(api: TeacherCall["api"], last: string): Pick<TeacherCall, "wants" | "input" | "output" | "row"> {
  if (api === "chat") {
    const label = /^Text: (".*")$/ms.exec(last)?.[1];
    if (label !== undefined) return { wants: "label", input: JSON.parse(label) as string, output: "" };
    const line = last.split("\n").find((text) => /^\{"(input|messages)":/.test(text));
    const row = JSON.parse(line ?? "{}") as AskedRow;
    const input = row.input ?? row.messages?.at(-1)?.content ?? "";
    const output = typeof row.output === "object" ? JSON.stringify(row.output) : (row.output ?? "");
    return { wants: "write", input, output, row };
  }
  if (!last.startsWith("A list of ")) {
    // Examples in the task's template, "Message: {input}\nIntent:" say, the last one open.
    const block = last.split("\n\n").at(-1) ?? "";
    return { wants: "label", input: block.slice(0, block.lastIndexOf("\n")).replace(/^\w+: /, ""), output: "" };
  }
  if (/<<<\n[^\n]*$/.test(last))
    return { wants: "write", input: last.split("<<<\n").at(-2)?.split("\n>>>")[0] ?? "", output: "" };
  return { wants: "write", input: last.split("\n").at(-2)?.replace(/^- /, "") ?? "", output: "" };
}

const openings = [
  "Please tell me:",
  "I wonder:",
  "Quick question:",
  "Could you say:",
  "One more thing:",
  "By the way:",
];
const closings = ["Thanks.", "It is urgent.", "No hurry.", "Much obliged.", "Asking for a friend.", "Cheers."];

/** A new row made from the seed row: the same words with another frame, so its label stays right. */
function goodReply(call: TeacherCall, options: TeacherServerOptions): string {
  if (call.wants === "label") return labelReply(call, options);
  const hash = [...call.prompt].reduce(
    (sum, character) => (sum * 31 + (character.codePointAt(0) ?? 0)) >>> 0,
    call.seed ?? call.time,
  );
  const words = call.input.split(/\s+/);
  const cut = words.length < 3 ? 0 : 1 + (hash % (words.length - 1));
  const turned = [...words.slice(cut), ...words.slice(0, cut)].join(" ");
  const input = `${openings[hash % openings.length]} ${turned} ${closings[(hash >>> 8) % closings.length]} (${hash % 9973})`;
  if (call.api !== "chat") return ` ${input}`;
  const { messages, output } = call.row ?? {};
  if (messages === undefined) return JSON.stringify({ input, output });
  return JSON.stringify({ messages: [...messages.slice(0, -1), { role: "user", content: input }], output });
}

function labelReply(call: TeacherCall, options: TeacherServerOptions): string {
  const listed = [...call.prompt.matchAll(/^(?:- |([A-Z])\. )([^\n:]+)/gm)].map(([, letter, name]) => ({
    letter,
    name,
  }));
  const labels = listed.flatMap(({ name }) => name ?? []);
  const wanted = options.labelOf?.(call.input, labels) ?? labels[0] ?? "";
  const found = listed.find(({ name }) => name === wanted);
  return found?.letter ?? wanted;
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
