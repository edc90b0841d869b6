/** One try to hand a delivery to its receiver, over HTTP. */
import { refuseInTransaction } from "@tutelage/platform/database";
import { parseRetryAfter } from "@tutelage/platform/retryafter";
import { Agent, errors, request } from "undici";
import type { ClaimedDelivery } from "./deliverystore.js";
import { signature } from "./webhook.js";

/** What a receiver says beside its status is of no interest; so much is read to use the connection again. */
const mostReadBytes = 16_384;

/** What came of a try. */
export type Receipt =
  | { kind: "received"; httpStatus: number }
  | { kind: "refused"; httpStatus: number; retryAfterMs: number | undefined }
  /** No answer: the receiver may have the delivery all the same. */
  | { kind: "no_answer"; error: string };

export class Receivers {
  private readonly agent: Agent;

  /** @param timeoutMs from the connection to the answer's status */
  constructor(private readonly timeoutMs: number) {
    this.agent = new Agent({
      connect: { timeout: timeoutMs },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      maxResponseSize: mostReadBytes,
      keepAliveTimeout: 10_000,
    });
  }

  /** Sends it signed. Redirects are not followed. Throws when the signal aborts. */
  async hand(delivery: ClaimedDelivery, signal: AbortSignal): Promise<Receipt> {
    refuseInTransaction("A call of a webhook's receiver");
    const { id, url, secrets, body } = delivery;
    const timestamp = Math.floor(Date.now() / 1_000);
    const deadline = AbortSignal.timeout(this.timeoutMs);
    try {
      const response = await request(url, {
        method: "POST",
        dispatcher: this.agent,
        headers: {
          "content-type": "application/json",
          "user-agent": "Tutelage",
          "webhook-id": id,
          "webhook-timestamp": String(timestamp),
          "webhook-signature": signature(secrets, id, timestamp, body),
        },
        body,
        signal: AbortSignal.any([signal, deadline]),
      });
      // The status is the answer, however long or broken what follows is.
      void response.body.dump({ limit: mostReadBytes, signal: deadline }).catch(() => {});
      const { statusCode: httpStatus, headers } = response;
      if (httpStatus >= 200 && httpStatus < 300) return { kind: "received", httpStatus };
      const retryAfterMs = parseRetryAfter(headers["retry-after"], Date.now());
      return { kind: "refused", httpStatus, retryAfterMs };
    } catch (error) {
      if (signal.aborted) throw error;
      return { kind: "no_answer", error: this.whyNoAnswer(error, deadline.aborted) };
    }
  }

  async close(): Promise<void> {
    await this.agent.destroy();
  }

  private whyNoAnswer(error: unknown, outOfTime: boolean): string {
    const isTimeout =
      outOfTime || error instanceof errors.HeadersTimeoutError || error instanceof errors.ConnectTimeoutError;
    if (isTimeout) return `no answer within ${this.timeoutMs / 1_000} s`;
    const { code, message } = error as { code?: string; message?: string };
    return `cannot be reached: ${code ?? message ?? "unknown"}`;
  }
}
