/** The small form of the benchmark of the embedded teacher; those of the student are in its own tests. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { writeTinyGguf } from "../support/tinygguf.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("both sides run, write the same texts and fill the line", { timeout: 300_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "tutelage-bench-"));
  try {
    const model = `file:${await writeTinyGguf(folder, 1_024)}`;
    const args = ["benchmarks/teacher-embedded.mjs", "--json", "--small", "--threads", "1", "--model", model];
    const env = { ...process.env, TUTELAGE_HOME: folder, PATH: "", LLAMA_SERVER: "" };
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env });
    const line = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
    expect(line).toMatchObject({
      benchmark: "teacher-embedded",
      unit: "tokens/s",
      ours: { name: "ours", rounds: 1, median: expect.any(Number) },
      theirs: { name: "bare", rounds: 1, median: expect.any(Number) },
      llama_server_skipped: expect.stringContaining("LLAMA_SERVER"),
      same_result: true,
      prompts: 12,
      prompts_at_once: 8,
      threads: 1,
      rows_from: "examples/support-intents",
    });
    expect(line.ours.tokens).toBeGreaterThan(0);
    expect(line.ratio).toBeGreaterThan(0);
    expect(line.same_share).toBeGreaterThanOrEqual(0.9);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
