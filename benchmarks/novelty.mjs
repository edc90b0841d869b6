/**
 * Novelty against 10,000 rows: our exact greatest ROUGE-L F beside Google's
 * rouge-score, the same comparisons on the same texts, both from plain strings
 * and on one thread; ours pays for its index in every round. Ends with one JSON
 * line. Needs a build and .venv.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { RougeIndex, rougeLF, tokenize } from "../services/platform/dist/rouge.js";

const rowCount = 10_000;
const textCount = 20;
const rounds = 3;

const python = `
import json, sys, time
from rouge_score import rouge_scorer
from rouge_score.rouge_scorer import _score_lcs
from rouge_score.tokenizers import DefaultTokenizer
job = json.load(sys.stdin)
scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
def plain():
    return [max(scorer.score(row, text)["rougeL"].fmeasure for row in job["rows"]) for text in job["texts"]]
def tokenized():
    tokenize = DefaultTokenizer(False).tokenize
    rows = [tokenize(row) for row in job["rows"]]
    return [max(_score_lcs(row, text).fmeasure for row in rows) for text in map(tokenize, job["texts"])]
answer = {}
# The second only shows that tokenizing is not what costs; once is enough.
for name, measure, rounds in (("plain", plain, job["rounds"]), ("tokenized", tokenized, 1)):
    answer[name] = []
    for _ in range(rounds):
        start = time.perf_counter()
        answer["novelty"] = measure()
        answer[name].append(time.perf_counter() - start)
print(json.dumps(answer))
`;

const asJson = process.argv.includes("--json");
const { rows, texts } = makeTexts(1);

const ours = [];
const searches = [];
let novelty = [];
for (let round = 0; round < rounds; round++) {
  const start = performance.now();
  const index = new RougeIndex();
  for (const row of rows) index.add(tokenize(row));
  const indexed = performance.now();
  novelty = texts.map((text) => {
    const tokens = tokenize(text);
    const { lcs, length } = index.nearest(tokens);
    return rougeLF(lcs, tokens.length, length);
  });
  ours.push((performance.now() - start) / 1_000);
  searches.push((performance.now() - indexed) / 1_000);
}

const theirs = JSON.parse(
  execFileSync(fileURLToPath(new URL("../.venv/bin/python", import.meta.url)), ["-c", python], {
    input: JSON.stringify({ rows, texts, rounds }),
    maxBuffer: 64 * 1024 * 1024,
    stdio: ["pipe", "pipe", "inherit"],
  }).toString(),
);
const maxDifference = Math.max(...novelty.map((value, index) => Math.abs(value - theirs.novelty[index])));
if (maxDifference > 1e-12) throw new Error(`The two sides differ by ${maxDifference}.`);

const result = {
  benchmark: "novelty",
  rows: rowCount,
  texts: textCount,
  comparisons: rowCount * textCount,
  mean_tokens: round(rows.reduce((sum, row) => sum + tokenize(row).length, 0) / rowCount, 1),
  tutelage_seconds: round(median(ours), 4),
  tutelage_search_seconds: round(median(searches), 4),
  rouge_score_seconds: round(median(theirs.plain), 3),
  rouge_score_tokenized_once_seconds: round(median(theirs.tokenized), 3),
  // With our index built anew; then searching an index that is there, as later calls for a version do.
  ratio: round(median(theirs.plain) / median(ours), 1),
  ratio_search_only: round(median(theirs.plain) / median(searches), 1),
  ratio_tokenized_once: round(median(theirs.tokenized) / median(ours), 1),
  max_difference: maxDifference,
};
if (!asJson) {
  process.stdout.write(
    `${result.comparisons} comparisons: rouge-score ${result.rouge_score_seconds} s, ours ${result.tutelage_seconds} s, ${result.ratio} times as fast\n`,
  );
}
process.stdout.write(`${JSON.stringify(result)}\n`);

/** Support questions of 6 to 30 words: common words are common, and texts resemble rows as a teacher's do. */
function makeTexts(seed) {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
  const vocabulary = Array.from({ length: 5_000 }, (_, index) => `word${index}`);
  // Zipf's law: the rank of a word is exponential in a uniform number.
  const word = () => vocabulary[Math.floor(vocabulary.length ** random()) - 1];
  const made = Array.from({ length: rowCount }, () =>
    Array.from({ length: 6 + Math.floor(random() * 25) }, word).join(" "),
  );
  const near = Array.from({ length: textCount }, () =>
    made[Math.floor(random() * rowCount)]
      .split(" ")
      .map((old) => (random() < 0.4 ? word() : old))
      .join(" "),
  );
  return { rows: made, texts: near };
}

function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function round(value, digits) {
  return Number(value.toFixed(digits));
}
