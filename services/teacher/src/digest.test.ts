import { expect, test } from "vitest";
import { type CallIdentity, callDigest, seedOf, sharedSeedOf, shuffled } from "./digest.js";

const identity: CallIdentity = {
  projectId: "p",
  provider: "embedded",
  model: "abc",
  ask: { kind: "completion", prompt: "x", stop: ["\n"], sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: 8 } },
  attempt: 0,
  replicateSeed: 0,
  scope: "",
};

test("everything that shapes a reply shapes the digest, and the order of keys does not", () => {
  const others: CallIdentity[] = [
    { ...identity, projectId: "q" },
    { ...identity, provider: "openai-compatible http://a/v1" },
    { ...identity, model: "abd" },
    { ...identity, attempt: 1 },
    { ...identity, replicateSeed: 1 },
    { ...identity, scope: "campaign" },
    { ...identity, ask: { ...identity.ask, prompt: "y" } as CallIdentity["ask"] },
    {
      ...identity,
      ask: { ...identity.ask, sampling: { temperature: 1, topP: 0.9, topK: 0, maxTokens: 8 } } as CallIdentity["ask"],
    },
  ];
  expect(new Set([identity, ...others].map(callDigest)).size).toBe(others.length + 1);
  const reversed = Object.fromEntries(Object.entries(identity).reverse()) as unknown as CallIdentity;
  expect(callDigest(reversed)).toBe(callDigest(identity));
});

test("the name of a reply of the shared scope is what it was before there were scopes", () => {
  expect(callDigest(identity)).toBe("e526868bab0a0d52f4f6e3aa398241c2bc2b28adcdc52da9ad8258a3cd942d90");
});

test("a seed is 31 bits", () => {
  expect(seedOf("ffffffff00")).toBe(0x7fffffff);
  expect(seedOf("0000000aff")).toBe(10);
});

test("a shared provider's seed tells attempts apart, but neither projects nor addresses", () => {
  const seed = sharedSeedOf(identity);
  expect(sharedSeedOf({ ...identity, projectId: "q", provider: "openai-compatible http://a/v1" })).toBe(seed);
  expect(sharedSeedOf({ ...identity, attempt: 1 })).not.toBe(seed);
});

test("a shuffle depends on its key alone, not on the order it is given", () => {
  const items = Array.from({ length: 10 }, (_, index) => ({ id: `${index}` }));
  expect(shuffled(items, "k")).toEqual(shuffled([...items].reverse(), "k"));
  expect(shuffled(items, "k")).not.toEqual(shuffled(items, "l"));
});
