/**
 * The process that holds a GGUF model: a crash of native code ends this, not
 * the service. Speaks the messages of embedded-protocol.ts over its IPC channel.
 */
import type { LlamaContextSequence, Token } from "node-llama-cpp";
import { CompletionBatch } from "./completionbatch.js";
import type { ChildOptions, ChildReply, ChildRequest } from "./embedded-protocol.js";
import { openLlama } from "./llama.js";

const options = JSON.parse(process.argv[2] ?? "{}") as ChildOptions;

// An orphan must not live on.
process.on("disconnect", () => process.exit(0));
// Ctrl-C reaches the whole group; the parent decides when this ends.
process.on("SIGINT", () => {});

const llama = await openLlama(options.threads);
const model = await llama.loadModel({ modelPath: options.modelPath, gpuLayers: 0 });
const context = await model.createContext({
  sequences: options.sequences + 2,
  contextSize: options.contextTokens,
  batchSize: options.contextTokens,
  threads: options.threads,
  // Lets a sequence keep the shared beginning of its prompts although the model attends in windows.
  swaFullCache: true,
});

const batch = new CompletionBatch(context, options.sequences);
/**
 * Scores go one after another on sequences of their own that keep the
 * examples: 5 times as fast as on all of them. Two, as two sets of examples
 * serve all rows; the one used longest ago comes first.
 */
const scorers: { sequence: LlamaContextSequence; held: string | undefined }[] = [
  { sequence: context.getSequence(), held: undefined },
  { sequence: context.getSequence(), held: undefined },
];
let lastScore: Promise<unknown> = Promise.resolve();
/** Means over references, which are the same for most rows of a run. */
const referenceMeans = new Map<string, number[]>();
const maxReferenceMeans = 64;
const stops = new Map<number, AbortController>();

process.on("message", (message: ChildRequest) => {
  if (message.kind === "stop") {
    stops.get(message.id)?.abort(new Error("stopped"));
    return;
  }
  const stop = new AbortController();
  stops.set(message.id, stop);
  const work =
    message.kind === "complete" ? complete(message, stop.signal) : lastScore.then(() => score(message, stop.signal));
  if (message.kind === "score") lastScore = work.catch(() => {});
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
  const prompt = model.tokens.shouldPrependBosToken
    ? [model.tokens.bos as Token, ...model.tokenize(request.prompt, false, "trimLeadingSpace")]
    : model.tokenize(request.prompt);
  if (prompt.length + request.maxTokens + 1 > options.contextTokens) return tooLong(request.id);
  const completion = await batch.complete({ ...request, prompt }, signal);
  return { id: request.id, kind: "completed", ...completion, promptTokens: prompt.length };
}

async function score(request: Extract<ChildRequest, { kind: "score" }>, signal: AbortSignal): Promise<ChildReply> {
  const scores: number[][] = [];
  const referenceScores: number[][] = [];
  let promptTokens = 0;
  for (const item of request.items) {
    const shared = [model.tokens.bos as Token, ...model.tokenize(item.shared)];
    const continuations = item.continuations.map((text) => model.tokenize(text, false, "trimLeadingSpace"));
    const longest = Math.max(...continuations.map(({ length }) => length));
    const fits = (prefix: Token[]) => shared.length + prefix.length + longest <= options.contextTokens;
    const prefix = model.tokenize(item.prefix);
    if (!fits(prefix)) return tooLong(request.id);
    promptTokens += shared.length;
    const scorer = await scorerOf(item.shared, shared);
    const read = async (tokens: Token[]): Promise<number[]> => {
      signal.throwIfAborted();
      promptTokens += tokens.length;
      try {
        return await scoreContinuations(scorer, tokens, continuations);
      } finally {
        await scorer.eraseContextTokenRanges([{ start: shared.length, end: scorer.nextTokenIndex }]);
      }
    };
    scores.push(await read(prefix));
    const key = JSON.stringify([item.shared, item.continuations, item.references]);
    let mean = referenceMeans.get(key);
    if (mean === undefined) {
      const readings: number[][] = [];
      for (const text of item.references) {
        const reference = model.tokenize(text);
        if (fits(reference)) readings.push(normalised(await read(reference)));
      }
      mean =
        readings.length === 0 ? [] : continuations.map((_, index) => average(readings.map((row) => row[index] ?? 0)));
      if (referenceMeans.size === maxReferenceMeans) referenceMeans.clear();
      referenceMeans.set(key, mean);
    }
    referenceScores.push(mean);
  }
  return { id: request.id, kind: "scored", scores, referenceScores, promptTokens };
}

/** The sequence that holds exactly the shared beginning. */
async function scorerOf(text: string, tokens: Token[]): Promise<LlamaContextSequence> {
  const scoring = scorers.find(({ held }) => held === text) ?? (scorers[0] as (typeof scorers)[number]);
  scorers.sort((a, b) => Number(a === scoring) - Number(b === scoring));
  if (scoring.held !== text) {
    // What follows is always a batch of its own: how tokens are batched moves a
    // quantised model's log-probabilities by up to 0.4 nats.
    scoring.held = undefined;
    await scoring.sequence.clearHistory();
    await scoring.sequence.evaluateWithoutGeneratingNewTokens(tokens);
    scoring.held = text;
  }
  return scoring.sequence;
}

function normalised(logProbabilities: number[]): number[] {
  const max = Math.max(...logProbabilities);
  const total = max + Math.log(logProbabilities.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return logProbabilities.map((value) => value - total);
}

function average(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * log p of each continuation's tokens up to the one that tells it from every
 * other, in nats. Continuations that begin with different tokens cost one
 * evaluation together, instead of one each: three times as fast on six labels.
 */
async function scoreContinuations(
  scorer: LlamaContextSequence,
  prefix: Token[],
  continuations: Token[][],
): Promise<number[]> {
  const scores = continuations.map(() => 0);
  let start = 0;
  const visit = async (members: number[], path: Token[], depth: number): Promise<void> => {
    const branches = new Map<Token, number[]>();
    for (const member of members) {
      const token = continuations[member]?.[depth];
      if (token !== undefined) branches.set(token, [...(branches.get(token) ?? []), member]);
    }
    if (branches.size === 0) return;
    const logProbabilities = await nextLogProbabilities(scorer, path, [...branches.keys()]);
    if (depth === 0) start = scorer.nextTokenIndex;
    else await scorer.eraseContextTokenRanges([{ start, end: scorer.nextTokenIndex }]);
    for (const [token, branch] of branches) {
      for (const member of branch)
        scores[member] = (scores[member] as number) + (logProbabilities.get(token) as number);
      if (branch.length > 1) await visit(branch, depth === 0 ? [token] : [...path, token], depth + 1);
    }
  };
  await visit([...continuations.keys()], prefix, 0);
  return scores;
}

/** log p(token | what the scorer holds, path) of some tokens, in nats. */
async function nextLogProbabilities(
  scorer: LlamaContextSequence,
  path: Token[],
  tokens: Token[],
): Promise<Map<Token, number>> {
  const outputs = await scorer.controlledEvaluate([
    ...path.slice(0, -1),
    [
      path[path.length - 1] as Token,
      {
        generateNext: {
          // The whole vocabulary as a map would cost many times the evaluation itself.
          // includeTop, not includeMax: that one leaves the largest out when tokens are named.
          logits: { filter: { tokens, includeTop: 1 } },
          totalLogitWeight: true,
        },
      },
    ],
  ]);
  const next = outputs.at(-1)?.next;
  const { logits, totalLogitWeight } = next ?? {};
  if (logits === undefined || totalLogitWeight === undefined) throw new Error("the model gave no logits");
  const max = Math.max(...logits.values());
  return new Map(
    tokens.map((token) => [token, (logits.get(token) ?? Number.NEGATIVE_INFINITY) - max - Math.log(totalLogitWeight)]),
  );
}

function tooLong(id: number): ChildReply {
  return { id, kind: "too_long", message: `The prompt does not fit into ${options.contextTokens} tokens.` };
}
