/** Each kind of task from a few lines of YAML: the examples, through the command line, REST and a whole campaign. */
import { execFile } from "node:child_process";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connect } from "@tutelage/platform/grpc";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import { Row, Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CampaignFixture, slow, startCampaignFixture } from "./campaign-fixture.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const examples = join(root, "examples/kinds");
const quick = "settings: {iterations: 1, folds: 2, rows_per_seed_row: 1, attempts_per_row: 1, plain_tries: 1}\n";
let fixture: CampaignFixture;
let folder: string;
const api = () => request(fixture.stack.url);

beforeAll(async () => {
  fixture = await startCampaignFixture({
    student: "smollm2-135m",
    bareStudent: "bare",
    teachers: ["my-chat-teacher"],
    contextTokens: 1_024,
  });
  folder = join(fixture.home, "kinds");
  await cp(examples, folder, { recursive: true });
}, slow);
afterAll(() => fixture?.stop(), slow);

/** One command of the CLI: what it printed, and its exit code. */
function tutelage(...args: string[]): Promise<{ out: string; told: string; code: number }> {
  return new Promise((resolve) => {
    const call = [join(root, "cli/bin/tutelage.mjs"), "--url", fixture.stack.url, "--json", ...args];
    const child = execFile(process.execPath, call, { maxBuffer: 64 * 1024 * 1024 }, (_error, out, told) => {
      resolve({ out, told, code: child.exitCode ?? -1 });
    });
  });
}

/** A copy of an example with something changed or added. */
async function changed(example: string, name: string, change: (text: string) => string): Promise<string> {
  const file = join(folder, `${name}.yaml`);
  await writeFile(file, change(await readFile(join(folder, `${example}.yaml`), "utf8")));
  return file;
}

test(
  "every example is checked and estimated as it stands, and no row of it is left out",
  async () => {
    const files = (await readdir(examples)).filter((name) => name.endsWith(".yaml"));
    expect(files).toHaveLength(6);
    for (const file of files) {
      const { out, told, code } = await tutelage("estimate", "--strict", join(folder, file));
      expect(told, file).toContain("16 rows as train");
      expect(code, told).toBe(0);
      const { forecasts, request: asked } = JSON.parse(out);
      expect(forecasts.map((one: { name: string }) => one.name)).toContain("teacher_calls");
      expect(asked.task.kind).toBe(
        { "multiple-choice.yaml": "multiple_choice", "conversations.yaml": "text" }[file] ?? file.slice(0, -5),
      );
      const page = (await api().get(`/v1/versions/${asked.dataset_version_id}/rows`).expect(200)).body;
      expect(page.rows.filter((row: { split: string }) => row.split === "test")).toHaveLength(4);
    }
  },
  slow,
);

test.each([
  ["extraction", /kind: extraction[\s\S]*name: "diets", type: string_list, optional: true/],
  ["conversations", /kind: text/],
])(
  "what init writes from the rows of %s can be estimated once its profiles are named",
  async (example, expected) => {
    const file = join(folder, `init-${example}.yaml`);
    const { told, code } = await tutelage("init", join(folder, `${example}.jsonl`), "--out", file);
    expect(code, told).toBe(0);
    expect(await readFile(file, "utf8")).toMatch(expected);
    const estimate = await tutelage("estimate", file);
    expect(estimate.told).toContain("16 rows as train");
    expect(estimate.code, estimate.told).toBe(0);
  },
  slow,
);

/** Runs an example to its end and gives the report. */
async function campaignOf(example: string) {
  const file = await changed(
    example,
    `quick-${example}`,
    (text) => `${text.replace(/^teacher: .*$/m, "")}\nteacher: my-chat-teacher\n${quick}`,
  );
  const { out, told, code } = await tutelage("run", file);
  expect(code, told).toBe(0);
  const { run } = JSON.parse(out);
  const report = (await api().get(`/v1/campaigns/${run.id}/report`).expect(200)).body;
  const page = (await api().get(`/v1/campaigns/${run.id}/report.html`).expect(200)).text;
  return { id: run.id as string, report, page };
}

test(
  "a campaign of extraction grows by objects that fit, and reports fields",
  async () => {
    const before = fixture.teacher.calls.length;
    const { id, report, page } = await campaignOf("extraction");
    const [write] = fixture.teacher.calls.slice(before);
    expect(write?.prompt).toContain('- "guests" (number): How many people come.');
    expect(write?.row?.output).toMatchObject({ name: expect.any(String), guests: expect.any(Number) });

    const { baseline_metrics: plain, final_metrics: final } = report;
    for (const metrics of [plain, final]) {
      expect(metrics.accuracy.n).toBe(4);
      expect(metrics.extraction).toMatchObject({ expected_fields: expect.any(Number), f1: expect.any(Number) });
      expect(metrics.extraction.expected_fields).toBeGreaterThanOrEqual(12);
      expect(metrics.extraction.fields.map((one: { field: string }) => one.field)).toEqual([
        ...["name", "guests", "time", "outside", "diets"],
      ]);
    }
    const accepted = report.candidates.filter((one: { accepted: boolean }) => one.accepted);
    expect(accepted.length).toBeGreaterThan(0);
    for (const { output } of accepted) expect(Object.keys(JSON.parse(output))).toContain("guests");
    expect(page).toContain("F1 of fields");
    expect(page).toContain("accuracy of &quot;guests&quot;");

    const body = { inputs: ["two at eight, Lee"] };
    const { predictions } = (await api().post(`/v1/campaigns/${id}/predict`).send(body).expect(200)).body;
    expect(predictions).toHaveLength(1);
  },
  slow,
);

test(
  "a campaign of conversations writes, judges, trains on and answers conversations",
  async () => {
    const before = fixture.teacher.calls.length;
    const { id, report, page } = await campaignOf("conversations");
    const calls = fixture.teacher.calls.slice(before);
    expect(calls.length).toBeGreaterThan(10);
    for (const { row } of calls) expect(row?.messages?.at(-1)?.role).toBe("user");
    expect(report.final_metrics).toMatchObject({ accuracy: { n: 4 }, mean_rouge_l: expect.any(Number) });
    expect(report.final_metrics.extraction).toBeUndefined();
    expect(page).toContain("mean ROUGE-L F");
    expect(page).toContain("&quot;conversations&quot;");

    const accepted = report.candidates.filter((one: { accepted: boolean }) => one.accepted);
    expect(accepted.length).toBeGreaterThan(0);
    expect(accepted[0]).toMatchObject({ input: "", messages: expect.any(Array), row_id: expect.stringMatching(/\w/) });
    const [iteration] = report.iterations.slice(-1);
    const exported = (
      await api().get(`/v1/versions/${iteration.dataset_version_id}/export?split=train`).buffer(true).parse(asText)
    ).body;
    const rows = (exported as string)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows).toHaveLength(12 + accepted.length);
    const grown = rows.find((row) => row.id === accepted[0].row_id);
    expect(grown).toMatchObject({ origin: "synthetic", messages: accepted[0].messages, output: accepted[0].output });

    // What is stored of each answer adds up to what is reported.
    const near: number[] = [];
    const evaluation = connect(EvaluationServiceDefinition, fixture.stack.addresses.evaluation);
    const which = { projectId: "default", id: report.campaign.outcome.final.test_evaluation_run_id };
    for await (const { predictions } of evaluation.listPredictions(which)) {
      near.push(...predictions.map((one) => one.rougeL ?? Number.NaN));
    }
    evaluation.close();
    expect(near).toHaveLength(4);
    expect(near.reduce((sum, one) => sum + one, 0) / 4).toBeCloseTo(report.final_metrics.mean_rouge_l, 9);

    const talk = [
      { role: "system", content: "You answer for a bike shop." },
      { role: "user", content: "do you sell bells" },
    ];
    const path = `/v1/campaigns/${id}/predict`;
    const { predictions } = (
      await api()
        .post(path)
        .send({ conversations: [talk] })
        .expect(200)
    ).body;
    expect(predictions).toEqual([expect.objectContaining({ text: expect.any(String), too_long: false })]);
    const asked = await tutelage("predict", id, "--conversations", JSON.stringify(talk));
    expect(JSON.parse(asked.out)).toMatchObject([{ text: predictions[0].text }]);
    expect((await tutelage("predict", id, "--conversations", "hello")).told).toContain("hello is not JSON");
    // A text needs a prompt, which this task has none of.
    const text = (
      await api()
        .post(path)
        .send({ inputs: ["hello"] })
        .expect(400)
    ).body;
    expect(text).toMatchObject({ reason: "prompt_template_missing", errors: [{ field: "task.prompt_template" }] });
  },
  slow,
);

test("rows that were imported without fields are checked by the campaign: the row, the field and the fix are named", async () => {
  await api().post("/v1/datasets").send({ name: "loose" }).expect(201);
  const outputs = ['{"city": "Bern"}', '{"city": "Oslo"}', '{"city": "Rome"}', '{"town": "Lima"}'];
  const lines = outputs.map((output, index) => JSON.stringify({ input: `trip ${index}`, output }));
  const query = "/v1/datasets/loose/import?default_split=train";
  await api().post(query).set("content-type", "application/x-ndjson").send(lines.join("\n")).expect(201);
  const body = {
    dataset: "loose",
    student_profile: "smollm2-135m",
    teacher_profile: "my-chat-teacher",
    task: { name: "trips", kind: "extraction", prompt_template: "{input}", fields: [{ name: "city", type: "string" }] },
  };
  const refused = (await api().post("/v1/campaigns/estimate").send(body).expect(400)).body;
  expect(refused).toMatchObject({ reason: "wrong_fields", errors: [{ field: "task.fields" }] });
  expect(refused.detail).toMatch(
    /output of row [0-9a-f]{32}: "town" is not declared; leave it out, or use one of "city"/,
  );
});

test("a base teacher says that it is one, and refuses to be asked for conversations", async () => {
  const { profiles } = (await api().get("/v1/profiles/teachers").expect(200)).body;
  expect(profiles.map((one: { name: string; prompt_form: string }) => [one.name, one.prompt_form])).toEqual([
    ["gemma3-270m", "list_continuation"],
    ["my-chat-teacher", "chat"],
  ]);
  const teacher = connect(TeacherServiceDefinition, fixture.stack.addresses.teacher);
  const seedRow = Row.fromPartial({ id: "a", messages: [{ role: "user", content: "hi" }], output: "hello" });
  const asked = (teacherProfile: string) =>
    teacher.startGenerationRun({
      projectId: "default",
      teacherProfile,
      task: Task.fromPartial({ name: "chat", kind: TaskKind.TEXT }),
      work: { $case: "write", value: { orders: [{ seedRow, count: 1, maxAttempts: 1 }] } },
    });
  await expect(asked("gemma3-270m")).rejects.toMatchObject({
    code: "invalid_argument",
    reason: "teacher_cannot_write_conversations",
    fields: [{ field: "write.orders.0.seed_row" }],
  });
  expect((await asked("my-chat-teacher")).run?.id).toMatch(/\w/);
  teacher.close();
});

test.each<[string, object, RegExp]>([
  ["nothing", {}, /either inputs or conversations/],
  ["both", { inputs: ["a"], conversations: [[{ role: "user", content: "b" }]] }, /either inputs or conversations/],
  ["an answered conversation", { conversations: [[{ role: "assistant", content: "b" }]] }, /message of the user/],
  ["a strange role", { conversations: [[{ role: "bot", content: "b" }]] }, /conversations/],
])("predicting %s is refused", async (_, body, message) => {
  const reply = await api().post(`/v1/campaigns/${crypto.randomUUID()}/predict`).send(body).expect(400);
  expect(JSON.stringify(reply.body)).toMatch(message);
});

test.each<[string, string, (text: string) => string, RegExp]>([
  [
    "a base teacher for conversations",
    "conversations",
    (text) => text.replace("my-chat-teacher", "gemma3-270m"),
    /teacher_profile.*base model.*prompt_form chat/,
  ],
  [
    "a student without chat template for conversations",
    "conversations",
    (text) => `student: bare\n${text}`,
    /student_profile.*no chat template/,
  ],
  [
    "fields that rows do not fit",
    "extraction",
    (text) => text.replace("guests, type: number", "guests, type: string"),
    /output\.guests.*write it as text/,
  ],
  [
    "no fields",
    "extraction",
    (text) => text.replace(/ {2}fields:\n( {4}.*\n)+/, ""),
    /declare its fields with the import/,
  ],
  ["a grader of another kind", "extraction", (text) => `${text}  grader: exact\n`, /task\.grader.*json_fields/],
  [
    "a threshold without its grader",
    "text",
    (text) => text.replace("  grader: rouge_l\n", ""),
    /rouge_l_threshold.*grader rouge_l/,
  ],
  [
    "no prompt for texts",
    "text",
    (text) => text.replace(/ {2}prompt_template: .*\n/, ""),
    /task\.prompt_template.*no conversation/,
  ],
])(
  "%s is refused in one readable line",
  async (name, example, change, message) => {
    const file = await changed(example, `bad ${name}`, change);
    const { told, code } = await tutelage("estimate", file);
    expect(told).toMatch(message);
    expect(code).toBe(65);
  },
  slow,
);

/** The body as text: supertest would look for JSON in it. */
function asText(response: request.Response, done: (error: Error | null, body: string) => void): void {
  let text = "";
  const stream = response as unknown as NodeJS.ReadableStream;
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  stream.on("end", () => done(null, text));
}
