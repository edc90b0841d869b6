import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { RunningService } from "@tutelage/platform/process";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Checkpoint, ExportForm } from "@tutelage/proto/student/v1/student";
import { Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { type ExportRun, StartExportRunRequest } from "@tutelage/proto/training/v1/training";
import { afterEach, beforeEach, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

const checkpoint = "artifacts/default/runs/t-1/2/checkpoint";
let home: string;
let url: string;
let student: TestStudent;
let service: RunningService;
let client: Client;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-exports-"));
  await mkdir(join(home, checkpoint), { recursive: true });
  url = await testDatabaseUrl();
  student = await startTestStudent();
  ({ service, client } = await startService(url, home, student));
});
afterEach(async () => {
  client.close();
  await service.stop();
  await student.stop();
  await rm(home, { recursive: true, force: true });
});

function request(changes: Partial<StartExportRunRequest> = {}): StartExportRunRequest {
  return StartExportRunRequest.fromPartial({
    projectId: "default",
    checkpoint: {
      uri: pathToFileURL(join(home, checkpoint)).href,
      sha256: "c".repeat(64),
      model: "file:/m",
    },
    form: ExportForm.MERGED,
    task: Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" }),
    rows: { uri: pathToFileURL(join(home, "artifacts/default/versions/rows.jsonl")).href, sha256: "a".repeat(64) },
    ...changes,
  });
}

async function untilFinal({ run }: ExportRun): Promise<ExportRun> {
  let last: ExportRun | undefined;
  for await (const now of client.watchExportRun({ projectId: "default", id: run?.id ?? "" })) last = now;
  return last as ExportRun;
}

test("a checkpoint is exported once in each form, beside the checkpoint and below the run's fence", async () => {
  const done = await untilFinal(await client.startExportRun(request()));
  expect(done.run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 1 });
  expect(done.exported?.uri).toBe(`file://${home}/artifacts/default/runs/t-1/2/exports/${done.run?.id}/1/export`);
  expect(student.exported[0]).toMatchObject({ form: ExportForm.MERGED, checkRows: 16, model: "file:/m", fence: 1 });

  const again = await client.startExportRun(request({ rows: { ...request().rows, sha256: "b".repeat(64) } as never }));
  expect(again.run?.id).toBe(done.run?.id);
  const adapter = await untilFinal(await client.startExportRun(request({ form: ExportForm.ADAPTER })));
  expect(adapter.run?.id).not.toBe(done.run?.id);
  expect(student.exported).toHaveLength(2);
  expect(await client.getExportRun({ projectId: "default", id: done.run?.id ?? "" })).toMatchObject({
    exported: { check: { passed: true } },
  });
});

test("a student that answers otherwise is not offered, and a later call tries again", async () => {
  const comparison = {
    reference: "adapter",
    compared: "merged",
    sameAnswers: 2,
    maxLogProbabilityDifference: 1.5,
    tolerance: 0.01,
    passed: false,
  };
  student.exportOf = () => ({ check: { passed: false, rows: 3, comparisons: [comparison] } });
  const failed = await untilFinal(await client.startExportRun(request()));
  expect(failed.run).toMatchObject({ status: RunStatus.FAILED, failure: { code: "export_check_failed" } });
  expect(failed.run?.failure?.message).toContain("merged against adapter: 2 of 3 answers the same");
  expect(failed.exported).toMatchObject({ uri: "", check: { comparisons: [comparison] } });

  student.exportOf = () => ({ check: { passed: true, rows: 3, comparisons: [] } });
  const second = await untilFinal(await client.startExportRun(request()));
  expect(second.run).toMatchObject({ status: RunStatus.SUCCEEDED });
  await rm(fileURLToPath(second.exported?.uri ?? ""), { recursive: true });
  const third = await untilFinal(await client.startExportRun(request()));
  expect(third.run?.id).not.toBe(second.run?.id);
  expect(existsSync(fileURLToPath(third.exported?.uri ?? ""))).toBe(true);
});

test("an export waits for the slot, survives its service, and can be cancelled", async () => {
  student.busy = true;
  const { run } = await client.startExportRun(request());
  const id = run?.id ?? "";
  const now = () => client.getExportRun({ projectId: "default", id });
  await until(async () => (await now()).run?.progress?.message.includes("another job holds it") ?? false);
  const held = gate();
  student.onStep = (_, signal) => held.pass(signal);
  student.busy = false;
  await until(async () => (await now()).run?.progress?.message === "writing");
  client.close();
  await service.stop();
  ({ service, client } = await startService(url, home, student));
  await until(() => student.exported.length >= 2 && student.exported.at(-1)?.fence !== student.exported[0]?.fence);
  held.open();
  const done = await untilFinal(await now());
  expect(done.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(done.exported?.uri).toContain(`/${id}/${done.run?.fence}/export`);

  const other = gate();
  student.onStep = (_, signal) => other.pass(signal);
  const second = await client.startExportRun(request({ form: ExportForm.ADAPTER }));
  await until(() => student.exported.at(-1)?.form === ExportForm.ADAPTER);
  const ended = student.nextEnd();
  await client.cancelExportRun({ projectId: "default", id: second.run?.id ?? "" });
  expect(await ended).toBe("cancelled");
  expect((await untilFinal(second)).run?.status).toBe(RunStatus.CANCELLED);
});

test.each<[string, Partial<StartExportRunRequest>, RegExp]>([
  ["no checkpoint", { checkpoint: undefined }, /^checkpoint: is missing/],
  [
    "one elsewhere",
    { checkpoint: Checkpoint.fromPartial({ uri: "file:///gone", model: "m" }) },
    /no checkpoint of this/,
  ],
  ["another project's", { projectId: "other" }, /^checkpoint.uri: .* is no checkpoint of this project/],
  ["no form", { form: ExportForm.UNSPECIFIED }, /^form: is missing/],
  ["the base beside merged weights", { includeBase: true }, /^include_base: is for an adapter/],
  ["no rows", { rows: undefined }, /^rows: must name/],
  ["no task", { task: undefined }, /^task/],
])("%s is refused and the field named", async (_, changes, message) => {
  await expect(client.startExportRun(request(changes))).rejects.toThrow(message);
  expect(student.exported).toHaveLength(0);
});

test("a checkpoint that is gone is refused", async () => {
  await rm(join(home, checkpoint), { recursive: true });
  await expect(client.startExportRun(request())).rejects.toThrow(/is not there/);
});

test("a probe is refused, for it holds nothing to load", async () => {
  await writeFile(join(home, checkpoint, "probe.safetensors"), "");
  await expect(client.startExportRun(request())).rejects.toMatchObject({
    reason: "probe_not_exportable",
    fields: [{ field: "checkpoint.uri" }],
  });
  expect(student.exported).toHaveLength(0);
});

test("another project sees no export", async () => {
  const { run } = await client.startExportRun(request());
  const other = { projectId: "other", id: run?.id ?? "" };
  await expect(client.getExportRun(other)).rejects.toMatchObject({ code: "not_found" });
  await expect(client.cancelExportRun(other)).rejects.toMatchObject({ code: "not_found" });
});
