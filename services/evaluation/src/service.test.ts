import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileArtifactStore } from "@tutelage/platform/artifacts";
import { type Database, openDatabase } from "@tutelage/platform/database";
import { TutelageError } from "@tutelage/platform/errors";
import { createLog } from "@tutelage/platform/log";
import type { RunningService } from "@tutelage/platform/process";
import { rowToLine } from "@tutelage/platform/rowfile";
import {
  type EvaluationRun,
  type GradedPrediction,
  PredictRequest,
  StartEvaluationRunRequest,
} from "@tutelage/proto/evaluation/v1/evaluation";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { Row, RowSource, Split, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTestStudent, type TestStudent } from "../../../tests/support/teststudent.js";
import { gate, until } from "../../../tests/support/waiting.js";
import { type Client, startService } from "./service.fixture.js";

let home: string;
let url: string;
let database: Database;
let artifacts: FileArtifactStore;
let student: TestStudent;
let service: RunningService;
let client: Client;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "tutelage-evaluation-"));
  artifacts = new FileArtifactStore(join(home, "artifacts"));
  url = await testDatabaseUrl();
  database = await openDatabase({ url, schema: "evaluation", log: createLog("test", "fatal"), hasRuns: true });
});
afterAll(async () => {
  await database.close();
  await rm(home, { recursive: true, force: true });
});
beforeEach(async () => {
  student = await startTestStudent();
  ({ service, client } = await startService(url, home, student));
});
afterEach(async () => {
  client.close();
  await service.stop();
  await student.stop();
  await database.pool.query("truncate runs cascade");
});

const sentiment = Task.fromPartial({
  name: "sentiment",
  kind: TaskKind.CLASSIFICATION,
  promptTemplate: "{input} =>",
  labels: [{ name: "good" }, { name: "bad" }],
});

/** Publishes rows as datasets does: even ones are good, odd ones bad. */
async function publish(count: number): Promise<RowSource> {
  const rows = Array.from({ length: count }, (_, index) =>
    Row.fromPartial({
      id: `r${index}`,
      input: `text ${index}`,
      output: index % 2 === 0 ? "good" : "bad",
      split: Split.TEST,
    }),
  );
  const { uri, sha256 } = await artifacts.put(`default/versions/${count}.jsonl`, rows.map(rowToLine));
  return RowSource.fromPartial({ uri, sha256 });
}

function request(rows: RowSource, changes: Partial<StartEvaluationRunRequest> = {}): StartEvaluationRunRequest {
  return StartEvaluationRunRequest.fromPartial({
    projectId: "default",
    model: "file:/m",
    rows,
    task: sentiment,
    ...changes,
  });
}

/** Answers as somebody else gave them: "good" to the first rows. */
async function answers(count: number): Promise<RowSource> {
  const rows = Array.from({ length: count }, (_, index) => Row.fromPartial({ id: `r${index}`, output: "good" }));
  const { uri, sha256 } = await artifacts.put(`default/answers/${count}.jsonl`, rows.map(rowToLine));
  return RowSource.fromPartial({ uri, sha256 });
}

const idOf = (run: EvaluationRun) => run.run?.id ?? "";

async function untilFinal(id: string): Promise<EvaluationRun> {
  let last: EvaluationRun | undefined;
  for await (const run of client.watchEvaluationRun({ projectId: "default", id })) last = run;
  return last as EvaluationRun;
}

async function predictionsOf(id: string, wrongOnly = false) {
  const batches: GradedPrediction[][] = [];
  for await (const { predictions } of client.listPredictions({ projectId: "default", id, wrongOnly })) {
    batches.push(predictions);
  }
  return batches;
}

test("every prediction is graded against its row and kept in the rows' order, with metrics", async () => {
  student.answer = (rowId) => ({
    text: rowId === "r3" ? "good" : rowId === "r4" ? "no idea" : Number(rowId.slice(1)) % 2 === 0 ? " Good." : "bad",
    labelScores: [
      { label: "good", logProbability: -0.1 },
      { label: "bad", logProbability: Number.NEGATIVE_INFINITY },
    ],
    tooLong: rowId === "r5",
  });
  const last = await untilFinal(idOf(await client.startEvaluationRun(request(await publish(7)))));
  expect(last.run).toMatchObject({ status: RunStatus.SUCCEEDED, progress: { done: 7, total: 7, unit: "rows" } });
  expect(last.predictSeconds).toBeGreaterThan(0);
  expect(last.metrics).toMatchObject({
    accuracy: { successes: 4, n: 7, value: 4 / 7 },
    labels: [
      { label: "good", support: 4, precision: 3 / 4, recall: 3 / 4 },
      { label: "bad", support: 3, precision: 1, recall: 1 / 3 },
    ],
    unreadableRows: 1,
    tooLongRows: 1,
  });
  const [predictions] = await predictionsOf(idOf(last));
  expect(predictions?.map(({ rowId, answer, correct }) => [rowId, answer, correct])).toEqual([
    ["r0", "good", true],
    ["r1", "bad", true],
    ["r2", "good", true],
    ["r3", "good", false],
    ["r4", "", false],
    ["r5", "", false],
    ["r6", "good", true],
  ]);
  expect(predictions?.[0]).toMatchObject({ text: " Good.", expected: "good", logProbability: -0.5, tooLong: false });
  expect(predictions?.[0]?.labelScores.map(({ label }) => label)).toEqual(["good", "bad"]);
  const [wrong] = await predictionsOf(idOf(last), true);
  expect(wrong?.map(({ rowId }) => rowId)).toEqual(["r3", "r4", "r5"]);
});

test("a number that two readings grade differently is kept as disputed", async () => {
  const rows = ["#### 18", "#### 7"].map((output, index) => Row.fromPartial({ id: `m${index}`, input: "?", output }));
  const { uri, sha256 } = await artifacts.put("default/versions/numbers.jsonl", rows.map(rowToLine));
  student.answer = () => ({ text: "The answer is 18, and 2 are left." });
  const task = Task.fromPartial({ kind: TaskKind.MATH, promptTemplate: "{input}" });
  const asked = request(RowSource.fromPartial({ uri, sha256 }), { task });
  const last = await untilFinal(idOf(await client.startEvaluationRun(asked)));
  expect(last.metrics).toMatchObject({ accuracy: { successes: 1, n: 2 }, disputedRows: 1 });
  expect((await predictionsOf(idOf(last))).flat()).toMatchObject([
    { answer: "18", correct: true, disputed: true },
    { answer: "18", correct: false, disputed: false },
  ]);
});

test("thousands of predictions come in batches, in order", async () => {
  student.answer = () => ({ text: "good" });
  const id = idOf(await client.startEvaluationRun(request(await publish(2_345))));
  await untilFinal(id);
  const batches = await predictionsOf(id);
  expect(batches.length).toBeGreaterThan(1);
  expect(batches.flat().map(({ rowId }) => rowId)).toEqual(Array.from({ length: 2_345 }, (_, index) => `r${index}`));
  expect((await predictionsOf(id, true)).flat()).toHaveLength(1_172);
});

test("an answer with a NUL, which Postgres cannot hold, costs its NUL and not the run", async () => {
  student.answer = () => ({ text: "go\0od" });
  const id = idOf(await client.startEvaluationRun(request(await publish(2))));
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.SUCCEEDED);
  expect((await predictionsOf(id)).flat()[0]).toMatchObject({ text: "go\uFFFDod", answer: "" });
});

test("only the selected rows are expected back", async () => {
  const rows = await publish(6);
  student.answer = (rowId) => ({ text: rowId });
  // The test student reads the whole artifact, a real one only the selection: this must not pass for a result.
  const failed = await untilFinal(idOf(await client.startEvaluationRun(request({ ...rows, rowIds: ["r1", "r2"] }))));
  expect(failed.run?.failure?.code).toBe("predictions_mismatch");
  const empty = await untilFinal(idOf(await client.startEvaluationRun(request({ ...rows, split: Split.DEV }))));
  expect(empty.run?.failure?.code).toBe("rows_empty");
});

test("an artifact that was changed is not evaluated on", async () => {
  const rows = await publish(6);
  const run = await client.startEvaluationRun(request({ ...rows, sha256: "0".repeat(64) }));
  expect((await untilFinal(idOf(run))).run?.failure?.code).toBe("artifact_digest_mismatch");
  expect(student.predicted).toHaveLength(0);
});

test("labels are scored for a classification and text is generated for math, unless the request says otherwise", async () => {
  const rows = await publish(2);
  const math = Task.fromPartial({ kind: TaskKind.MATH, promptTemplate: "{input}" });
  await untilFinal(idOf(await client.startEvaluationRun(request(rows))));
  await untilFinal(idOf(await client.startEvaluationRun(request(rows, { task: math }))));
  await untilFinal(idOf(await client.startEvaluationRun(request(rows, { task: { ...math, maxAnswerTokens: 50 } }))));
  expect(student.predicted.map(({ decoding }) => [decoding?.scoreLabels, decoding?.maxNewTokens])).toEqual([
    [true, 16],
    [false, 256],
    [false, 50],
  ]);
});

test("a wrong request is refused and the field named", async () => {
  const rows = await publish(2);
  const cases: [Partial<StartEvaluationRunRequest>, string][] = [
    [{ projectId: "" }, "project_id"],
    [{ model: "" }, "model"],
    [{ rows: undefined }, "rows.uri"],
    [{ rows: { ...rows, sha256: "abc" } }, "rows.sha256"],
    [{ task: undefined }, "task"],
    [{ task: { ...sentiment, kind: TaskKind.UNSPECIFIED } }, "task.kind"],
    [{ task: { ...sentiment, promptTemplate: "no place for a row" } }, "task.prompt_template"],
    [{ task: { ...sentiment, labels: [] } }, "task.labels"],
    [{ task: { ...sentiment, labels: [sentiment.labels[0], sentiment.labels[0]] as never } }, "task.labels[1].name"],
    [{ decoding: { temperature: -1 } as never }, "decoding.temperature"],
    [{ decoding: { topP: 2 } as never }, "decoding.top_p"],
  ];
  for (const [changes, field] of cases) {
    await expect(client.startEvaluationRun({ ...request(rows), ...changes }), field).rejects.toMatchObject({
      code: "invalid_argument",
      fields: [{ field }],
    });
  }
});

test("the same key returns the same run", async () => {
  const rows = await publish(2);
  const first = await client.startEvaluationRun(request(rows, { idempotencyKey: "k" }));
  expect(idOf(await client.startEvaluationRun(request(rows, { idempotencyKey: "k" })))).toBe(idOf(first));
  await expect(
    client.startEvaluationRun(request(rows, { idempotencyKey: "k", model: "file:/other" })),
  ).rejects.toMatchObject({ code: "already_exists" });
  await untilFinal(idOf(first));
  expect(student.predicted).toHaveLength(1);
});

test("cancel ends the student's call and keeps what was predicted", async () => {
  const { pass } = gate();
  student.onStep = (step, signal) => (step === 3 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startEvaluationRun(request(await publish(10))));
  await until(async () => (await predictionsOf(id)).flat().length > 0);
  const ended = student.nextEnd();
  await client.cancelEvaluationRun({ projectId: "default", id });
  expect(await ended).toBe("cancelled");
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.CANCELLED);
});

test("after a restart in the middle only the rows without a stored prediction are asked, and the grades are of all", async () => {
  const { pass } = gate();
  student.answer = () => ({ text: "bad" });
  student.onStep = (step, signal) => (step === 3 ? pass(signal) : Promise.resolve());
  const id = idOf(await client.startEvaluationRun(request(await publish(10))));
  await until(async () => (await predictionsOf(id)).flat().length > 0);
  const kept = (await predictionsOf(id)).flat().length;
  client.close();
  await service.stop();
  student.onStep = async () => {};
  student.answer = () => ({ text: "good" });
  ({ service, client } = await startService(url, home, student));
  const last = await untilFinal(id);
  expect(last.run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 2, progress: { done: 10, total: 10 } });
  expect(student.predicted.map(({ skipRows }) => skipRows)).toEqual([0, kept]);
  const predictions = (await predictionsOf(id)).flat();
  expect(predictions.map(({ rowId }) => rowId)).toEqual(Array.from({ length: 10 }, (_, index) => `r${index}`));
  expect(predictions.map(({ text }) => text)).toEqual([...Array(kept).fill("bad"), ...Array(10 - kept).fill("good")]);
  expect(last.metrics?.accuracy).toMatchObject({ successes: 5, n: 10 });
});

test("a run whose predictions are all stored is over without the student", async () => {
  const id = idOf(await client.startEvaluationRun(request(await publish(6))));
  const first = await untilFinal(id);
  client.close();
  await service.stop();
  await database.pool.query("update runs set status = 'QUEUED', state = state - 'metrics', finished_at = null");
  ({ service, client } = await startService(url, home, student));
  const last = await untilFinal(id);
  expect(last.metrics).toEqual(first.metrics);
  expect(last.predictSeconds).toBeGreaterThan(0);
  expect(student.predicted).toHaveLength(1);
});

test("a student may be lost more often than a run is given up for, where it gets further each time", async () => {
  let messages = 0;
  student.onStep = async () => {
    messages += 1;
    if (messages % 2 === 0) throw new TutelageError("unavailable", "The process is gone.");
  };
  const id = idOf(await client.startEvaluationRun(request(await publish(12))));
  expect((await untilFinal(id)).run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 6 });
}, 30_000);

test("a late writer changes nothing", async () => {
  const { open, pass } = gate();
  let calls = 0;
  student.onStep = (step, signal) => {
    if (step === 1) calls += 1;
    // The first attempt does not notice that its call ended; it goes on writing.
    return calls === 1 && step > 1
      ? pass(new AbortController().signal)
      : signal.aborted
        ? Promise.reject()
        : Promise.resolve();
  };
  const id = idOf(await client.startEvaluationRun(request(await publish(6))));
  await until(async () => (await predictionsOf(id)).flat().length === 2);
  await database.pool.query("update runs set fence = 7, lease_until = now() - interval '1 s'");
  open();
  const last = await untilFinal(id);
  expect(last.run).toMatchObject({ status: RunStatus.SUCCEEDED, fence: 8 });
  expect((await predictionsOf(id)).flat()).toHaveLength(6);
});

test("while a training holds the student an evaluation waits and interactive predictions pass", async () => {
  student.busy = true;
  const id = idOf(await client.startEvaluationRun(request(await publish(4))));
  await until(() => student.predicted.length === 1);
  const { predictions } = await client.predict(
    PredictRequest.fromPartial({
      projectId: "default",
      model: "file:/m",
      task: sentiment,
      rows: [{ input: "x" }, { input: "y" }],
    }),
  );
  expect(predictions).toHaveLength(2);
  expect((await client.getEvaluationRun({ projectId: "default", id })).run?.progress?.message).toContain("waiting");
  student.busy = false;
  expect((await untilFinal(id)).run?.status).toBe(RunStatus.SUCCEEDED);
});

test("an interactive prediction takes 1 to 256 rows, and says when the student is away", async () => {
  const ask = (rows: object[]) =>
    client.predict(PredictRequest.fromPartial({ projectId: "default", model: "file:/m", task: sentiment, rows }));
  await expect(ask([])).rejects.toMatchObject({ code: "invalid_argument", fields: [{ field: "rows" }] });
  await expect(ask(Array(257).fill({ input: "x" }))).rejects.toMatchObject({ fields: [{ field: "rows" }] });
  await expect(ask([{ input: "x" }, {}])).rejects.toMatchObject({ fields: [{ field: "rows[1]" }] });
  expect((await ask(Array(256).fill({ input: "x" }))).predictions).toHaveLength(256);
  await student.stop();
  await expect(ask([{ input: "x" }])).rejects.toMatchObject({ code: "unavailable", reason: "student_unavailable" });
});

test("another project sees neither the run nor its predictions", async () => {
  const id = idOf(await client.startEvaluationRun(request(await publish(2))));
  await untilFinal(id);
  const other = { projectId: "other", id };
  await expect(client.getEvaluationRun(other)).rejects.toMatchObject({ code: "not_found" });
  await expect(client.cancelEvaluationRun(other)).rejects.toMatchObject({ code: "not_found" });
  await expect(async () => {
    for await (const _ of client.listPredictions(other));
  }).rejects.toMatchObject({ code: "not_found" });
});

test("answers that somebody else gave are graded alike, and no student is asked", async () => {
  const given = request(await publish(2_500), { model: "", answers: await answers(2_000) });
  const run = await untilFinal(idOf(await client.startEvaluationRun(given)));
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  // Of 2,000 every second one is good; 500 rows have no answer.
  expect(run.metrics).toMatchObject({ accuracy: { successes: 1_000, n: 2_500 }, unreadableRows: 500 });
  const predictions: GradedPrediction[] = [];
  for await (const batch of client.listPredictions({ projectId: "default", id: idOf(run) }))
    predictions.push(...batch.predictions);
  expect(predictions.map(({ rowId }) => rowId)).toEqual(Array.from({ length: 2_500 }, (_, index) => `r${index}`));
  expect(predictions[1]).toMatchObject({ answer: "good", expected: "bad", correct: false });
  await expect(client.startEvaluationRun({ ...given, model: "file:/m" })).rejects.toMatchObject({
    fields: [{ field: "model" }],
  });
  await expect(client.startEvaluationRun({ ...given, checkpointUri: "file:/c" })).rejects.toMatchObject({
    fields: [{ field: "checkpoint_uri" }],
  });
  const others = await untilFinal(idOf(await client.startEvaluationRun({ ...given, rows: await publish(3) })));
  expect(others.run?.failure?.code).toBe("answer_without_row");
  await expect(
    client.startEvaluationRun({ ...given, answers: RowSource.fromPartial({ uri: "x", sha256: "y" }) }),
  ).rejects.toMatchObject({ fields: [{ field: "answers.sha256" }] });
});
