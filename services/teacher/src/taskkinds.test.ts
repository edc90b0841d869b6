/** Extraction and conversations: what the teacher is told, and how its replies are read. */

import { readWritten } from "@tutelage/platform/teacherreply";
import { FieldType, type Row, type Task, TaskKind } from "@tutelage/proto/task/v1/task";
import { WriteStyle } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { labelAsk, readLabel } from "./labelprompt.js";
import { writeAsk, writePlan } from "./prompt.js";
import { checkStartRequest, refuseConversations } from "./request.js";
import { order, row, task } from "./service.fixture.js";

const sampling = { temperature: 0.8, topP: 0.95, topK: 64, maxTokens: 64 };
const reply = (text: string) => ({ text, finish: "stop" as const, promptTokens: 1, completionTokens: 1 });
const worth = (outcome: ReturnType<typeof readWritten>) =>
  outcome.$case === "rejection" ? outcome.value.code : outcome.value;

const booking: Task = {
  ...task,
  kind: TaskKind.EXTRACTION,
  labels: [],
  fields: [
    { name: "city", type: FieldType.STRING, optional: false, description: "where to" },
    { name: "guests", type: FieldType.NUMBER, optional: true, description: "" },
  ],
};
const seed = row("b1", "Two of us to Bern, please", '{"city": "Bern", "guests": 2}');
const other = row("b2", "A room in Oslo", '{"city": "Oslo"}');
const third = row("b3", "Rome for the four of us", '{"city": "Rome", "guests": 4}');
const bookings = order(seed, { exampleRows: [other, third], wrongAnswer: '{"city": "bern"}' });

test("the teacher is told the fields, and sees outputs as the objects that they are", () => {
  const ask = writeAsk(writePlan("chat", booking, bookings, 0, 0), sampling);
  if (ask.kind !== "chat") throw new Error("not chat");
  expect(ask.messages[0]?.content).toContain('- "city" (string): where to');
  expect(ask.messages[0]?.content).toContain('- "guests" (number, left out where the input does not say it)');
  expect(ask.messages[0]?.content).toContain('{"input": "…", "output": {…}}');
  expect(ask.messages.at(-1)?.content).toContain('{"input":"Two of us to Bern, please","output":{"city": "Bern"');
  const list = writeAsk(writePlan("list_continuation", booking, bookings, 0, 0), sampling);
  expect(list.kind === "completion" && list.prompt).toMatch(
    /^A list of messages with their answers: JSON objects with the fields city, guests\.\n\nQuestion: /,
  );
});

test.each<[string, string, unknown]>([
  ["an object", '{"input": "To Lima", "output": {"guests": 1, "city": "Lima"}}', '{"city": "Lima", "guests": 1}'],
  ["a text", '{"input": "To Lima", "output": "{\\"city\\": \\"Lima\\"}"}', '{"city": "Lima"}'],
  ["in a fence", '```json\n{"input": "To Lima", "output": {"city": "Lima",},}\n```', '{"city": "Lima"}'],
  [
    "null for what may be missing",
    '{"input": "To Lima", "output": {"city": "Lima", "guests": null}}',
    '{"city": "Lima"}',
  ],
  ["unicode", '{"input": "Nach Z\\u00fcrich", "output": {"city": "Zürich"}}', '{"city": "Zürich"}'],
  ["a missing field", '{"input": "Somewhere", "output": {"guests": 2}}', "wrong_fields"],
  ["an undeclared field", '{"input": "To Lima", "output": {"city": "Lima", "when": "May"}}', "wrong_fields"],
  ["a number as text", '{"input": "To Lima", "output": {"city": "Lima", "guests": "1,000"}}', "wrong_fields"],
  ["nested", '{"input": "To Lima", "output": {"city": {"name": "Lima"}}}', "wrong_fields"],
  ["a key twice", '{"input": "To Lima", "output": {"city": "Lima", "city": "Rome"}}', "wrong_fields"],
  ["a list", '{"input": "To Lima", "output": ["Lima"]}', "unparseable"],
  ["prose", '{"input": "To Lima", "output": "Lima"}', "no_answer"],
  ["empty text", '{"input": "To Lima", "output": ""}', "no_answer"],
  ["nothing", '{"input": "To Lima"}', "no_answer"],
])("chat: an output with %s", (_, text, expected) => {
  const read = worth(readWritten(writePlan("chat", booking, bookings, 0, 0), reply(text)));
  expect(read).toEqual(
    typeof expected === "string" && expected.startsWith("{")
      ? expect.objectContaining({ output: expected, messages: [] })
      : expected,
  );
});

test.each<[string, unknown]>([
  [' To Lima\nAnswer: {"city": "Lima"}\n', { input: "To Lima", output: '{"city": "Lima"}', messages: [] }],
  [' To Lima\nAnswer: Here: {"city": "Lima",} ok', { input: "To Lima", output: '{"city": "Lima"}', messages: [] }],
  [' To Lima\nAnswer: {"town": "Lima"}\n', "wrong_fields"],
  [" To Lima\nAnswer: Lima\n", "no_answer"],
  [' To Lima {"city": "Lima"}', "unparseable"],
])("list: the continuation %j", (text, expected) => {
  expect(worth(readWritten(writePlan("list_continuation", booking, bookings, 0, 0), reply(text)))).toEqual(expected);
});

test("a row is answered blind with the fields told, in both forms", () => {
  const plan = (form: "chat" | "list_continuation") => ({
    ...{ task: booking, row: seed, examples: [other], references: [], method: "say" as const, form },
  });
  const ask = labelAsk(plan("chat"), sampling);
  expect(ask.kind === "chat" && ask.messages[0]?.content).toContain('- "city" (string): where to');
  expect(labelAsk(plan("list_continuation"), sampling)).toMatchObject({ kind: "completion" });
  for (const form of ["chat", "list_continuation"] as const) {
    expect(readLabel(plan(form), reply('```{"guests": 2, "city": "Bern"}```'))).toEqual({
      $case: "labeling",
      value: { label: '{"city": "Bern", "guests": 2}', likelihoods: [] },
    });
    expect(readLabel(plan(form), reply('{"guests": 2}'))).toMatchObject({ value: { code: "wrong_fields" } });
    expect(readLabel(plan(form), reply("Bern"))).toMatchObject({ value: { code: "no_answer" } });
  }
});

const talk = (id: string, last: string, output: string): Row => ({
  ...row(id, "", output),
  messages: [
    { role: "system", content: "You are a bike shop." },
    { role: "user", content: "Hello" },
    { role: "assistant", content: "Hello, what can I do?" },
    { role: "user", content: last },
  ],
});
const chatTask: Task = { ...task, kind: TaskKind.TEXT, labels: [], promptTemplate: "", rowNoun: "" };
const squeak = talk("t1", "My brake squeaks", "Bring it in on Monday.");
const talks = order(squeak, { exampleRows: [talk("t2", "Flat tyre", "Front or rear?"), seed], wrongAnswer: "No." });
const chatPlan = writePlan("chat", chatTask, talks, 0, 0);

test("the teacher is shown conversations, all of them and nothing else, and asked for one", () => {
  const ask = writeAsk(chatPlan, sampling);
  if (ask.kind !== "chat") throw new Error("not chat");
  expect(chatPlan.examples.map(({ id }) => id)).toEqual(["t2"]);
  expect(ask.messages[0]?.content).toContain("one of: conversations.");
  expect(ask.messages[0]?.content).toContain('{"messages": [{"role": "user", "content": "…"}, …], "output": "…"}');
  const last = ask.messages.at(-1)?.content ?? "";
  const shown = last.split("\n").find((line) => line.startsWith('{"messages":'));
  expect(JSON.parse(shown ?? "")).toEqual({ messages: squeak.messages, output: squeak.output });
  expect(last).toContain('The model answered: "No."');
});

const user = { role: "user", content: "My chain fell off" };
const assistant = { role: "assistant", content: "On which bike?" };

test.each<[string, unknown, unknown]>([
  ["with an output", { messages: [user, assistant, user], output: "Come by." }, { turns: 3, output: "Come by." }],
  ["with the answer as its last message", { messages: [user, assistant] }, { turns: 1, output: "On which bike?" }],
  ["in an envelope", { example: { messages: [user], output: "Come by." } }, { turns: 1, output: "Come by." }],
  ["that ends with the assistant", { messages: [user, assistant], output: "x" }, "wrong_turns"],
  ["of a strange role", { messages: [{ role: "customer", content: "x" }], output: "x" }, "wrong_turns"],
  ["of texts", { messages: ["hello"], output: "x" }, "wrong_turns"],
  ["of nobody", { messages: [], output: "x" }, "wrong_turns"],
  ["without an answer", { messages: [user] }, "no_answer"],
  ["that repeats the seed", { messages: squeak.messages, output: "Bring it in." }, "copied_seed"],
  ["that is none", { input: "My chain fell off", output: "x" }, "unparseable"],
  ["far too long", { messages: [{ role: "user", content: "x ".repeat(800) }], output: "x" }, "too_long"],
])("a conversation %s", (_, value, expected) => {
  const read = worth(readWritten(chatPlan, reply(`Sure:\n${JSON.stringify(value)}`)));
  const summary =
    typeof read === "object" && "messages" in read ? { turns: read.messages.length, output: read.output } : read;
  expect(summary).toEqual(expected);
  if (typeof read === "object" && "input" in read) expect(read.input).toBe("");
});

test("requests: outputs must fit, and a base model is not asked for conversations", () => {
  const request = (changes: object) => ({
    projectId: "default",
    idempotencyKey: "",
    teacherProfile: "t",
    task: booking,
    work: { $case: "write" as const, value: { orders: [bookings], style: WriteStyle.VARY } },
    replicateSeed: 0,
    replyScope: "",
    patienceSeconds: 0,
    tryNow: false,
    budget: undefined,
    ...changes,
  });
  expect(() => checkStartRequest(request({}))).not.toThrow();
  expect(() => checkStartRequest(request({ task: { ...booking, fields: [] } }))).toThrow(/task\.fields/);
  const bad = order({ ...seed, output: '{"guests": 2}' }, { exampleRows: [] });
  expect(() => checkStartRequest(request({ work: { $case: "write", value: { orders: [bad] } } }))).toThrow(
    /write\.orders\.0\.seed_row\.output\.city: is missing/,
  );
  const conversations = request({ task: chatTask, work: { $case: "write", value: { orders: [talks] } } });
  expect(() => refuseConversations(conversations, "chat")).not.toThrow();
  expect(() => refuseConversations(conversations, "list_continuation")).toThrow(/cannot write.*prompt_form chat/);
  expect(() => refuseConversations(request({}), "list_continuation")).not.toThrow();
});
