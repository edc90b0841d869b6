/** The other side where it can be had: llama.cpp's own server. */
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { choosePorts } from "@tutelage/standalone/ports";
import { root } from "../../tools/children.mjs";

const startMs = 120_000;

/** The path of llama-server: LLAMA_SERVER, on PATH, or in a package or build of node-llama-cpp; else undefined. */
export function findLlamaServer() {
  const packages = join(root, "node_modules/@node-llama-cpp");
  const builds = join(root, "node_modules/node-llama-cpp/llama/localBuilds");
  const below = (folder) =>
    existsSync(folder)
      ? readdirSync(folder, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile() && entry.name === "llama-server")
          .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
      : [];
  const named = process.env.LLAMA_SERVER;
  if (named) return named;
  return [
    ...(process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "llama-server")),
    ...below(packages),
    ...below(builds),
  ].find(isExecutable);
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Starts it; gives what answers questions, and what ends it. */
export async function startLlamaServer(path, { modelPath, sequences, contextTokens, threads }) {
  const [port] = await choosePorts(1);
  const counts = { "--parallel": sequences, "--ctx-size": sequences * contextTokens, "--threads": threads };
  const args = ["--model", modelPath, "--host", "127.0.0.1", "--port", port, ...Object.entries(counts).flat()];
  const child = spawn(path, args.map(String), { stdio: "ignore" });
  let ended;
  child.once("error", (error) => {
    ended = error.message;
  });
  child.once("exit", (code, signal) => {
    ended ??= `exit code ${code ?? signal}`;
  });
  const url = `http://127.0.0.1:${port}`;
  const until = Date.now() + startMs;
  for (;;) {
    if (ended !== undefined || Date.now() > until) {
      child.kill("SIGKILL");
      throw new Error(`${path} did not start: ${ended ?? `not ready after ${startMs} ms`}`);
    }
    const ready = await fetch(`${url}/health`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (ready) break;
    await sleep(100);
  }
  return { answer: (asks) => answer(url, asks, sequences), stop: () => child.kill("SIGTERM") };
}

async function answer(url, asks, sequences) {
  const texts = [];
  let next = 0;
  const began = performance.now();
  await Promise.all(
    Array.from({ length: sequences }, async () => {
      while (next < asks.length) {
        const place = next++;
        texts[place] = await complete(url, asks[place], place);
      }
    }),
  );
  return { seconds: (performance.now() - began) / 1_000, texts };
}

async function complete(url, { prompt, stop, sampling }, seed) {
  const { maxTokens, temperature, topP, topK } = sampling;
  const body = {
    prompt,
    stop,
    n_predict: maxTokens,
    temperature,
    top_p: topP,
    top_k: topK,
    seed,
    // node-llama-cpp's own, which ours has too; the server counts the prompt's tokens in, so some texts differ.
    repeat_penalty: 1.1,
    repeat_last_n: 64,
  };
  const response = await fetch(`${url}/completion`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`llama-server answered ${response.status}: ${await response.text()}`);
  return (await response.json()).content;
}
