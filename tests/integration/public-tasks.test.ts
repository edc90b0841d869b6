/** The paper's tasks from a published file to a graded answer: REST's import, the preset of the same name, its grader. */
import { presets } from "@tutelage/campaigns/presets";
import { gradingOf } from "@tutelage/platform/grader";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
const api = () => request(fixture.url);
const anyFile = "application/octet-stream";

beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture.stop());

const choices = "holding that it may,holding that it must,holding that it need not,holding that it did,holding nothing";

/** A published file with one good row, a bad line in it, and answers of a student: right ones, and wrong ones. */
const published: [task: string, file: string | Buffer, rejectedLine: number, right: string[], wrong: string[]][] = [
  [
    "gsm8k",
    '{"question": "4 rows of 6 jars, 2 broken?", "answer": "4*6=<<4*6=24>>24\\n24-2=<<24-2=22>>22\\n#### 22"}\n{"question": "x"}\n',
    2,
    ["There are 24 jars.\n24 - 2 = 22\n#### 22", "4 * 6 = 24, so 22 are whole.\n#### 22.0\nQuestion: 9?"],
    ["#### 24", "I cannot say."],
  ],
  [
    "casehold",
    `citing_prompt,holding_0,holding_1,holding_2,holding_3,holding_4,label\n"See A v. B, 1 Ex. 2 (<HOLDING>).",${choices},2\np,${choices},7\n`,
    3,
    ["C", "(C)", "C. holding that it need not"],
    ["A", "holding"],
  ],
  [
    "snips",
    '{"RateBook": [\n{"data": [{"text": "give "}, {"text": "it", "entity": "object_select"}, {"text": " four stars"}]},\n{"data": 1}]}',
    3,
    ["RateBook", "ratebook."],
    ["PlayMusic", "rate a book"],
  ],
  [
    "trec",
    Buffer.from("LOC:mount Where is the Pic de Bugarach caf\u00e9 ?\nWhere ?\n", "latin1"),
    2,
    ["LOC", " loc\n"],
    ["HUM", "place"],
  ],
  [
    "sst2",
    "sentence\tlabel\nneither fresh nor funny \t0\nfunny\t2\n",
    3,
    ["negative", "Negative."],
    ["positive", "bad"],
  ],
];

test.each(published)("%s", async (name, file, rejectedLine, right, wrong) => {
  await api().post("/v1/datasets").send({ name }).expect(201);
  const { body } = await api()
    .post(`/v1/datasets/${name}/import`)
    .query({ layout: name })
    .set("content-type", anyFile)
    .send(file)
    .expect(201);
  expect(body).toMatchObject({ imported_rows: 1, rejected_rows: 1, rejects: [{ line: rejectedLine }] });
  const { rows } = (await api().get(`/v1/versions/${body.version.id}/rows`).expect(200)).body;

  const task = presets.get(name)?.task;
  if (task === undefined) throw new Error(`no preset ${name}`);
  const grading = gradingOf(task);
  const grade = (text: string, expected: string) => {
    const [answer, gold] = [grading.read(text, task), grading.read(expected, task)];
    expect(gold, expected).toBeDefined();
    return answer !== undefined && gold !== undefined && grading.equal(answer, gold, task);
  };
  const { output } = rows[0];
  expect([output, ...right].map((text) => grade(text, output))).toEqual([true, ...right.map(() => true)]);
  expect(wrong.map((text) => grade(text, output))).toEqual(wrong.map(() => false));

  // What the teacher is shown is read as its rows will be.
  const { output: gold = "", wrongAnswer = "", newOutput = "" } = task.workedExample ?? {};
  expect([gold, newOutput].map((text) => grade(text, text))).toEqual([true, true]);
  expect(grade(wrongAnswer, gold)).toBe(false);
});

test("a form's file is read by the layout, whatever it is called", async () => {
  await api().post("/v1/datasets").send({ name: "form" }).expect(201);
  const { body } = await api()
    .post("/v1/datasets/form/import?layout=trec&default_split=test")
    .attach("file", Buffer.from("HUM:ind Who rows ?\n"), "train_5500.label")
    .expect(201);
  expect(body).toMatchObject({ imported_rows: 1, version: { splits: { test: 1 } } });
});

test("columns, unknown layouts, files without a layout or labels are refused with the fix", async () => {
  await api().post("/v1/datasets").send({ name: "refused" }).expect(201);
  const refused = async (query: object, file = "HUM:ind Who rows ?\n") =>
    (await api().post("/v1/datasets/refused/import").query(query).set("content-type", anyFile).send(file).expect(400))
      .body;
  expect((await refused({ layout: "trec", input_column: "text" })).errors[0]).toMatchObject({ field: "input_column" });
  expect((await refused({ layout: "squad" })).errors[0].message).toMatch(/"casehold"/);
  expect(await refused({})).toMatchObject({ reason: "unknown_file_format", errors: [{ field: "content-type" }] });
  expect((await refused({ layout: "sst2" }, "index\tsentence\n0\tfine\n")).detail).toMatch(
    /use train\.tsv or dev\.tsv/,
  );
});
