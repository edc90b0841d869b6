import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LlamaContext, LlamaModel } from "node-llama-cpp";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeTinyGguf } from "../../../../tests/support/tinygguf.js";
import { CompletionBatch, type CompletionRequest } from "./completionbatch.js";
import { openLlama } from "./llama.js";

/** Sequences of a batch. */
const sequences = 4;

let folder: string;
let model: LlamaModel;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-completions-"));
  const modelPath = await writeTinyGguf(folder);
  const llama = await openLlama(1);
  model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  // Python loads its libraries for it: a second, and minutes where every core is taken.
}, 300_000);

afterAll(async () => {
  await model?.dispose();
  await rm(folder, { recursive: true, force: true });
});

/** A context that notes of each batch how many sequences are in it. */
async function countedContext(): Promise<{ context: LlamaContext; batches: number[] }> {
  const batches: number[] = [];
  const context = await model.createContext({
    sequences: sequences + 1,
    contextSize: 256,
    batchSize: 512,
    threads: 1,
    batching: {
      itemPrioritizationStrategy: ({ items }) => {
        batches.push(items.length);
        return items.map((item) => ({ item, processAmount: item.tokens.length }));
      },
    },
  });
  return { context, batches };
}

function request(text: string, changes: Partial<CompletionRequest> = {}): CompletionRequest {
  return {
    prompt: model.tokenize(text),
    stop: [],
    maxTokens: 8,
    temperature: 0.8,
    topP: 0.95,
    topK: 64,
    seed: 1,
    ...changes,
  };
}

const never = new AbortController().signal;

test("a prompt begins as soon as another has ended, while the rest go on", async () => {
  const { context, batches } = await countedContext();
  const batch = new CompletionBatch(context, sequences);
  // Of unequal lengths, so that they end one by one.
  const work = Array.from({ length: 12 }, (_, index) =>
    request(`where is the tall tower ${index}`, { maxTokens: 3 + (index % 4) * 3, seed: index }),
  );
  const done = await Promise.all(work.map((one) => batch.complete(one, never)));
  const drawn = done.reduce((sum, one) => sum + one.completionTokens, 0);
  expect(done.map(({ finish }) => finish)).toContain("length");
  // Full from the first to the last start: only the end may be ragged.
  const lastFull = batches.lastIndexOf(sequences);
  expect(batches.slice(0, lastFull + 1).every((size) => size === sequences)).toBe(true);
  expect(lastFull).toBeGreaterThan(10);
  expect(batches.reduce((a, b) => a + b, 0)).toBeGreaterThanOrEqual(drawn);
  await context.dispose();
});

test("the same seeds give the same texts, whoever wrote on the sequences before", async () => {
  const { context } = await countedContext();
  const batch = new CompletionBatch(context, sequences);
  const work = Array.from({ length: 6 }, (_, index) => request(`the film was ${index}`, { seed: 40 + index }));
  const ask = () => Promise.all(work.map((one) => batch.complete(one, never)));
  const first = await ask();
  await batch.complete(request("who wrote the long novel", { maxTokens: 20 }), never);
  expect(await ask()).toEqual(first);
  const others = await Promise.all(work.map((one) => batch.complete({ ...one, seed: one.seed + 100 }, never)));
  expect(others).not.toEqual(first);
  await context.dispose();
});

test("a stop text ends a reply and is not part of it; an aborted one makes room", async () => {
  const { context } = await countedContext();
  const batch = new CompletionBatch(context, 1);
  const whole = await batch.complete(request("Text: the film", { maxTokens: 30 }), never);
  expect(whole).toMatchObject({ finish: "length", completionTokens: 30 });
  const stop = whole.text.slice(4, 7);
  const cut = await batch.complete(request("Text: the film", { maxTokens: 30, stop: [stop, "no such text"] }), never);
  expect(cut).toMatchObject({ finish: "stop", text: whole.text.slice(0, whole.text.indexOf(stop)) });
  expect(cut.completionTokens).toBeLessThan(30);

  const controller = new AbortController();
  const aborted = batch.complete(request("Text: the film", { maxTokens: 200 }), controller.signal);
  const waiting = batch.complete(request("Text: the film", { maxTokens: 200 }), controller.signal);
  const after = batch.complete(request("Text: the film", { maxTokens: 30 }), never);
  setTimeout(() => controller.abort(new Error("enough")), 20);
  await expect(aborted).rejects.toThrow("enough");
  await expect(waiting).rejects.toThrow("enough");
  expect(await after).toEqual(whole);
  await context.dispose();
});
