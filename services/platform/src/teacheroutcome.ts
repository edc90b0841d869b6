/** What comes of a reply: a candidate, a labeling, or a rejection with a named reason. */
import type { Message } from "@tutelage/proto/task/v1/task";
import type { Result } from "@tutelage/proto/teacher/v1/teacher";

export type Outcome = NonNullable<Result["outcome"]>;

export type RejectionCode =
  | "empty_reply"
  | "unparseable"
  | "truncated"
  | "copied_seed"
  | "unknown_label"
  | "no_answer"
  | "wrong_fields"
  | "wrong_turns"
  | "too_long"
  | "provider_error";

const maxRawReplyCharacters = 2_000;

export function candidate(input: string, output: string, messages: readonly Message[] = []): Outcome {
  const turns = messages.map(({ role, content }) => ({ role, content: storable(content) }));
  return { $case: "candidate", value: { input: storable(input), output: storable(output), messages: turns } };
}

export function rejection(code: RejectionCode, message: string, rawReply: string): Outcome {
  return {
    $case: "rejection",
    value: { code, message, rawReply: storable(rawReply.slice(0, maxRawReplyCharacters)) },
  };
}

/** Postgres stores neither NUL nor half a surrogate pair; both become the replacement character. */
export function storable(text: string): string {
  return Buffer.from(text.replaceAll("\0", "\uFFFD"), "utf8").toString("utf8");
}
