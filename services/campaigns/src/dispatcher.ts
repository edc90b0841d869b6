/**
 * Sends deliveries to their receivers. Every replica does: a delivery is
 * claimed in a statement of its own, sent without a transaction, and settled.
 * Whoever dies in between leaves a claim that runs out, so that a delivery is
 * made at least once. Campaigns never wait for any of it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "@tutelage/platform/log";
import type { RunSignals } from "@tutelage/platform/signals";
import type { ClaimedDelivery, DeliveryStore, FailedTry } from "./deliverystore.js";
import { type Receipt, Receivers } from "./receiver.js";
import { longestPauseMs, retryDelayMs } from "./webhook.js";
import { mostWebhooks } from "./webhookstore.js";

export interface DispatchTiming {
  /** How long a receiver has to answer. */
  timeoutMs: number;
  /** How long a claim holds without being renewed. */
  leaseMs: number;
  /** Between renewals. */
  renewMs: number;
  /** Between looks for what is due when no event is written. */
  pollMs: number;
}

export const defaultDispatchTiming: DispatchTiming = {
  timeoutMs: 15_000,
  leaseMs: 6_000,
  renewMs: 2_000,
  pollMs: 1_000,
};

/** Tries at a time at one receiver, whoever makes them, and in one process: all of a project's receivers may hang. */
const mostAtReceiver = 2;
const mostAtOnce = 2 * mostWebhooks;

interface Dependencies {
  deliveries: DeliveryStore;
  signals: Pick<RunSignals, "subscribe">;
  log: Logger;
  timing: DispatchTiming;
  signal: AbortSignal;
}

/** Dispatches until the signal aborts; then what is being sent is given back. Never throws. */
export async function dispatch(deps: Dependencies): Promise<void> {
  const { log, timing, signal } = deps;
  const receivers = new Receivers(timing.timeoutMs);
  // An event raises its campaign's revision, which wakes this.
  const subscription = deps.signals.subscribe("any");
  const sending = new Map<ClaimedDelivery, Promise<void>>();
  const ended = new AbortController();
  const renewing = renew(deps, sending, ended.signal);
  let woken: Promise<unknown> | undefined;
  while (!signal.aborted) {
    const claimed = sending.size < mostAtOnce ? await claim(deps) : undefined;
    if (claimed !== undefined) {
      const sent = deliver(deps, receivers, claimed).finally(() => sending.delete(claimed));
      sending.set(claimed, sent);
    } else {
      woken ??= subscription.next(timing.pollMs, signal).finally(() => {
        woken = undefined;
      });
      // One that ends makes room for the next, maybe of the same receiver.
      await Promise.race([woken, ...sending.values()]);
    }
  }
  await Promise.all(sending.values());
  ended.abort();
  await renewing;
  subscription.close();
  await receivers
    .close()
    .catch((error: unknown) => log.warn({ err: error }, "could not close connections to receivers"));
}

async function claim({ deliveries, log, timing, signal }: Dependencies): Promise<ClaimedDelivery | undefined> {
  return await deliveries.claim(timing.leaseMs, mostAtReceiver).catch((error: unknown) => {
    if (!signal.aborted) log.warn({ err: error }, "cannot look for webhook deliveries; trying again");
    return undefined;
  });
}

/** Renews the claims of what is being sent, until `ended`. */
async function renew(
  { deliveries, log, timing }: Dependencies,
  sending: ReadonlyMap<ClaimedDelivery, unknown>,
  ended: AbortSignal,
): Promise<void> {
  while (!ended.aborted) {
    await sleep(timing.renewMs, undefined, { signal: ended }).catch(() => {});
    if (sending.size === 0 || ended.aborted) continue;
    await deliveries
      .renew([...sending.keys()], timing.leaseMs)
      .catch((error: unknown) => log.warn({ err: error }, "could not renew claims of webhook deliveries"));
  }
}

/** Never throws: a claim that cannot be settled runs out. */
async function deliver(
  { deliveries, log, signal }: Dependencies,
  receivers: Receivers,
  claimed: ClaimedDelivery,
): Promise<void> {
  const startedAt = performance.now();
  try {
    const receipt = await receivers.hand(claimed, signal).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw error;
    });
    if (receipt === undefined) await deliveries.release(claimed);
    else if (receipt.kind === "received") await deliveries.delivered(claimed, receipt.httpStatus);
    else {
      const leftMs = claimed.leftMs - (performance.now() - startedAt);
      const failed = failedTry(receipt, claimed.attempts, leftMs, Math.random);
      await deliveries.failed(claimed, failed);
      if (failed.retryMs === undefined) {
        const { id: deliveryId, webhookId } = claimed;
        log.warn({ deliveryId, webhookId, error: failed.error }, "a webhook delivery was given up");
      }
    }
  } catch (error) {
    log.warn({ err: error, deliveryId: claimed.id }, "could not settle a webhook delivery; its claim runs out");
  }
}

/** What becomes of a delivery that was not received. Pure. */
export function failedTry(
  receipt: Exclude<Receipt, { kind: "received" }>,
  attempts: number,
  leftMs: number,
  random: () => number,
): FailedTry {
  if (receipt.kind === "no_answer") {
    const retryMs = retryDelayMs(attempts, leftMs, undefined, random);
    return { httpStatus: undefined, error: receipt.error, retryMs };
  }
  const { httpStatus, retryAfterMs } = receipt;
  if (httpStatus === 410) {
    return { httpStatus, error: "HTTP 410: the receiver is gone", retryMs: undefined, disable: "gone" };
  }
  const isRedirect = httpStatus >= 300 && httpStatus < 400;
  const error = isRedirect
    ? `HTTP ${httpStatus}: redirects are not followed; set the URL to where it points`
    : `HTTP ${httpStatus}`;
  const retryMs = retryDelayMs(attempts, leftMs, retryAfterMs, random);
  // Not only this delivery: whoever has too much to do is not sent the next event meanwhile.
  return retryAfterMs === undefined || retryAfterMs === 0
    ? { httpStatus, error, retryMs }
    : { httpStatus, error, retryMs, pauseMs: Math.min(retryAfterMs, longestPauseMs) };
}
