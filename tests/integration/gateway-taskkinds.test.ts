/** Extraction, free text and conversations through REST: what is taken, what is passed on, what is refused. */
import { Campaign } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { FieldType, Grader, TaskKind } from "@tutelage/proto/task/v1/task";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { campaignBody, type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
const api = () => request(fixture.url);

beforeAll(async () => {
  fixture = await startFixture();
  await api().post("/v1/datasets").send({ name: "rows" }).expect(201);
});
afterAll(() => fixture.stop());

const fields = [
  { name: "city", type: "string", description: "where to" },
  { name: "guests", type: "number", optional: true },
];

function imported(lines: string[], query: Record<string, string> = {}) {
  return api()
    .post("/v1/datasets/rows/import")
    .query(query)
    .set("content-type", "application/x-ndjson")
    .send(lines.join("\n"));
}

test("an import that declares fields takes objects, and says of each misfit where and why", async () => {
  const { body } = await imported(
    [
      '{"input": "two to Bern", "output": {"guests": 2, "city": "Bern"}}',
      '{"input": "to Oslo", "output": "{\\"city\\": \\"Oslo\\"}"}',
      '{"input": "somewhere", "output": {"guests": 2}}',
    ],
    { fields: JSON.stringify(fields) },
  ).expect(201);
  expect(body).toMatchObject({ imported_rows: 2, rejected_rows: 1 });
  expect(body.rejects).toEqual([
    {
      line: 3,
      code: "wrong_fields",
      field: "output.city",
      message: expect.stringMatching(/is missing; give a string/),
    },
  ]);
  const { rows } = (await api().get(`/v1/versions/${body.version.id}/rows`).expect(200)).body;
  expect(rows.map((row: { output: string }) => row.output)).toEqual([
    '{"city": "Bern", "guests": 2}',
    '{"city": "Oslo"}',
  ]);
});

test.each<[string, string, RegExp]>([
  ["[{", "fields", /is not JSON/],
  ['{"city": "string"}', "fields", /must be a list/],
  ['[{"name": "city", "type": "text"}]', "fields.0.type", /one of "string", "number", "boolean", "string_list"/],
  ['[{"name": "", "type": "string"}]', "fields.0.name", /./],
  ['[{"name": "city", "type": "string", "required": true}]', "fields.0.required", /not a known field/],
])("the declaration %s is refused: %s", async (declared, field, message) => {
  const { body } = await imported(['{"input": "a", "output": {}}'], { fields: declared }).expect(400);
  expect(body.errors).toEqual([{ field: expect.stringMatching(`${field}$`), message: expect.stringMatching(message) }]);
});

test("conversations are imported in both forms, and what is exported can be imported again", async () => {
  const user = { role: "user", content: "it squeaks" };
  const answer = { role: "assistant", content: "Since when?" };
  const { body } = await imported([
    JSON.stringify({ messages: [{ role: "system", content: "be kind" }, user], output: answer.content }),
    JSON.stringify({ messages: [user, answer] }),
    JSON.stringify({ messages: [user, answer, user] }),
  ]).expect(201);
  expect(body).toMatchObject({ imported_rows: 2, rejects: [{ line: 3, code: "missing_field", field: "output" }] });
  const file = await fetch(`${fixture.url}/v1/versions/${body.version.id}/export`).then((reply) => reply.text());
  const again = (await imported(file.trim().split("\n")).expect(201)).body;
  const rowsOf = async (id: string) => (await api().get(`/v1/versions/${id}/rows`).expect(200)).body.rows;
  const essence = ({ messages, output }: { messages: object[]; output: string }) => ({ messages, output });
  expect((await rowsOf(again.version.id)).map(essence)).toEqual((await rowsOf(body.version.id)).map(essence));
});

test("a task with fields, or with a threshold, reaches the service as it was asked", async () => {
  const start = async (task: object) =>
    (
      await api()
        .post("/v1/campaigns")
        .send({ ...campaignBody, dataset: "rows", task })
        .expect(201)
    ).body;
  const { request: asked } = await start({ name: "trips", kind: "extraction", prompt_template: "{input}", fields });
  expect(asked.task).toMatchObject({ kind: "extraction", fields: [fields[0], { ...fields[1], description: "" }] });
  expect(fixture.campaigns.started.at(-1)?.task).toMatchObject({
    kind: TaskKind.EXTRACTION,
    fields: [
      { name: "city", type: FieldType.STRING, optional: false, description: "where to" },
      { name: "guests", type: FieldType.NUMBER, optional: true },
    ],
  });
  await start({ name: "chat", kind: "text", grader: "rouge_l", rouge_l_threshold: 0.4 });
  expect(fixture.campaigns.started.at(-1)?.task).toMatchObject({
    promptTemplate: "",
    grader: Grader.ROUGE_L,
    rougeLThreshold: 0.4,
  });
});

test("a worked example reaches the service, and one that lacks a part is refused", async () => {
  const worked_example = { input: "2 + 2?", output: "4", wrong_answer: "5", new_input: "3 + 4?", new_output: "7" };
  const sums = { name: "sums", kind: "math", prompt_template: "{input}", worked_example };
  const body = { ...campaignBody, dataset: "rows", task: sums };
  expect((await api().post("/v1/campaigns").send(body).expect(201)).body.request.task).toMatchObject(sums);
  expect(fixture.campaigns.started.at(-1)?.task?.workedExample).toEqual({
    input: "2 + 2?",
    output: "4",
    wrongAnswer: "5",
    newInput: "3 + 4?",
    newOutput: "7",
  });
  const half = { ...body, task: { ...sums, worked_example: { ...worked_example, new_output: undefined } } };
  const { errors } = (await api().post("/v1/campaigns").send(half).expect(400)).body;
  expect(errors).toMatchObject([{ field: "task.worked_example.new_output" }]);
});

test.each<[object, string, RegExp]>([
  [{ kind: "extraction", prompt_template: "{input}" }, "task.fields", /at least one field/],
  [{ kind: "extraction", fields: [{ name: "a", type: "date" }] }, "task.fields.0.type", /one of "string"/],
  [{ kind: "text", rouge_l_threshold: 2 }, "task.rouge_l_threshold", /1/],
  [{ kind: "text", prompt_template: "{input} {input}" }, "task.prompt_template", /exactly once/],
  [{ kind: "conversation" }, "task.kind", /"extraction"/],
])("the task %j is refused: %s", async (task, field, message) => {
  const body = { ...campaignBody, dataset: "rows", task: { name: "t", ...task } };
  const reply = (await api().post("/v1/campaigns").send(body).expect(400)).body;
  expect(reply.errors).toEqual([{ field, message: expect.stringMatching(message) }]);
});

test("conversations to go on with reach the student as conversations", async () => {
  const id = crypto.randomUUID();
  fixture.campaigns.put(
    Campaign.fromPartial({
      run: { id, status: RunStatus.SUCCEEDED },
      request: { name: "chat", task: { kind: TaskKind.TEXT }, settings: {} },
      outcome: { final: { checkpoint: { uri: "file:///nowhere", model: "package:base" } } },
    }),
  );
  const conversations = [[{ role: "user", content: "hello" }], [{ role: "user", content: "my chain fell off" }]];
  const { body } = await api().post(`/v1/campaigns/${id}/predict`).send({ conversations }).expect(200);
  expect(body.predictions).toHaveLength(2);
  expect(fixture.predictions.at(-1)).toMatchObject({
    rows: conversations.map((messages) => ({ input: "", messages })),
    decoding: { scoreLabels: false },
  });
});

test("the documentation shows fields, thresholds and conversations", async () => {
  const { paths, components } = (await api().get("/docs/json").expect(200)).body;
  const { fields: declared, rouge_l_threshold } = components.schemas.TaskInput.properties;
  expect(declared).toMatchObject({ type: "array", maxItems: 64 });
  expect(rouge_l_threshold).toMatchObject({ type: "number", maximum: 1 });
  const { parameters } = paths["/v1/datasets/{dataset}/import"].post;
  const query = parameters.find((one: { name: string }) => one.name === "fields");
  expect(query).toMatchObject({ in: "query", schema: { type: "string" } });
  expect(query.required).not.toBe(true);
  const body = paths["/v1/campaigns/{campaign}/predict"].post.requestBody.content["application/json"].schema;
  expect(Object.keys(body.properties)).toEqual(["inputs", "conversations"]);
});
