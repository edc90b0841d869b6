/**
 * The other side: node-llama-cpp as its documentation shows it. As many
 * sequences as ours answers at once, each continues one prompt after another;
 * the library batches what they ask at the same time. Forked by
 * teacher-embedded.mjs; speaks over IPC.
 */
import { getLlama, LlamaCompletion, LlamaLogLevel } from "node-llama-cpp";

const { modelPath, sequences, contextTokens, threads } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit(0));

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
  maxThreads: threads,
});
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({ sequences, contextSize: contextTokens, batchSize: contextTokens, threads });
const completions = Array.from(
  { length: sequences },
  () => new LlamaCompletion({ contextSequence: context.getSequence() }),
);

process.on("message", async (message) => {
  process.send(message.kind === "answer" ? await answer(message.asks) : count(message.texts));
});
process.send({ kind: "ready" });

async function answer(asks) {
  const texts = [];
  let next = 0;
  const began = performance.now();
  await Promise.all(
    completions.map(async (completion) => {
      while (next < asks.length) {
        const place = next++;
        const { prompt, stop, sampling } = asks[place];
        const { maxTokens, temperature, topP, topK } = sampling;
        texts[place] = await completion.generateCompletion(prompt, {
          maxTokens,
          temperature,
          topP,
          topK,
          seed: place,
          customStopTriggers: stop,
        });
      }
    }),
  );
  return { seconds: (performance.now() - began) / 1_000, texts };
}

/** Tokens of texts: counted once and here, so that it is the same count for every side. */
function count(texts) {
  return { counts: texts.map((text) => model.tokenize(text).length) };
}
