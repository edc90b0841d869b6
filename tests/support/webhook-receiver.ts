/** A receiver of webhooks for tests: keeps what comes, verifies as a user's receiver would, and misbehaves on demand. */
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request as the receiver saw it. */
export interface Received {
  id: string;
  /** Seconds since 1970. */
  timestamp: number;
  signatures: string[];
  text: string;
  body: { type: string; timestamp: string; data: { campaign_id: string; sequence: number; payload: object } };
  path: string;
  /** Of the clock of this process. */
  atMs: number;
}

export type ReceiverBehaviour =
  | { status: number; headers?: Record<string, string> }
  /** Never answers, answers 200 and never ends, cuts the connection. */
  | "hang"
  | "hang-after-status"
  | "reset";

export interface WebhookReceiver {
  url: string;
  received: Received[];
  /** What it does with a request; 204 until it is told otherwise. */
  behave: (received: Received) => ReceiverBehaviour;
  /** Whether one of the signatures is this secret's. */
  isSigned(received: Received, secret: string): boolean;
  stop(): Promise<void>;
}

export async function startReceiver(): Promise<WebhookReceiver> {
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { headers } = request;
    const received: Received = {
      id: String(headers["webhook-id"]),
      timestamp: Number(headers["webhook-timestamp"]),
      signatures: String(headers["webhook-signature"]).split(" "),
      text,
      body: JSON.parse(text),
      path: request.url ?? "",
      atMs: Date.now(),
    };
    receiver.received.push(received);
    answer(response, receiver.behave(received));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const receiver: WebhookReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    received: [],
    behave: () => ({ status: 204 }),
    isSigned: ({ id, timestamp, text, signatures }, secret) => {
      const key = Buffer.from(secret.replace("whsec_", ""), "base64");
      return signatures.includes(
        `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${text}`).digest("base64")}`,
      );
    },
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return receiver;
}

function answer(response: ServerResponse, behaviour: ReceiverBehaviour): void {
  if (behaviour === "hang") return;
  if (behaviour === "reset") response.destroy();
  else if (behaviour === "hang-after-status") response.writeHead(200).write("wait");
  else response.writeHead(behaviour.status, behaviour.headers).end();
}
