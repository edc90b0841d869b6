/** Messages between the service and the process that holds an embedded model. */
import type { ScoreItem } from "../teacher.js";
import type { Completion, CompletionRequest } from "./completionbatch.js";

export interface ChildOptions {
  modelPath: string;
  /** Prompts worked on at once. */
  sequences: number;
  /** Tokens of one prompt and its reply. */
  contextTokens: number;
  threads: number;
}

export type ChildRequest =
  | ({ id: number; kind: "complete"; prompt: string } & Omit<CompletionRequest, "prompt">)
  | { id: number; kind: "score"; items: ScoreItem[] }
  | { id: number; kind: "stop" };

export type ChildReply =
  | { id: number; kind: "ready" }
  | ({ id: number; kind: "completed"; promptTokens: number } & Completion)
  | { id: number; kind: "scored"; scores: number[][]; referenceScores: number[][]; promptTokens: number }
  | { id: number; kind: "too_long"; message: string }
  | { id: number; kind: "failed"; message: string };
