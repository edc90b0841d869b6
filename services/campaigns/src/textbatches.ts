/** Texts cut into the messages of a stream. Pure. */
import { inBatches } from "@tutelage/platform/batch";

/** Texts of one message, and the characters that they may take: at most four bytes each. */
const textsPerMessage = 10_000;
const charactersPerMessage = 8_000_000;

/** In order. */
export function textBatches(texts: readonly string[]): string[][] {
  return inBatches(texts, (text) => text.length, { mostItems: textsPerMessage, mostSize: charactersPerMessage });
}
