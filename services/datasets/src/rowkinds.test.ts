/** Imports of rows that are more than a text and a label: conversations, and outputs with declared fields. */
import { FileFormat } from "@tutelage/proto/datasets/v1/datasets";
import { ExtractionField, FieldType } from "@tutelage/proto/task/v1/task";
import { afterAll, expect, test } from "vitest";
import { allRows, importFile, newDataset, startFixture } from "./service.fixture.js";

const fixture = await startFixture();
afterAll(() => fixture.stop());

const fields = [
  ExtractionField.fromPartial({ name: "city", type: FieldType.STRING }),
  ExtractionField.fromPartial({ name: "guests", type: FieldType.NUMBER, optional: true }),
];

async function imported(lines: string[], header: Parameters<typeof importFile>[3] = {}) {
  const file = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  const { version, rejects } = await importFile(fixture.client, await newDataset(fixture.client), file, header);
  return { rejects, rows: version === undefined ? [] : await allRows(fixture.client, version) };
}

const user = '{"role": "user", "content": "it squeaks"}';
const assistant = '{"role": "assistant", "content": "Since when?"}';
const good = '{"input": "fine", "output": "ok"}';

test("a conversation comes with its answer, or in the chat form with the answer as its last message", async () => {
  const { rows, rejects } = await imported([
    `{"messages": [{"role": "system", "content": "be kind"}, ${user}], "output": "Since when?"}`,
    `{"messages": [${user}, ${assistant}], "source": "forum"}`,
    `{"messages": [${user}, ${assistant}], "output": null}`,
  ]);
  expect(rejects).toMatchObject([{ line: 3, code: "duplicate_row" }]);
  expect(rows).toMatchObject([
    {
      input: "",
      messages: [
        { role: "system", content: "be kind" },
        { role: "user", content: "it squeaks" },
      ],
      output: "Since when?",
    },
    { messages: [{ role: "user", content: "it squeaks" }], output: "Since when?", metadata: { source: "forum" } },
  ]);
});

test.each<[string, string, string, string, RegExp]>([
  ["an answer twice", `{"messages": [${user}, ${assistant}], "output": "x"}`, "wrong_turns", "messages", /leave one/],
  ["no answer", `{"messages": [${user}]}`, "missing_field", "output", /assistant's last message/],
  ["nothing but an answer", `{"messages": [${assistant}]}`, "empty_field", "messages", /at least one message/],
  [
    "two answers in a row",
    `{"messages": [${user}, ${assistant}, ${assistant}]}`,
    "wrong_turns",
    "messages[1].role",
    /must be "user"/,
  ],
  [
    "a blank answer",
    `{"messages": [${user}, {"role": "assistant", "content": " "}]}`,
    "empty_field",
    "messages[1].content",
    /expected answer/,
  ],
  [
    "an answer that is no text",
    `{"messages": [${user}, {"role": "assistant", "content": null}]}`,
    "wrong_type",
    "messages[1].content",
    /must be text/,
  ],
  [
    "a late system message",
    `{"messages": [${user}, {"role": "system", "content": "x"}, ${user}], "output": "x"}`,
    "wrong_turns",
    "messages[1].role",
    /system's message first/,
  ],
  [
    "half a character",
    '{"messages": [{"role": "user", "content": "\\ud83d"}], "output": "x"}',
    "invalid_utf8",
    "messages[0].content",
    /surrogate/,
  ],
])("%s is refused with line, field and fix", async (_, line, code, field, message) => {
  const { rejects } = await imported([good, line]);
  expect(rejects).toEqual([{ line: 2, code, field, message: expect.stringMatching(message) }]);
});

test("outputs with declared fields are objects or JSON texts, stored in declared order with every digit", async () => {
  const { rows, rejects } = await imported(
    [
      '{"input": "a", "output": {"guests": 12345678901234567890, "city": "Bern"}}',
      '{"input": "b", "output": "{\\"guests\\": 2.50, \\"city\\": \\"Z\\u00fcrich\\"}"}',
      '{"input": "c", "output": {"city": "Rome", "guests": null}}',
    ],
    { fields },
  );
  expect(rejects).toEqual([]);
  expect(rows.map(({ output }) => output)).toEqual([
    '{"city": "Bern", "guests": 12345678901234567890}',
    '{"city": "Zürich", "guests": 2.50}',
    '{"city": "Rome"}',
  ]);
  const table = await imported(["input,output", '"a","{""city"": ""Bern""}"'], { format: FileFormat.CSV, fields });
  expect(table.rows).toMatchObject([{ input: "a", output: '{"city": "Bern"}' }]);
});

test.each<[string, string, RegExp]>([
  ['"Bern"', "output", /not a JSON object/],
  ['["Bern"]', "output", /must be text, a number or a boolean/],
  ['"{\\"city\\": "', "output", /not a JSON object/],
  ["{}", "output.city", /is missing; give a string/],
  ['{"city": "Bern", "guests": "two"}', "output.guests", /write a number/],
  ['{"city": "Bern", "hotel": "Ritz"}', "output.hotel", /is not declared/],
  ['{"city": "Bern", "city": "Rome"}', "output.city", /is there twice/],
])("the output %s does not fit: %s", async (output, field, message) => {
  const { rejects } = await imported(
    ['{"input": "fine", "output": {"city": "Oslo"}}', `{"input": "x", "output": ${output}}`],
    {
      fields,
    },
  );
  expect(rejects).toEqual([
    { line: 2, code: expect.stringMatching(/wrong_fields|wrong_type/), field, message: expect.stringMatching(message) },
  ]);
});

test("an answer of a chat is checked like any other", async () => {
  const fitting = `{"messages": [${user}, {"role": "assistant", "content": "{\\"city\\":\\"Bern\\"}"}]}`;
  const { rows, rejects } = await imported([fitting, `{"messages": [${user}, ${assistant}]}`], { fields });
  expect(rows).toMatchObject([{ output: '{"city": "Bern"}' }]);
  expect(rejects).toMatchObject([{ line: 2, code: "wrong_fields", field: "output" }]);
});

test("wrong declarations are refused before a row is read", async () => {
  const twice = [...fields, ExtractionField.fromPartial({ name: "city", type: FieldType.STRING })];
  await expect(imported([good], { fields: twice })).rejects.toMatchObject({
    code: "invalid_argument",
    fields: [{ field: "fields[2].name" }],
  });
});
