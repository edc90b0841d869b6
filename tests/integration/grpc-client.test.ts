/** examples/grpc-client as it stands, against a whole stack; and what its README says of reflection. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterAll, beforeAll, expect, test } from "vitest";
import { labelOf, task } from "../support/tinytask.js";
import { type CampaignFixture, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

const client = fileURLToPath(new URL("../../examples/grpc-client/client.mjs", import.meta.url));
let fixture: CampaignFixture;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  fixture.teacher.options = { labelOf };
  await writeFile(join(fixture.home, "rows.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await writeFile(join(fixture.home, "task.json"), JSON.stringify(task));
}, slow);
afterAll(() => fixture?.stop(), slow);

async function run(...more: string[]) {
  const { datasets, campaigns } = fixture.stack.addresses;
  const settings = {
    iterations: quick.iterations,
    folds: quick.folds,
    rowsPerSeedRow: quick.rows_per_seed_row,
    attemptsPerRow: quick.attempts_per_row,
    checkTeacher: "SWITCH_OFF",
  };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [
    client,
    ...["--datasets", datasets, "--campaigns", campaigns, "--student", "tiny", "--teacher", "scripted"],
    ...["--rows", join(fixture.home, "rows.jsonl"), "--task", join(fixture.home, "task.json")],
    ...["--settings", JSON.stringify(settings), "--key", "over-grpc", ...more],
  ]);
  return { stderr, result: JSON.parse(stdout.trim().split("\n").at(-1) ?? "") };
}

test(
  "the example goes from a file to iterations, and a second run finds the same campaign",
  async () => {
    const first = await run();
    expect(first.result).toMatchObject({ status: "RUN_STATUS_SUCCEEDED", summary: expect.any(String) });
    expect(first.result.iterations.map((one: { number: number }) => one.number)).toEqual([0, 1, 2]);
    expect(first.stderr).toContain(`${rows.length} rows are version`);
    const sequences = [...first.stderr.matchAll(/^(\d+) [a-z]+\.[a-z]+ \{/gm)].map(([, sequence]) => Number(sequence));
    expect(sequences).toEqual(sequences.map((_, index) => index + 1));
    expect(sequences.length).toBeGreaterThan(5);
    const calls = fixture.teacher.calls.length;
    const again = await run();
    expect(again.result).toEqual(first.result);
    expect(fixture.teacher.calls).toHaveLength(calls);
  },
  slow,
);

test("another request under the same key, or a file that is not there, ends it with the reason", async () => {
  await expect(run("--student", "giant")).rejects.toThrow(/ALREADY_EXISTS.*over-grpc/s);
  await expect(run("--rows", join(fixture.home, "none.jsonl"))).rejects.toThrow(/ENOENT/);
});

test("servers describe themselves by reflection, the newest calls included", async () => {
  const { grpc: packages } = grpc.loadPackageDefinition(
    loadSync(fileURLToPath(new URL("../support/reflection.proto", import.meta.url))),
  ) as never as {
    grpc: { reflection: { v1: { ServerReflection: new (...args: unknown[]) => ReflectionClient } } };
  };
  const reflection = new packages.reflection.v1.ServerReflection(
    fixture.stack.addresses.campaigns,
    grpc.credentials.createInsecure(),
  );
  const stream = reflection.ServerReflectionInfo();
  try {
    const answered = new Promise<{ fileDescriptorResponse: { fileDescriptorProto: Buffer[] } }>((resolve, reject) => {
      stream.once("data", resolve);
      stream.once("error", reject);
    });
    stream.write({ fileContainingSymbol: "tutelage.campaigns.v1.CampaignsService" });
    const files = Buffer.concat((await answered).fileDescriptorResponse.fileDescriptorProto).toString("latin1");
    for (const name of ["StartCampaign", "UpdateCampaign", "ListLedger"]) expect(files).toContain(name);
  } finally {
    stream.end();
    reflection.close();
  }
});

interface ReflectionClient {
  ServerReflectionInfo(): grpc.ClientDuplexStream<object, never>;
  close(): void;
}
