/** Deleting evaluation runs on the real wire; what is left is counted in the tables. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import type { RunningService } from "@tutelage/platform/process";
import { rowToLine } from "@tutelage/platform/rowfile";
import { StartEvaluationRunRequest } from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Row, RowSource, Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

let home: string;
let admin: pg.Client;
let student: TestStudent;
let service: RunningService;
let client: Client;
let rows: RowSource;
const projectId = "default";

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-evaluation-"));
  const url = await testDatabaseUrl();
  student = await startTestStudent();
  ({ service, client } = await startService(url, home, student));
  admin = new pg.Client({ connectionString: url });
  await admin.connect();
  const lines = Array.from({ length: 5 }, (_, index) =>
    rowToLine(Row.fromPartial({ id: `r${index}`, input: `text ${index}`, output: "good", split: Split.TEST })),
  );
  rows = RowSource.fromPartial(await new FileArtifactStore(join(home, "artifacts")).put("default/v.jsonl", lines));
});
afterAll(async () => {
  client?.close();
  await service?.stop();
  await student?.stop();
  await admin?.end();
  await rm(home, { recursive: true, force: true });
});

const begin = async (key: string): Promise<string> => {
  const task = Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "{input} =>" });
  const request = { projectId, idempotencyKey: key, model: "file:/m", rows, task };
  return (await client.startEvaluationRun(StartEvaluationRunRequest.fromPartial(request))).run?.id ?? "";
};
const statusOf = async (id: string) => (await client.getEvaluationRun({ projectId, id })).run?.status;
const left = async () =>
  (
    await admin.query(`select (select count(*)::int from evaluation.runs) as runs,
      (select count(*)::int from evaluation.predictions) as predictions`)
  ).rows[0];

test("the runs of a prefix go with their predictions, at work or done, and the others stay", async () => {
  const [done, other] = [await begin("c1/test"), await begin("c2/test")];
  await until(
    async () => (await statusOf(done)) === RunStatus.SUCCEEDED && (await statusOf(other)) === RunStatus.SUCCEEDED,
  );
  student.onStep = (_, signal) => gate().pass(signal);
  const atWork = await begin("c1/dev");
  await until(async () => (await statusOf(atWork)) === RunStatus.RUNNING);
  const removed = await client.deleteEvaluationRuns({ projectId, keyPrefix: "c1/" });
  expect(removed).toEqual({ counts: { evaluation_runs: 2, predictions: 5 }, artifactBytes: 0 });
  await expect(statusOf(done)).rejects.toMatchObject({ code: "not_found" });
  expect(await left()).toEqual({ runs: 1, predictions: 5 });
  // One that was hidden by a call that died is found by the next, and by nothing else.
  await admin.query("update evaluation.runs set deleting_at = now()");
  await expect(statusOf(other)).rejects.toMatchObject({ code: "not_found" });
  await client.deleteEvaluationRuns({ projectId, keyPrefix: "c2/" });
  expect(await left()).toEqual({ runs: 0, predictions: 0 });
  await expect(client.deleteEvaluationRuns({ projectId, keyPrefix: "" })).rejects.toMatchObject({
    fields: [{ field: "key_prefix" }],
  });
});
