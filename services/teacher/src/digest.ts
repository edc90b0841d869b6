/** Names of calls and seeds, from everything that shapes a reply. */
import { createHash } from "node:crypto";
import type { Ask } from "./teacher.js";

/** What makes two calls the same call. */
export interface CallIdentity {
  projectId: string;
  /** "openai-compatible https://…" or "embedded". */
  provider: string;
  /** The provider's model name, or the digest of its weights. */
  model: string;
  ask: Ask;
  attempt: number;
  replicateSeed: number;
  /** Replies of one scope are not used in another; empty for the one that all share. */
  scope: string;
}

/** SHA-256, hexadecimal. Independent of the order in which an object's keys were set. */
export function callDigest({ scope, ...identity }: CallIdentity): string {
  // Left out where it is empty: replies that were stored before there were scopes keep their names.
  return createHash("sha256")
    .update(canonicalJson(scope === "" ? identity : { ...identity, scope }))
    .digest("hex");
}

/** Seed of sampling at a provider that others use too: the same question and attempt get the same one, whoever asks at whatever address. */
export function sharedSeedOf(identity: CallIdentity): number {
  return seedOf(callDigest({ ...identity, projectId: "", provider: "" }));
}

/** Seed of sampling for a call: 31 bits of its digest. */
export function seedOf(digest: string): number {
  return Number.parseInt(digest.slice(0, 8), 16) & 0x7fffffff;
}

/** Orders items by a hash of the key and the item's id: a shuffle that is the same everywhere. */
export function shuffled<Item extends { id: string }>(items: readonly Item[], key: string): Item[] {
  return items
    .map((item) => ({ item, rank: createHash("sha256").update(`${key}\0${item.id}`).digest("hex") }))
    .sort((a, b) => (a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : 0))
    .map(({ item }) => item);
}

function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
