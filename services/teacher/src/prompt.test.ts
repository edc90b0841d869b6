import { readWritten } from "@tutelage/platform/teacherreply";
import { type Row, TaskKind } from "@tutelage/proto/task/v1/task";
import { WriteStyle } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { labelPhrase, plainLabel, writeAsk, writePlan } from "./prompt.js";
import { order, row, seedRows, task } from "./service.fixture.js";

const sampling = { temperature: 0.8, topP: 0.95, topK: 64, maxTokens: 64 };
const seed = seedRows[0] as Row;
const promptOf = (ask: ReturnType<typeof writeAsk>) => (ask.kind === "completion" ? ask.prompt : "");

test("the same attempt shows the same, another attempt shows other examples, never the seed row itself", () => {
  const pool = Array.from({ length: 20 }, (_, i) => row(`e${i}`, `example ${i}`, "book_flight"));
  const wide = order(seed, { exampleRows: [...pool, seed, row("copy", seed.input, "book_flight")] });
  const shown = (attempt: number) =>
    writePlan("list_continuation", task, wide, attempt, 0).examples.map(({ id }) => id);
  expect(shown(0)).toEqual(shown(0));
  expect(shown(0)).not.toEqual(shown(1));
  for (let attempt = 0; attempt < 30; attempt += 1) {
    expect(shown(attempt)).toHaveLength(3);
    expect(shown(attempt)).not.toContain("f1");
    expect(shown(attempt)).not.toContain("copy");
  }
});

test("examples that do not fit beside the seed row are left out, never the seed row", () => {
  const long = row("long", "x".repeat(500), "book_flight");
  const short = row("short", "to Lima", "book_flight");
  const wide = order(seed, { exampleRows: [long, short] });
  const shown = (room: number) =>
    writePlan("list_continuation", task, wide, 0, 0, room)
      .examples.map(({ id }) => id)
      .sort();
  expect(shown(1_000)).toEqual(["long", "short"]);
  expect(shown(200)).toEqual(["short"]);
  expect(shown(10)).toEqual([]);
});

test("a list shows only rows of the seed row's label", () => {
  const mixed = order(seed, { exampleRows: seedRows });
  expect(
    writePlan("list_continuation", task, mixed, 0, 0).examples.every(({ output }) => output === "book_flight"),
  ).toBe(true);
});

test("texts of several lines are fenced instead of listed", () => {
  const long = row("long", "Hello,\n\nI want to fly.\nBob", "book_flight");
  const ask = writeAsk(writePlan("list_continuation", task, order(long), 0, 0), sampling);
  expect(ask).toMatchObject({ kind: "completion", stop: ["\n>>>"] });
  expect(promptOf(ask)).toMatch(/<<<\nHello,\n\nI want to fly\.\nBob\n>>>\n<<<\n\S+ \S+$/);
});

test("the first words of the new row are another row's of the same label, and belong to the row", () => {
  const plan = writePlan("list_continuation", task, order(seed), 0, 0);
  expect(["two seats", "fly me"]).toContain(plan.opening);
  expect(promptOf(writeAsk(plan, sampling)).endsWith(`\n- ${plan.opening}`)).toBe(true);
  expect(writePlan("list_continuation", task, order(seed, { exampleRows: [] }), 0, 0).opening).toBe("");
  expect(writePlan("chat", task, order(seed), 0, 0).opening).toBe("");
});

test("texts that lend their first words are not shown", () => {
  const plan = writePlan("list_continuation", task, order(seed, { openingTexts: ["could you book me a seat"] }), 0, 0);
  expect(plan.opening).toBe("could you");
  expect(promptOf(writeAsk(plan, sampling))).not.toContain("book me a seat");
});

test("questions with answers are continued as blocks", () => {
  const math = { ...task, kind: TaskKind.MATH, labels: [], rowNoun: "word problems" };
  const sum = row("m", "Two and two?", "2 + 2 = 4\n#### 4");
  const ask = writeAsk(writePlan("list_continuation", math, order(sum, { exampleRows: [] }), 0, 0), sampling);
  expect(promptOf(ask)).toBe(
    "A list of word problems with their answers.\n\nQuestion: Two and two?\nAnswer: 2 + 2 = 4\n#### 4\n\nQuestion:",
  );
});

test("the chat prompt has instructions, a worked example, and the wrong row last with the student's answer", () => {
  const ask = writeAsk(writePlan("chat", task, order(seed), 0, 0), sampling);
  if (ask.kind !== "chat") throw new Error("not chat");
  expect(ask.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant", "user"]);
  expect(ask.messages[0]?.content).toContain("- weather: asks about the weather");
  expect(JSON.parse(ask.messages[2]?.content ?? "").output).toBe("book_flight");
  expect(ask.messages[3]?.content).toContain('{"input":"I need a plane to Lisbon on Monday","output":"book_flight"}');
  expect(ask.messages[3]?.content).toContain('The model answered: "cancel"');
  const alone = writeAsk(writePlan("chat", task, order(seed, { exampleRows: [] }), 0, 0), sampling);
  expect(alone.kind === "chat" && alone.messages).toHaveLength(2);
});

test("a row that is to be rephrased is shown alone, and nothing is said of an error", () => {
  const ask = writeAsk(writePlan("chat", task, order(seed), 0, 0, 10_000, WriteStyle.REPHRASE), sampling);
  if (ask.kind !== "chat") throw new Error("not chat");
  expect(ask.messages.map(({ role }) => role)).toEqual(["system", "user"]);
  expect(ask.messages[1]?.content).toContain('{"input":"I need a plane to Lisbon on Monday","output":"book_flight"}');
  expect(ask.messages[1]?.content).toContain("in other words");
  expect(ask.messages[1]?.content).not.toContain("wrong");
});

test("a task's worked example stands in the place of drawn rows, whatever the attempt, and is not to be copied", () => {
  const workedExample = {
    input: "get me on a train to Ghent",
    output: "book_flight",
    wrongAnswer: "weather",
    newInput: "I want to be in Turin by air",
    newOutput: "book_flight",
  };
  const shown = { ...task, workedExample };
  for (const attempt of [0, 1]) {
    const plan = writePlan("chat", shown, order(seed), attempt, 0);
    const ask = writeAsk(plan, sampling);
    if (ask.kind !== "chat") throw new Error("not chat");
    expect(ask.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant", "user"]);
    expect(ask.messages[1]?.content).toContain('{"input":"get me on a train to Ghent","output":"book_flight"}');
    expect(ask.messages[1]?.content).toContain('The model answered: "weather"');
    expect(JSON.parse(ask.messages[2]?.content ?? "")).toEqual({
      input: workedExample.newInput,
      output: "book_flight",
    });
    expect(ask.messages[3]?.content).toContain('The model answered: "cancel"');
    const copied = {
      text: ask.messages[2]?.content ?? "",
      finish: "stop" as const,
      promptTokens: 1,
      completionTokens: 1,
    };
    expect(readWritten(plan, copied)).toMatchObject({ $case: "rejection", value: { code: "copied_seed" } });
  }
  // A base model is shown rows of the seed row's label; a conversation has another form.
  expect(promptOf(writeAsk(writePlan("list_continuation", shown, order(seed), 0, 0), sampling))).not.toContain("Ghent");
  const talk = { ...seed, input: "", messages: [{ role: "user", content: "hello" }] };
  expect(writePlan("chat", shown, order(talk), 0, 0).examples).toEqual([]);
});

test("labels are said in plain words", () => {
  expect(["book_flight", "BookRestaurant", "ABBR", "card-arrival"].map(plainLabel)).toEqual([
    ...["book flight", "book restaurant", "ABBR", "card arrival"],
  ]);
  const described = (description: string) => ({
    ...task,
    rowNoun: "questions",
    labels: [{ name: "LOC", description }],
  });
  expect(labelPhrase(described("questions that ask for a place."), "LOC")).toBe("questions that ask for a place");
  expect(labelPhrase(described("asks for a place"), "LOC")).toBe("questions (asks for a place)");
  expect(labelPhrase(described(""), "LOC")).toBe('questions of the kind "LOC"');
});
