/** Tokens and money of a call. */
import type { Ask } from "./teacher.js";

/** Money of a call in micro-USD, rounded up: a ledger never shows less than was spent. */
export function costMicroUsd(
  tokens: { promptTokens: number; completionTokens: number },
  prices: { promptMicroUsdPerMillionTokens: number; completionMicroUsdPerMillionTokens: number },
): number {
  return Math.ceil(
    (tokens.promptTokens * prices.promptMicroUsdPerMillionTokens +
      tokens.completionTokens * prices.completionMicroUsdPerMillionTokens) /
      1_000_000,
  );
}

/** Tokens that frame each chat message, generously. */
const tokensPerMessage = 8;

/** An upper bound of a text's tokens, never zero: no vocabulary in use gives more than one token a byte. */
export function tokenBound(text: string): number {
  return Buffer.byteLength(text) + 1;
}

/** An upper bound of a question's prompt tokens. */
export function promptTokenBound(ask: Ask): number {
  if (ask.kind === "chat") {
    return ask.messages.reduce((sum, { content }) => sum + tokenBound(content) + tokensPerMessage, tokensPerMessage);
  }
  if (ask.kind === "completion") return tokenBound(ask.prompt);
  return ask.items.reduce(
    (sum, { shared, prefix, continuations, references }) =>
      sum + tokenBound(shared + prefix) + tokenBound(continuations.join("")) + tokenBound(references.join("")),
    0,
  );
}

/** The most that one try of a question can use: what is set aside for it, and what counts where its usage stays unknown. */
export function tokenBounds(ask: Ask): { promptTokens: number; completionTokens: number } {
  return { promptTokens: promptTokenBound(ask), completionTokens: completionTokenBound(ask) };
}

/** An upper bound of the completion tokens that a question may cost. */
export function completionTokenBound(ask: Ask): number {
  return ask.kind === "score" ? 0 : ask.sampling.maxTokens;
}
