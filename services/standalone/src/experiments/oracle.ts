/**
 * A teacher endpoint that answers with real rows: OpenAI's chat protocol, each
 * reply an unused row with the output of the row that is asked for. A campaign
 * that asks it shows what the loop is worth with a perfect teacher.
 */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { oracleProfile } from "./experimentfile.js";

interface RealRow {
  input: string;
  output: string;
}

export interface Oracle {
  /** Value for base_url. */
  url: string;
  stop(): Promise<void>;
}

/** Starts it on a free port of this machine. @param rows those that no campaign trains or tests on */
export async function startOracle(rows: readonly RealRow[]): Promise<Oracle> {
  const byOutput = new Map<string, RealRow[]>();
  for (const row of rows) byOutput.set(row.output, [...(byOutput.get(row.output) ?? []), row]);
  const server = createServer((request, response) => {
    answer(byOutput, request, response).catch((error: Error) =>
      send(response, 500, { error: { message: error.message } }),
    );
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    stop: () =>
      new Promise((stopped) => {
        server.close(() => stopped());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  byOutput: ReadonlyMap<string, RealRow[]>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "POST" || !request.url?.endsWith("/chat/completions")) {
    return send(response, 404, { error: { message: "There is only POST /v1/chat/completions." } });
  }
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Asked;
  const row = rowFor(byOutput, body);
  if (row === undefined) {
    return send(response, 400, {
      error: { message: "It writes rows of classification tasks, from inputs that are texts." },
    });
  }
  send(response, 200, {
    id: "oracle",
    model: body.model,
    choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: JSON.stringify(row) } }],
    // Usage of nothing would not be believed, and the most counted that a model could have used.
    usage: { prompt_tokens: 1, completion_tokens: 1 },
  });
}

interface Asked {
  model?: string;
  seed?: number;
  messages?: { role: string; content: string }[];
}

/** The last message holds the row to vary as a line of JSON. The same question and seed give the same row. */
function rowFor(byOutput: ReadonlyMap<string, RealRow[]>, { messages = [], seed }: Asked): RealRow | undefined {
  const line = messages
    .at(-1)
    ?.content.split("\n")
    .find((one) => one.startsWith('{"input":'));
  if (line === undefined) return undefined;
  const { input, output } = JSON.parse(line) as RealRow;
  const pool = byOutput.get(output);
  if (pool === undefined) return undefined;
  const digest = createHash("sha256")
    .update(JSON.stringify([seed ?? 0, input]))
    .digest();
  return pool[digest.readUInt32BE() % pool.length];
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** Writes a file of teacher profiles with the oracle among those of `profiles`, where there are any. Gives its path. */
export async function withOracle(home: string, url: string, profiles: string | undefined): Promise<string> {
  const given = profiles === undefined ? {} : (parse(await readFile(profiles, "utf8")) as { profiles?: object[] });
  const oracle = {
    name: oracleProfile,
    provider: "openai-compatible",
    description: "Answers with unused real rows of the same label; for experiments.",
    model: "real-rows",
    base_url: url,
    api: "chat",
    prompt_form: "chat",
    // Each attempt has its own, and so its own row.
    seed_field: "seed",
    prices: { prompt_micro_usd_per_million_tokens: 0, completion_micro_usd_per_million_tokens: 0 },
  };
  const path = join(home, "teachers.yaml");
  await writeFile(path, stringify({ ...given, profiles: [...(given.profiles ?? []), oracle] }));
  return path;
}
