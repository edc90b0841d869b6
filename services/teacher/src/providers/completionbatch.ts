/** Completions that a model in this process writes side by side. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { LlamaContext, LlamaContextSequence, Token } from "node-llama-cpp";

/** What to continue, and how tokens are drawn. */
export interface CompletionRequest {
  /** With the token that begins a text, where the model wants one; together with `maxTokens` within the context. */
  prompt: Token[];
  /** Texts that end the reply and are not part of it. */
  stop: string[];
  maxTokens: number;
  temperature: number;
  topP: number;
  /** 0 means all tokens. */
  topK: number;
  seed: number;
}

export interface Completion {
  text: string;
  /** "length" where maxTokens cut it. */
  finish: "stop" | "length";
  /** Tokens drawn, without the one by which the model ended the text. */
  completionTokens: number;
}

interface Place {
  request: CompletionRequest;
  signal: AbortSignal;
  resolve(completion: Completion): void;
  reject(reason: unknown): void;
}

interface Writing extends Place {
  sequence: LlamaContextSequence;
  tokens: AsyncGenerator<Token, void>;
  drawn: Token[];
}

/** As many as LlamaCompletion looks back for its repeat penalty. */
const penaltyTokens = 64;
/** What bytes that are only the beginning of a character read as. */
const halfCharacter = /\uFFFD+$/;

/**
 * A fixed number of sequences that go on in step: every open completion draws
 * one token, all in one batch; then what has ended makes room, and what waits
 * comes in.
 *
 * In step, because node-llama-cpp holds the context's lock from one batch to
 * the next while any sequence has a token queued, and clearing a sequence needs
 * that lock. Completions that run free of one another leave it only when all
 * are over: of 8 at once a new prompt could begin once the 8 old ones had
 * ended, so batches shrank to 1 before each new start. Between two steps
 * nothing is queued, so a sequence is cleared at once. It also makes the
 * batches, and with them the last bits of the logits, depend on the prompts and
 * their order of arrival alone, not on which sampling thread was first.
 */
export class CompletionBatch {
  private readonly free: LlamaContextSequence[];
  private readonly waiting: Place[] = [];
  private readonly open = new Set<Writing>();
  private running = false;

  /** Takes `sequences` sequences of the context for itself. */
  constructor(
    private readonly context: LlamaContext,
    sequences: number,
  ) {
    this.free = Array.from({ length: sequences }, () => context.getSequence());
  }

  /** Rejects with the signal's reason when it aborts first. */
  complete(request: CompletionRequest, signal: AbortSignal): Promise<Completion> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ request, signal, resolve, reject });
      // A failure of the batch itself leaves nothing to go on with: unhandled, it ends the process.
      if (!this.running) void this.run();
    });
  }

  private async run(): Promise<void> {
    this.running = true;
    try {
      // Prompts that came together begin together.
      await nextTurn();
      for (this.admit(); this.open.size > 0; this.admit()) await this.step();
    } finally {
      this.running = false;
    }
  }

  /** Begins what waits, in the order of arrival, as far as there is room. */
  private admit(): void {
    while (this.free.length > 0 && this.waiting.length > 0) {
      const place = this.waiting.shift() as Place;
      if (place.signal.aborted) {
        place.reject(place.signal.reason);
        continue;
      }
      const sequence = this.free.pop() as LlamaContextSequence;
      const { prompt, temperature, topP, topK, seed } = place.request;
      const drawn: Token[] = [];
      const tokens = sequence.evaluate(prompt, {
        temperature,
        topP,
        topK,
        seed,
        repeatPenalty: {
          punishTokens: () => drawn.slice(-penaltyTokens).filter((token) => token !== this.context.model.tokens.nl),
          maxPunishTokens: penaltyTokens,
        },
        yieldEogToken: true,
      });
      this.open.add({ ...place, sequence, tokens, drawn });
    }
  }

  private async step(): Promise<void> {
    const open = [...this.open];
    const results = await Promise.allSettled(open.map(({ tokens }) => tokens.next()));
    // By then node-llama-cpp has seen that nothing is queued, and has let go of the lock.
    await nextTurn();
    for (const [index, writing] of open.entries()) {
      const result = results[index] as PromiseSettledResult<IteratorResult<Token, void>>;
      if (writing.signal.aborted) writing.reject(writing.signal.reason);
      else if (result.status === "rejected") writing.reject(result.reason);
      else {
        const completion = this.take(writing, result.value.value ?? undefined);
        if (completion === undefined) continue;
        writing.resolve(completion);
      }
      this.open.delete(writing);
      await writing.tokens.return();
      // Kept state of an earlier prompt would change the batches' shapes, and with them the last bits of the logits.
      await writing.sequence.clearHistory();
      this.free.push(writing.sequence);
    }
  }

  /** Adds a token; the completion when that ends it. */
  private take({ request, drawn }: Writing, token: Token | undefined): Completion | undefined {
    const { model } = this.context;
    const ended = token === undefined || model.isEogToken(token);
    if (!ended) drawn.push(token);
    const text = model.detokenize(drawn);
    const completionTokens = drawn.length;
    const stops = request.stop.map((stop) => text.indexOf(stop)).filter((place) => place >= 0);
    if (stops.length > 0) return { text: text.slice(0, Math.min(...stops)), finish: "stop", completionTokens };
    if (!ended && completionTokens < request.maxTokens) return undefined;
    return { text: text.replace(halfCharacter, ""), finish: ended ? "stop" : "length", completionTokens };
  }
}
