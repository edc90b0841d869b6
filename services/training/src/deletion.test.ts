/** Deleting training runs on the real wire; what is left is counted in the tables and on the disk. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunningService } from "@tutelage/platform/process";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { RowSource, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import {
  DeleteTrainingRunsRequest,
  StartTrainingRunRequest,
  type TrainingRun,
} from "@tutelage/proto/training/v1/training";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

let home: string;
let admin: pg.Client;
let student: TestStudent;
let service: RunningService;
let client: Client;
const projectId = "default";

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-training-"));
  const url = await testDatabaseUrl();
  student = await startTestStudent();
  ({ service, client } = await startService(url, home, student));
  admin = new pg.Client({ connectionString: url });
  await admin.connect();
});
afterAll(async () => {
  client?.close();
  await service?.stop();
  await student?.stop();
  await admin?.end();
  await rm(home, { recursive: true, force: true });
});
beforeEach(() => {
  student.onStep = async () => {};
});

const folder = (id: string) => join(home, "artifacts", projectId, "runs", id);

/** A run that is done, with files of the two attempts that it took. */
async function trained(key: string): Promise<string> {
  const run = await begin(key);
  const id = run.run?.id ?? "";
  for await (const _ of client.watchTrainingRun({ projectId, id })) {
    // Until it is final.
  }
  for (const fence of ["1", "2"]) {
    await mkdir(join(folder(id), fence, "checkpoint"), { recursive: true });
    await writeFile(join(folder(id), fence, "checkpoint", "adapter.safetensors"), "0123456789");
  }
  return id;
}

const begin = (key: string): Promise<TrainingRun> =>
  client.startTrainingRun(
    StartTrainingRunRequest.fromPartial({
      projectId,
      idempotencyKey: key,
      studentProfile: "smollm2-135m",
      rows: RowSource.fromPartial({ uri: "file:///rows.jsonl", sha256: "a".repeat(64) }),
      task: Task.fromPartial({ name: "t", kind: TaskKind.TEXT, promptTemplate: "Q: {input}\nA:" }),
    }),
  );
const remove = (keyPrefix: string, more: Partial<DeleteTrainingRunsRequest> = {}) =>
  client.deleteTrainingRuns(DeleteTrainingRunsRequest.fromPartial({ projectId, keyPrefix, ...more }));
const left = async () => ({
  ...(
    await admin.query(`select (select count(*)::int from training.runs) as runs,
      (select count(*)::int from training.training_steps) as steps`)
  ).rows[0],
  folders: (await readdir(join(home, "artifacts", projectId, "runs")).catch(() => [])).length,
});

test("the runs of a prefix go with steps and files, the others stay; a second call finds nothing", async () => {
  const before = await left();
  await trained("c1/train");
  await trained("c1/iteration/0/train");
  const other = await trained("c10/train");
  expect(await remove("c1/")).toEqual({ counts: { training_runs: 2, training_steps: 6 }, artifactBytes: 40 });
  expect(await left()).toEqual({ runs: before.runs + 1, steps: before.steps + 3, folders: before.folders + 1 });
  expect((await client.getTrainingRun({ projectId, id: other })).run?.status).toBe(RunStatus.SUCCEEDED);
  expect(await remove("c1/")).toEqual({ counts: {}, artifactBytes: 0 });
  expect(await remove("c10/", { projectId: "other" })).toEqual({ counts: {}, artifactBytes: 0 });
  await remove("c10/");
  expect(await left()).toEqual(before);
});

test("exports of a run's checkpoint go with it, those of others stay", async () => {
  const [mine, other] = [await trained("c7/train"), await trained("c70/train")];
  for (const id of [mine, other]) {
    const { checkpoint } = await client.getTrainingRun({ projectId, id });
    await admin.query(
      "insert into exports.runs (project_id, idempotency_key, request, request_sha256) values ($1, $2, $3, '')",
      [projectId, id, { checkpoint }],
    );
  }
  expect((await remove("c7/")).counts).toMatchObject({ training_runs: 1, export_runs: 1 });
  expect((await remove("c70/")).counts).toMatchObject({ training_runs: 1, export_runs: 1 });
});

test("a run that is at work and one that waits are stopped first", async () => {
  const before = await left();
  const { pass } = gate();
  student.onStep = (_, signal) => pass(signal);
  const { run } = await begin("c2/train");
  await begin("c2/later");
  await until(
    async () => (await client.getTrainingRun({ projectId, id: run?.id ?? "" })).run?.status === "RUN_STATUS_RUNNING",
  );
  const ended = student.nextEnd();
  // As a student does that was just saving: its files come seconds after it was told to stop.
  const saved = ended.then(async () => {
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    await mkdir(join(folder(run?.id ?? ""), "1"), { recursive: true });
    await writeFile(join(folder(run?.id ?? ""), "1", "late.safetensors"), "0123456789");
  });
  expect(await remove("c2/")).toMatchObject({ counts: { training_runs: 2 }, artifactBytes: 10 });
  await saved;
  expect(await ended).toBe("cancelled");
  expect(await left()).toEqual(before);
});

test("a deletion that died leaves nothing to be seen, and the next call goes on; its keys are taken until then", async () => {
  const before = await left();
  const id = await trained("c3/train");
  // As far as a call comes that dies after it hid the run and removed a part of its files.
  await admin.query("update training.runs set deleting_at = now() where id = $1", [id]);
  await rm(join(folder(id), "1"), { recursive: true });
  await expect(client.getTrainingRun({ projectId, id })).rejects.toMatchObject({ code: "not_found" });
  await expect(begin("c3/train")).rejects.toMatchObject({ code: "aborted", reason: "run_being_deleted" });
  expect(await remove("c3/")).toEqual({ counts: { training_runs: 1, training_steps: 3 }, artifactBytes: 10 });
  expect(await left()).toEqual(before);
});

test("checkpoints alone may go: named ones stay, the runs say what happened, and once is enough", async () => {
  const [kept, gone] = [await trained("c4/a"), await trained("c4/b")];
  const checkpoints = () => remove("c4/", { checkpointsOnly: true, keepRunIds: [kept] });
  expect(await checkpoints()).toEqual({ counts: { checkpoints: 1 }, artifactBytes: 20 });
  expect([existsSync(folder(kept)), existsSync(folder(gone))]).toEqual([true, false]);
  const view = await client.getTrainingRun({ projectId, id: gone });
  expect(view).toMatchObject({
    checkpointRemoved: true,
    checkpoint: { sha256: "c".repeat(64) },
    lastStep: { step: 3 },
  });
  expect((await client.getTrainingRun({ projectId, id: kept })).checkpointRemoved).toBe(false);
  expect(await checkpoints()).toEqual({ counts: {}, artifactBytes: 0 });
  await remove("c4/");
});

test.each([
  [{ keyPrefix: "" }, "key_prefix"],
  [{ keyPrefix: "", checkpointsOnly: true }, "key_prefix"],
  [{ keyPrefix: "c/", keepRunIds: ["x"] }, "keep_run_ids"],
  [{ keyPrefix: "c/", projectId: "../x" }, "project_id"],
])("%j is refused", async (wrong, field) => {
  await expect(remove("c/", wrong)).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field }] });
});
