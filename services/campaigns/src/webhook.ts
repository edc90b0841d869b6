/** The rules of webhooks, after the Standard Webhooks specification. Pure, but for the making of secrets. */
import { createHmac, randomBytes } from "node:crypto";
import { invalidField } from "@tutelage/platform/errors";
import { isLoopback } from "@tutelage/platform/loopback";
import { nearest } from "@tutelage/platform/suggestion";
import { eventTypes } from "./events.js";

const mostUrlCharacters = 2_000;
const mostDescriptionCharacters = 500;
const secretPrefix = "whsec_";
/** The specification wants 24 to 64. */
const secretBytes = 32;

const firstRetryMs = 5_000;
const retryGrowth = 3;
const longestRetryMs = 14_400_000;
/** A receiver that asks for a longer pause is asked again after this all the same. */
export const longestPauseMs = 3_600_000;

/** The type of a delivery that somebody asked for to try a receiver. */
export const testType = "webhook.test";

/** Throws invalid_argument unless events may be sent there. Gives the URL in its normal form. */
export function requireWebhookUrl(text: string): string {
  const wrong = (description: string) => invalidField("url", description);
  if (text.length > mostUrlCharacters) throw wrong(`is longer than ${mostUrlCharacters} characters.`);
  if (!URL.canParse(text)) throw wrong('is no URL; give a whole one, e.g. "https://example.com/tutelage".');
  const url = new URL(text);
  if (url.username !== "" || url.password !== "") {
    throw wrong("holds credentials; leave them out, the signature says who sends.");
  }
  if (url.hash !== "") throw wrong("has a fragment, which is never sent; leave out what follows #.");
  if (url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url.hostname))) return url.href;
  if (url.protocol === "http:") throw wrong("is http beyond this machine; use https, or http to 127.0.0.1 for a try.");
  throw wrong("must begin with https://, or with http:// to this machine's loopback.");
}

export function requireDescription(text: string): string {
  if (text.length <= mostDescriptionCharacters) return text;
  throw invalidField("description", `is longer than ${mostDescriptionCharacters} characters; shorten it.`);
}

/** Throws invalid_argument for a type that no event has. */
export function requireEventTypes(types: readonly string[]): string[] {
  for (const [index, type] of types.entries()) {
    if ((eventTypes as readonly string[]).includes(type)) continue;
    const meant = nearest(type, eventTypes);
    const fix = meant === undefined ? `there are: ${eventTypes.join(", ")}.` : `did you mean "${meant}"?`;
    throw invalidField(`event_types[${index}]`, `is no type of event; ${fix}`);
  }
  return [...new Set(types)];
}

export function newSecret(): string {
  return secretPrefix + randomBytes(secretBytes).toString("base64");
}

/**
 * The header webhook-signature: one signature for each secret, between spaces.
 * @param timestamp of the try, in whole seconds since 1970
 */
export function signature(secrets: readonly string[], id: string, timestamp: number, body: string): string {
  return secrets
    .map((secret) => {
      const key = Buffer.from(secret.slice(secretPrefix.length), "base64");
      return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`;
    })
    .join(" ");
}

/** An event as it is sent. */
export function deliveryBody(event: { type: string; at: Date; data: object }): string {
  return JSON.stringify({ type: event.type, timestamp: event.at.toISOString(), data: event.data });
}

/**
 * Milliseconds until a delivery is tried again: 5 s, three times as long after
 * each try, at most 4 h, a fifth more or less so that receivers are not all
 * asked at once; no sooner than the receiver asked. The last try is when the
 * delivery's day ends; undefined after that.
 * @param attempts tries so far
 * @param leftMs until its day ends
 */
export function retryDelayMs(
  attempts: number,
  leftMs: number,
  retryAfterMs: number | undefined,
  random: () => number,
): number | undefined {
  if (leftMs <= 0) return undefined;
  const usual = Math.min(longestRetryMs, firstRetryMs * retryGrowth ** (attempts - 1));
  const planned = Math.round(usual * (0.8 + 0.4 * random()));
  return Math.min(leftMs, Math.max(planned, retryAfterMs ?? 0));
}
