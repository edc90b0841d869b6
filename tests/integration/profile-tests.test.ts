/** What a profile really answers, by REST and by the command line: real calls of a real teacher endpoint and a real student. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import request from "supertest";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { task } from "../support/tinytask.js";
import { type CampaignFixture, slow, startCampaignFixture, teacherKey } from "./campaign-fixture.js";

const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
let fixture: CampaignFixture;
let folder: string;

beforeAll(async () => {
  fixture = await startCampaignFixture();
  folder = await mkdtemp(join(tmpdir(), "tutelage-profiles-"));
}, slow);
beforeEach(() => {
  fixture.teacher.options.behave = undefined;
});
afterAll(async () => {
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
}, slow);

const testOf = (kind: string, name: string, body: object = {}) =>
  request(fixture.stack.url).post(`/v1/profiles/${kind}/${name}/test`).send(body);
const tutelage = async (...args: string[]) =>
  await promisify(execFile)(process.execPath, [main, "--url", fixture.stack.url, ...args], { cwd: folder }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
  );

test("a teacher's test is one real call with everything that it cost, and a second test asks again", async () => {
  const before = fixture.teacher.calls.length;
  const { body } = await testOf("teachers", "scripted").expect(200);
  expect(body).toMatchObject({ ok: true, teacher: "scripted", parsed: { output: "disappointed" } });
  expect(body.calls).toHaveLength(1);
  const [call] = body.calls;
  expect(call.prompt).toContain("The clamp broke");
  expect(call.raw_reply).toContain(body.parsed.input);
  expect(call.prompt_tokens + call.completion_tokens).toBeGreaterThan(0);
  expect(call.cost_micro_usd).toBe(call.prompt_tokens + 2 * call.completion_tokens);
  expect(JSON.stringify(body)).not.toContain(teacherKey);
  await testOf("teachers", "scripted").expect(200);
  expect(fixture.teacher.calls).toHaveLength(before + 2);
}, 60_000);

test("a teacher can be tried on one's own task and row", async () => {
  const row = { input: "how many legs ?", output: "NUM" };
  const { body } = await testOf("teachers", "scripted", { task, row }).expect(200);
  expect(body.parsed.output).toBe("NUM");
  expect(body.calls[0].prompt).toContain("how many legs ?");
  const bare = await testOf("teachers", "scripted", { task });
  expect([bare.status, bare.body.errors[0].field]).toEqual([400, "row"]);
}, 60_000);

test.each([
  ["a refused key", { kind: "status", status: 401 } as const, "teacher_unauthorized", /api_key/, 1],
  [
    "a model that is not there",
    { kind: "status", status: 404 } as const,
    "teacher_model_not_found",
    /model and base_url/,
    1,
  ],
  ["an endpoint that breaks off", { kind: "reset" } as const, "teacher_unavailable", /base_url/, 2],
  ["a page instead of an answer", { kind: "html" } as const, "teacher_bad_reply", /OpenAI protocol/, 2],
  ["a reply that is no row", { kind: "reply", text: "Certainly!" } as const, "unparseable", /raw reply/, 1],
])(
  "%s is named, with what to do",
  async (_, behaviour, code, fix, calls) => {
    fixture.teacher.options.behave = () => behaviour;
    const { body } = await testOf("teachers", "scripted").expect(200);
    expect(body).toMatchObject({ ok: false, error: { code, fix: expect.stringMatching(fix) } });
    expect(body.calls).toHaveLength(calls);
    const told = await tutelage("profiles", "test", "scripted");
    expect(told.code).toBe(1);
    expect(told.stdout).toContain(`${code}: `);
  },
  60_000,
);

test("a student's test shows what the base model says", async () => {
  const { body } = await testOf("students", "tiny", { inputs: ["Text: the film was", "Class: NUM"] }).expect(200);
  expect(body.model).toMatch(/^file:/);
  expect(body.answers.map(({ input }: { input: string }) => input)).toEqual(["Text: the film was", "Class: NUM"]);
  for (const one of body.answers) expect(one.log_probability).toBeLessThan(0);
}, 60_000);

test("the command line tests teachers and students by name, and a teacher on the user's own rows", async () => {
  const teacher = await tutelage("profiles", "test", "scripted");
  expect([teacher.code, teacher.stdout]).toEqual([0, expect.stringMatching(/read as {2}input: .*\n.*scripted works/s)]);
  const student = await tutelage("profiles", "test", "tiny", "--json");
  expect(JSON.parse(student.stdout).answers).toHaveLength(3);
  await writeFile(join(folder, "rows.csv"), "question,class\nhow many hills ?,NUM\nhow many legs ?,NUM\n");
  await writeFile(
    join(folder, "own.yaml"),
    `name: own
data: { train: rows.csv, columns: { input: question, output: class } }
task: { kind: classification, prompt_template: "Q: {input}", labels: [NUM, LOC] }
`,
  );
  const own = await tutelage("profiles", "test", "scripted", "--campaign", "own.yaml", "--json");
  expect(JSON.parse(own.stdout).calls[0].prompt).toContain("how many hills ?");
  const none = await tutelage("profiles", "test", "nobody");
  expect([none.code, none.stderr]).toEqual([65, expect.stringContaining('no profile "nobody"')]);
  expect((await tutelage("profiles")).stdout).toContain("scripted");
}, 60_000);

test("a profile that nobody offers is not found", async () => {
  for (const kind of ["teachers", "students"]) {
    const { status, body } = await testOf(kind, "nobody");
    expect([status, body.reason]).toEqual([404, `${kind.slice(0, -1)}_profile_not_found`]);
  }
});
