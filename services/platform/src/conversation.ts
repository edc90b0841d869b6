/** Conversations: the rules that rows of messages keep, and how they are read as one text. Pure. */
import type { Message, Row } from "@tutelage/proto/task/v1/task";

const roles = new Set(["system", "user", "assistant"]);

/** Why something is not a conversation to continue. */
export interface TurnsProblem {
  /** Path of what is at fault, e.g. "messages[2].role". */
  field: string;
  code: "wrong_type" | "empty_field" | "wrong_turns";
  /** What is wrong and how to mend it; goes on from the field. */
  message: string;
}

/**
 * Why a value is not a conversation to continue; undefined when it is one:
 * messages of known roles with text, at most one of the system and that first,
 * the user's last.
 */
export function turnsProblem(value: unknown): TurnsProblem | undefined {
  const wrong = (code: TurnsProblem["code"], field: string, message: string) => ({ code, field, message });
  if (!Array.isArray(value)) return wrong("wrong_type", "messages", 'must be an array of {"role", "content"} objects.');
  if (value.length === 0) return wrong("empty_field", "messages", "is empty; give at least one message.");
  for (const [index, message] of value.entries()) {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    const field = `messages[${index}]`;
    if (typeof role !== "string" || !roles.has(role)) {
      const shown = (JSON.stringify(role) ?? "undefined").slice(0, 80);
      return wrong("wrong_type", `${field}.role`, `must be "system", "user" or "assistant", not ${shown}.`);
    }
    if (typeof content !== "string") return wrong("wrong_type", `${field}.content`, "must be text.");
    if (role === "system" && index > 0) {
      return wrong(
        "wrong_turns",
        `${field}.role`,
        'is "system" after other messages; put the system\'s message first.',
      );
    }
  }
  const turns = value as Message[];
  if (!turns.some(({ content }) => content.trim() !== "")) {
    return wrong("empty_field", "messages", "has only blank messages; give at least one with text.");
  }
  const last = turns.length - 1;
  if (turns[last]?.role !== "user") {
    return wrong(
      "wrong_turns",
      `messages[${last}].role`,
      'must be "user": the answer to the last message is the output.',
    );
  }
  if (turns[last]?.content.trim() === "") {
    return wrong("empty_field", `messages[${last}].content`, "is blank; give the user's last message.");
  }
  return undefined;
}

/** A row's input as one text; a conversation as its turns. */
export function rowText({ input, messages }: Pick<Row, "input" | "messages">): string {
  return messages.length === 0 ? input : messages.map(({ role, content }) => `${role}: ${content}`).join("\n");
}

/**
 * The text of a row that novelty compares: its input, else what user and
 * assistant say. The system's message is the same in many rows, and the last
 * turn alone ("yes, please") says too little.
 */
export function comparedText({ input, messages }: Pick<Row, "input" | "messages">): string {
  if (messages.length === 0) return input;
  const turns = messages.filter(({ role }) => role !== "system");
  return (turns.length === 0 ? messages : turns).map(({ content }) => content).join("\n");
}

/** Characters of a row's input or turns, and its output. */
export function textLength({ input, messages, output }: Pick<Row, "input" | "messages" | "output">): number {
  return messages.reduce((sum, { content }) => sum + content.length, input.length + output.length);
}
