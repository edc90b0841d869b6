import { choiceLetter, readWritten } from "@tutelage/platform/teacherreply";
import { type Row, TaskKind } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import { writePlan } from "./prompt.js";
import { order, row, seedRows, task } from "./service.fixture.js";

const seed = seedRows[0] as Row;
const reply = (text: string, finish: "stop" | "length" = "stop") => ({
  text,
  finish,
  promptTokens: 1,
  completionTokens: 1,
});
const code = (outcome: ReturnType<typeof readWritten>) =>
  outcome.$case === "rejection" ? outcome.value.code : outcome.value;

const chat = writePlan("chat", task, order(seed), 0, 0);
const list = writePlan("list_continuation", task, order(seed), 0, 0);
const good = { input: "a seat to Bern", output: "book_flight" };

test.each([
  ["plain", JSON.stringify(good)],
  ["in a fence", `\`\`\`json\n${JSON.stringify(good, null, 2)}\n\`\`\``],
  ["after prose with a brace", `Sure {here} it is:\n${JSON.stringify(good)}\nAnything else?`],
  ["in an array", `[${JSON.stringify(good)}, ${JSON.stringify({ ...good, input: "second" })}]`],
  ["in an envelope", `{"example": ${JSON.stringify(good)}}`],
  ["with a trailing comma", '{"input": "a seat to Bern", "output": "book_flight",}'],
  ["with a label in other case and quotes", JSON.stringify({ ...good, output: '"Book_Flight".' })],
  ["without an output: the seed row's label", '{"input": "a seat to Bern"}'],
  ["with null for an output", '{"input": "a seat to Bern", "output": null}'],
])("a JSON reply %s is read", (_, text) => {
  expect(readWritten(chat, reply(text))).toEqual({ $case: "candidate", value: { ...good, messages: [] } });
});

test("raw line breaks and braces inside strings are mended, and a teacher's own label is kept", () => {
  const text = '{"input": "drop it {now}\nplease \\"quick\\"", "output": "cancel"}';
  expect(readWritten(chat, reply(text))).toEqual({
    $case: "candidate",
    value: { input: 'drop it {now}\nplease "quick"', output: "cancel", messages: [] },
  });
});

test.each([
  ["", "empty_reply"],
  ["  \n", "empty_reply"],
  ['{"input": "  ", "output": "cancel"}', "empty_reply"],
  ["I cannot help with that.", "unparseable"],
  ['{"input": "half a', "unparseable"],
  ['{"input": 7, "output": "cancel"}', "unparseable"],
  ['{"input": "a", "output": {"label": "cancel"}}', "unparseable"],
  ['{"question": "a", "answer": "cancel"}', "unparseable"],
  ["null", "unparseable"],
  ["{}".repeat(2_000), "unparseable"],
  [JSON.stringify({ ...good, output: "hotel" }), "unknown_label"],
  [JSON.stringify({ ...good, output: "book_flight or cancel" }), "unknown_label"],
  [JSON.stringify({ ...good, input: "i NEED a plane, to Lisbon on monday!" }), "copied_seed"],
  [JSON.stringify({ ...good, input: "two seats to Oslo in May please" }), "copied_seed"],
  [JSON.stringify({ ...good, input: "x ".repeat(400) }), "too_long"],
])("the reply %j is rejected as %s", (text, expected) => {
  expect(code(readWritten(chat, reply(text)))).toBe(expected);
});

test("deep nesting and endless open braces cost no time", () => {
  const began = performance.now();
  expect(code(readWritten(chat, reply("{".repeat(20_000))))).toBe("unparseable");
  expect(performance.now() - began).toBeLessThan(500);
});

test("a reply cut at the token limit is truncated whatever it holds", () => {
  expect(code(readWritten(chat, reply(JSON.stringify(good), "length")))).toBe("truncated");
  expect(code(readWritten(list, reply(" a flight to no", "length")))).toBe("truncated");
});

test("a continued list gives a row with the seed row's label", () => {
  const plan = { ...list, opening: "fly" };
  expect(code(readWritten(plan, reply(" us to Bern ")))).toMatchObject({
    input: "fly us to Bern",
    output: "book_flight",
  });
  expect(code(readWritten(plan, reply(" me to Rome for the weekend")))).toBe("copied_seed");
  expect(code(readWritten(plan, reply(" ")))).toBe("empty_reply");
});

test("an answer that cannot be read is no answer", () => {
  const math = { ...task, kind: TaskKind.MATH, labels: [] };
  const sum = order(row("m", "Two and two?", "4"), { exampleRows: [] });
  const asChat = writePlan("chat", math, sum, 0, 0);
  expect(code(readWritten(asChat, reply('{"input": "Three and one?", "output": "It is -4"}')))).toMatchObject({
    output: "It is -4",
  });
  expect(code(readWritten(asChat, reply('{"input": "Three and one?", "output": 4}')))).toMatchObject({ output: "4" });
  expect(code(readWritten(asChat, reply('{"input": "Three and one?", "output": "four"}')))).toBe("no_answer");
  expect(code(readWritten(asChat, reply('{"input": "Three and one?"}')))).toBe("no_answer");
  const blocks = writePlan("list_continuation", math, sum, 0, 0);
  expect(code(readWritten(blocks, reply(" Three and one?\nAnswer: 3 + 1 = 4\n#### 4\n")))).toMatchObject({
    input: "Three and one?",
    output: "3 + 1 = 4\n#### 4",
  });
  expect(code(readWritten(blocks, reply(" Three and one?")))).toBe("unparseable");
});

test("a choice must be one of the new row's own", () => {
  const choice = { ...task, kind: TaskKind.MULTIPLE_CHOICE, labels: [] };
  const plan = writePlan("chat", choice, order(row("c", "Which? (A) red (B) blue", "A"), { exampleRows: [] }), 0, 0);
  const answer = (output: string) =>
    code(readWritten(plan, reply(JSON.stringify({ input: "What? (A) one (B) two", output }))));
  expect(answer("(B)")).toMatchObject({ output: "(B)" });
  expect(answer("C")).toBe("no_answer");
  expect(answer("none of them")).toBe("no_answer");
  expect(["(B)", "b.", "B", "The answer is B", "Answer: (b)", "B) two", "two"].map(choiceLetter)).toEqual([
    ...["B", "B", "B", "B", "B", "B", undefined],
  ]);
});
