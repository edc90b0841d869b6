/**
 * The process that holds a GGUF model: a crash of native code ends this, not
 * the service. Speaks the messages of embedded-protocol.ts over its IPC channel.
 */
import { getLlama, LlamaCompletion, type LlamaContextSequence, LlamaLogLevel, type Token } from "node-llama-cpp";
import type { ChildOptions, ChildReply, ChildRequest } from "./embedded-protocol.js";

const options = JSON.parse(process.argv[2] ?? "{}") as ChildOptions;

// An orphan must not live on.
process.on("disconnect", () => process.exit(0));
// Ctrl-C reaches the whole group; the parent decides when this ends.
process.on("SIGINT", () => {});

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
  maxThreads: options.threads,
});
const model = await llama.loadModel({ modelPath: options.modelPath, gpuLayers: 0 });
const context = await model.createContext({
  sequences: options.sequences,
  contextSize: options.contextTokens,
  batchSize: options.contextTokens,
  threads: options.threads,
  // Lets a sequence keep the shared beginning of its prompts although the model attends in windows.
  swaFullCache: true,
});

interface Slot {
  sequence: LlamaContextSequence;
  completion: LlamaCompletion;
}

const free: Slot[] = Array.from({ length: options.sequences }, () => {
  const sequence = context.getSequence();
  return { sequence, completion: new LlamaCompletion({ contextSequence: sequence }) };
});
const waiting: (() => void)[] = [];
const stops = new Map<number, AbortController>();

process.on("message", (message: ChildRequest) => {
  if (message.kind === "stop") {
    stops.get(message.id)?.abort(new Error("stopped"));
    return;
  }
  const stop = new AbortController();
  stops.set(message.id, stop);
  const work = message.kind === "complete" ? complete(message, stop.signal) : score(message, stop.signal);
  work
    .catch((error: unknown): ChildReply => ({ id: message.id, kind: "failed", message: String(error) }))
    .then((reply) => {
      stops.delete(message.id);
      process.send?.(reply);
    });
});
process.send?.({ id: 0, kind: "ready" } satisfies ChildReply);

async function complete(
  request: Extract<ChildRequest, { kind: "complete" }>,
  signal: AbortSignal,
): Promise<ChildReply> {
  const promptTokens = model.tokenize(request.prompt);
  if (promptTokens.length + request.maxTokens + 1 > options.contextTokens) return tooLong(request.id);
  return await withSlot(promptTokens, signal, async ({ sequence, completion }) => {
    // Kept state of an earlier prompt would change the batches' shapes, and with them the last bits of the logits.
    await sequence.clearHistory();
    let completionTokens = 0;
    const { response, metadata } = await completion.generateCompletionWithMeta(request.prompt, {
      maxTokens: request.maxTokens,
      temperature: request.temperature,
      topP: request.topP,
      seed: request.seed,
      customStopTriggers: request.stop,
      signal,
      onToken: (tokens) => {
        completionTokens += tokens.length;
      },
    });
    return {
      id: request.id,
      kind: "completed",
      text: response,
      finish: metadata.stopReason === "maxTokens" ? "length" : "stop",
      promptTokens: promptTokens.length,
      completionTokens,
    };
  });
}

async function score(request: Extract<ChildRequest, { kind: "score" }>, signal: AbortSignal): Promise<ChildReply> {
  const scores: number[][] = [];
  let tokens = 0;
  for (const item of request.items) {
    const prefix = [model.tokens.bos as Token, ...model.tokenize(item.prefix)];
    const continuations = item.continuations.map((text) => model.tokenize(text, false, "trimLeadingSpace"));
    const longest = Math.max(...continuations.map(({ length }) => length));
    if (prefix.length + longest + 1 > options.contextTokens) return tooLong(request.id);
    scores.push(
      await withSlot(prefix, signal, async ({ sequence }) => {
        const last = prefix[prefix.length - 1] as Token;
        // Most of the prefix is there already when the call before shared its examples.
        await sequence.adaptStateToTokens(prefix.slice(0, -1), false);
        const rest = prefix.slice(sequence.nextTokenIndex, -1);
        tokens += rest.length;
        if (rest.length > 0) await sequence.evaluateWithoutGeneratingNewTokens(rest);
        const logProbabilities: number[] = [];
        for (const continuation of continuations) {
          signal.throwIfAborted();
          tokens += continuation.length;
          logProbabilities.push(await logProbability(sequence, last, continuation));
          await sequence.eraseContextTokenRanges([{ start: prefix.length - 1, end: sequence.nextTokenIndex }]);
        }
        return logProbabilities;
      }),
    );
  }
  return { id: request.id, kind: "scored", scores, tokens };
}

/** log p(continuation | what the sequence holds, last), in nats. */
async function logProbability(sequence: LlamaContextSequence, last: Token, continuation: Token[]): Promise<number> {
  const inputs = [last, ...continuation.slice(0, -1)];
  const outputs = await sequence.controlledEvaluate(
    inputs.map((token, index) => [
      token,
      {
        generateNext: {
          // The whole vocabulary as a map would cost 30 times the evaluation itself.
          logits: { filter: { tokens: [continuation[index] as Token], includeMax: true } },
          totalLogitWeight: true,
        },
      },
    ]),
  );
  let sum = 0;
  for (const [index, token] of continuation.entries()) {
    const next = outputs[index]?.next;
    const logits = next?.logits;
    if (logits === undefined || next?.totalLogitWeight === undefined) throw new Error("the model gave no logits");
    const max = Math.max(...logits.values());
    sum += (logits.get(token) ?? Number.NEGATIVE_INFINITY) - max - Math.log(next.totalLogitWeight);
  }
  return sum;
}

/** Runs the work on a free sequence, the one that already holds most of the prompt. */
async function withSlot<T>(prompt: Token[], signal: AbortSignal, work: (slot: Slot) => Promise<T>): Promise<T> {
  while (free.length === 0) {
    await new Promise<void>((resolve) => waiting.push(resolve));
  }
  let best = 0;
  let bestShared = -1;
  for (const [index, { sequence }] of free.entries()) {
    const shared = sharedLength(sequence.contextTokens, prompt);
    if (shared > bestShared) [best, bestShared] = [index, shared];
  }
  const [slot] = free.splice(best, 1) as [Slot];
  try {
    signal.throwIfAborted();
    return await work(slot);
  } finally {
    free.push(slot);
    waiting.shift()?.();
  }
}

function sharedLength(a: readonly Token[], b: readonly Token[]): number {
  let index = 0;
  while (index < a.length && index < b.length && a[index] === b[index]) index += 1;
  return index;
}

function tooLong(id: number): ChildReply {
  return { id, kind: "too_long", message: `The prompt does not fit into ${options.contextTokens} tokens.` };
}
