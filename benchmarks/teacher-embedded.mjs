/**
 * Tokens a second of the embedded teacher, asked as a generation run asks it
 * (through its provider and child process, as many prompts at once as its
 * profile allows), against a bare node-llama-cpp loop and, where there is one,
 * llama.cpp's own server: the same prompts, sampling (greedy) and limits. Ends
 * with one JSON line, and with 1 unless nearly all texts are the same. Needs a
 * build and .venv.
 *
 * --rounds N: of each side, the median counts. --threads N. --model REFERENCE
 * instead of the default profile's. --small: few prompts, one round.
 */
import { fork } from "node:child_process";
import { availableParallelism, homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createLog } from "@tutelage/platform/log";
import { Gate } from "../services/teacher/dist/gate.js";
import { resolveModelFile } from "../services/teacher/dist/modelfile.js";
import { builtInProfiles } from "../services/teacher/dist/profile.js";
import { EmbeddedTeacher } from "../services/teacher/dist/providers/embedded.js";
import { venvPython } from "../tools/setup.mjs";
import { findLlamaServer, startLlamaServer } from "./teacher/llamaserver.mjs";
import { askedOf } from "./teacher/prompts.mjs";

/** Batches of other shapes move a quantised model's logits, and a greedy choice with them, in a few texts. */
const leastSameShare = 0.9;
/** The server's sampling is not quite ours; its speed counts where its replies are about as long. */
const mostLengthDifference = 0.25;
const never = new AbortController().signal;

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    small: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "0" },
    model: { type: "string" },
  },
});
const rounds = values.small ? 1 : Number(values.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds: give 1 or more");
const threads = Number(values.threads) || availableParallelism();
const builtIn = builtInProfiles.find(({ provider }) => provider === "embedded");
const profile = {
  ...builtIn,
  model: values.model ?? builtIn.model,
  threads,
  temperature: 0,
  ...(values.small ? { max_tokens: 8 } : {}),
};
const place = { home: process.env.TUTELAGE_HOME || join(homedir(), ".tutelage"), python: venvPython };
const { path: modelPath } = await resolveModelFile(profile.model, place.home, place.python);
const sampling = {
  temperature: profile.temperature,
  topP: profile.top_p,
  topK: profile.top_k,
  maxTokens: profile.max_tokens,
};
const asks = askedOf(values.small ? 12 : 64, sampling);
const runs = { modelPath, sequences: profile.max_concurrency, contextTokens: profile.context_tokens, threads };

const teacher = new EmbeddedTeacher(profile, place, createLog("bench", "fatal"));
const bare = await startBare();
const serverPath = findLlamaServer();
const skipped = serverPath === undefined ? "no llama-server: set LLAMA_SERVER, or put it on PATH" : undefined;
if (skipped !== undefined) say(`llama.cpp's server is left out: ${skipped}`);
const server = serverPath === undefined ? undefined : await startLlamaServer(serverPath, runs);
try {
  const sides = {
    ours: { answer: ourAnswer },
    bare: { answer: (questions) => bare.exchange({ kind: "answer", asks: questions }) },
    ...(server === undefined ? {} : { llama_server: server }),
  };
  const measured = await inTurns(sides);
  await report(measured);
} finally {
  await teacher.close();
  bare.stop();
  server?.stop();
}

/** As teacher/caller.ts asks: each call waits at the profile's gate for its turn. */
async function ourAnswer(questions) {
  const gate = new Gate(() => profile.max_concurrency);
  const began = performance.now();
  const texts = await Promise.all(
    questions.map((ask, index) =>
      gate.run(never, async () => (await teacher.ask(ask, { digest: "", seed: index }, never)).reply.text),
    ),
  );
  return { seconds: (performance.now() - began) / 1_000, texts };
}

async function inTurns(sides) {
  const measured = Object.fromEntries(Object.keys(sides).map((name) => [name, { speeds: [], texts: [] }]));
  for (let round = 0; round < rounds; round++) {
    const names = round % 2 === 0 ? Object.keys(sides) : Object.keys(sides).reverse();
    for (const name of names) {
      // Whoever was idle is warm again: the provider ends a child that nobody asks for a minute.
      await sides[name].answer(asks.slice(0, 1));
      const { seconds, texts } = await sides[name].answer(asks);
      const { counts } = await bare.exchange({ kind: "count", texts });
      const tokens = counts.reduce((sum, count) => sum + count, 0);
      measured[name].speeds.push(tokens / seconds);
      Object.assign(measured[name], { texts, tokens });
      say(`round ${round + 1} of ${rounds}, ${name}: ${(tokens / seconds).toFixed(1)} tokens/s`);
    }
  }
  return measured;
}

async function report({ ours, ...others }) {
  const { counts: promptCounts } = await bare.exchange({ kind: "count", texts: asks.map(({ prompt }) => prompt) });
  const shares = Object.fromEntries(Object.entries(others).map(([name, { texts }]) => [name, sameShare(texts)]));
  const isComparable = ({ tokens }) => Math.abs(tokens / ours.tokens - 1) <= mostLengthDifference;
  const compared = Object.entries(others).filter(([name, side]) => name === "bare" || isComparable(side));
  const [bestName, best] = compared.reduce((a, b) => (median(b[1].speeds) > median(a[1].speeds) ? b : a));
  const isSame = ours.tokens > 0 && shares.bare >= leastSameShare;
  const line = {
    benchmark: "teacher-embedded",
    unit: "tokens/s",
    ratio: round2(median(ours.speeds) / median(best.speeds)),
    ours: summary("ours", ours),
    theirs: summary(bestName, best),
    others: Object.entries(others).map(([name, side]) => ({
      ...summary(name, side),
      same_share: shares[name],
      compared: compared.some(([one]) => one === name),
    })),
    llama_server_skipped: skipped ?? null,
    same_result: isSame,
    same_share: shares.bare,
    differences: asks
      .map((_, index) => ({ prompt: index, ours: ours.texts[index], theirs: others.bare.texts[index] }))
      .filter((one) => one.ours !== one.theirs)
      .slice(0, 10),
    prompts: asks.length,
    prompts_at_once: profile.max_concurrency,
    prompt_tokens: promptCounts.reduce((sum, count) => sum + count, 0),
    threads,
    model: profile.model,
    rows_from: "examples/support-intents",
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  if (!isSame) {
    say(`teacher-embedded: the two sides gave the same text on ${shares.bare} of the prompts only`);
    process.exitCode = 1;
  }

  function sameShare(texts) {
    return round2(texts.filter((text, index) => text === ours.texts[index]).length / asks.length);
  }
}

function summary(name, { speeds, tokens }) {
  const low = round2(Math.min(...speeds));
  return {
    name,
    median: round2(median(speeds)),
    low,
    high: round2(Math.max(...speeds)),
    rounds: speeds.length,
    tokens,
  };
}

/** The bare loop in a process of its own, as ours has one. */
async function startBare() {
  const script = fileURLToPath(new URL("./teacher/bare.mjs", import.meta.url));
  const child = fork(script, [JSON.stringify(runs)], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const exited = new Promise((_, reject) => {
    child.once("exit", (code, signal) => reject(new Error(`The bare loop ended with ${code ?? signal}.`)));
  });
  exited.catch(() => {});
  const next = () => Promise.race([new Promise((resolve) => child.once("message", resolve)), exited]);
  await next();
  return {
    exchange: (message) => {
      const reply = next();
      child.send(message);
      return reply;
    },
    stop: () => child.kill("SIGKILL"),
  };
}

function median(speeds) {
  const sorted = speeds.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function round2(value) {
  return Number(value.toFixed(2));
}

/** Progress goes to standard error: standard output is the result. */
function say(text) {
  process.stderr.write(`${text}\n`);
}
