/** llama.cpp as it is used here: as its package brings it, on CPUs, and silent but for errors. */
import { getLlama, type Llama, LlamaLogLevel } from "node-llama-cpp";

export async function openLlama(maxThreads: number): Promise<Llama> {
  return await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    progressLogs: false,
    logLevel: LlamaLogLevel.error,
    maxThreads,
  });
}
