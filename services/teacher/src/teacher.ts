/** What every provider of a teacher model offers: one question, one try, one reply. */

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** How a reply is drawn. */
export interface Sampling {
  temperature: number;
  topP: number;
  /** Only the likeliest so many tokens; 0 means all. Only models on this machine heed it. */
  topK: number;
  maxTokens: number;
}

/** Texts that could follow a prefix: how likely each is, read as far as it takes to tell them apart. */
export interface ScoreItem {
  /** The beginning that many items have in common: read once. */
  shared: string;
  /** What follows it. */
  prefix: string;
  continuations: string[];
  /**
   * Other prefixes after the same beginning. A small model finds some
   * continuations likelier than others whatever it reads; their mean
   * log-probabilities over these tell how much.
   */
  references: string[];
}

/** One question, in the form that the provider takes. */
export type Ask =
  | {
      kind: "chat";
      messages: ChatMessage[];
      sampling: Sampling;
      /** One-token answers whose log-probabilities are asked for; empty for none. */
      choices: string[];
    }
  | { kind: "completion"; prompt: string; stop: string[]; sampling: Sampling }
  | { kind: "score"; items: ScoreItem[] };

/** One reply, as stored. */
export interface Reply {
  text: string;
  /** "length" when the token limit cut it. */
  finish: "stop" | "length";
  promptTokens: number;
  completionTokens: number;
  /** Log-probability of each continuation of each item (up to where it differs from the others), in nats; only for "score". */
  scores?: number[][];
  /** The mean over each item's references of the same, normalised over the continuations; empty without references. */
  referenceScores?: number[][];
  /** Log-probability of each choice, in nats; only where choices were asked for and the provider gave them. */
  choiceScores?: number[];
}

/** A reply with the provider's own words, for the ledger. */
export interface Answer {
  reply: Reply;
  raw: string;
}

/** One call that gave no reply. */
export class TeacherFailure extends Error {
  /** Whether the same call may succeed when made again. */
  readonly retryable: boolean;
  /** Whether every other call would fail too, so that the run must stop. */
  readonly fatal: boolean;
  /** How long the provider asked us to wait. */
  readonly retryAfterMs: number | undefined;
  readonly raw: string;
  /** Whether the provider may have worked, and bill, though no usable reply came. */
  readonly maybeBilled: boolean;

  constructor(
    /** Stable code, e.g. "teacher_timeout". */
    readonly code: string,
    message: string,
    options: { retryable?: boolean; fatal?: boolean; retryAfterMs?: number; raw?: string; maybeBilled?: boolean } = {},
  ) {
    super(message);
    this.retryable = options.retryable ?? false;
    this.fatal = options.fatal ?? false;
    this.retryAfterMs = options.retryAfterMs;
    this.raw = options.raw ?? "";
    this.maybeBilled = options.maybeBilled ?? false;
  }
}

/** What a provider may be told of a call beside its question. */
export interface CallMark {
  /** The same for every try of one call, and for no other call. */
  digest: string;
  /** Seed of sampling: makes a reply repeatable where the provider can. */
  seed: number;
}

/** A teacher model that can be asked. */
export interface Teacher {
  /** Name or digest of exactly what answers: part of every call's digest. */
  identify(): Promise<string>;
  /** One try. Throws TeacherFailure. */
  ask(ask: Ask, mark: CallMark, signal: AbortSignal): Promise<Answer>;
  close(): Promise<void>;
}
