import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "@tutelage/platform/grpc";
import { DatasetsServiceDefinition, FileFormat } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { afterAll, describe, expect, test } from "vitest";
import { allRows, type Client, importFile, jsonl, newDataset, project, startFixture } from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

const csv = { format: FileFormat.CSV };
const good = { input: "good", output: "a" };

/** Imports lines around a good row, so that one bad row is seen not to sink the others. */
async function rejectsOf(lines: (string | Buffer)[], header: Parameters<typeof importFile>[3] = {}) {
  const file = Buffer.concat(
    [JSON.stringify(good), ...lines].map((line) => Buffer.concat([Buffer.from(line), Buffer.from("\n")])),
  );
  const answer = await importFile(client, await newDataset(client), file, header);
  expect(answer.importedRows + answer.rejectedRows).toBe(lines.length + 1);
  expect(answer.version?.rowCount).toBe(answer.importedRows);
  return answer.rejects;
}

describe("a bad line is listed with its line, code, field and fix, and the good ones are imported", () => {
  test.each<[string, string | Buffer, string, string, RegExp]>([
    ["half a JSON", '{"input": "x", "out', "malformed_json", "", /one JSON object a line/],
    ["HTML", "<html>", "malformed_json", "", /not JSON/],
    ["an array", "[1]", "wrong_type", "", /is an array/],
    ["null", "null", "wrong_type", "", /is null/],
    ["no input", '{"output": "a"}', "missing_field", "input", /"input" is missing/],
    ["a null input", '{"input": null, "output": "a"}', "missing_field", "input", /"input" is missing/],
    ["no output", '{"input": "x"}', "missing_field", "output", /expected answer/],
    ["a numeric input", '{"input": 5, "output": "a"}', "wrong_type", "input", /must be text, not 5/],
    ["an object as output", '{"input": "x", "output": {}}', "wrong_type", "output", /must be text/],
    ["a number beyond JSON", '{"input": "x", "output": 12345678901234567890}', "wrong_type", "output", /in quotes/],
    ["a blank input", '{"input": " ", "output": "a"}', "empty_field", "input", /is empty/],
    ["an empty output", '{"input": "x", "output": ""}', "empty_field", "output", /is empty/],
    ["U+0000", '{"input": "x\\u0000", "output": "a"}', "wrong_type", "input", /U\+0000/],
    ["half a character", '{"input": "x\\ud83d", "output": "a"}', "invalid_utf8", "input", /surrogate/],
    ["U+0000 in another column", '{"input": "x", "output": "a", "note": "\\u0000"}', "wrong_type", "note", /U\+0000/],
    ["bytes that are not UTF-8", Buffer.from([0x22, 0xff, 0xfe]), "invalid_utf8", "", /save the file as UTF-8/],
    ["a line over 1 MiB", `{"input": "${"x".repeat(1024 * 1024)}", "output": "a"}`, "too_large", "", /1 MiB/],
    ["the same row again", '{"output": "a", "input": " good "}', "duplicate_row", "input", /on line 1 /],
    ["another output", '{"input": "good", "output": "b"}', "conflicting_output", "output", /on line 1 .*"b"/],
    ["input and messages", '{"input":"x","messages":[],"output":"a"}', "wrong_type", "messages", /keep one/],
    ["messages that are text", '{"messages":"x","output":"a"}', "wrong_type", "messages", /must be an array/],
    ["no messages", '{"messages":[],"output":"a"}', "empty_field", "messages", /at least one/],
    [
      "a strange role",
      '{"messages":[{"role":"bot","content":"x"}],"output":"a"}',
      "wrong_type",
      "messages[0].role",
      /"user"/,
    ],
    [
      "a message without text",
      '{"messages":[{"role":"user"}],"output":"a"}',
      "wrong_type",
      "messages[0].content",
      /text/,
    ],
  ])("%s", async (_, line, code, field, message) => {
    expect(await rejectsOf([line])).toEqual([{ line: 2, code, field, message: expect.stringMatching(message) }]);
  });

  test("an unknown label, with the one that was meant", async () => {
    const rejects = await rejectsOf(['{"input": "x", "output": "B"}', '{"input": "y", "output": "zebra"}'], {
      allowedLabels: ["a", "b"],
    });
    expect(rejects).toEqual([
      { line: 2, code: "unknown_label", field: "output", message: '"B" is not a label of the task; did you mean "b"?' },
      {
        line: 3,
        code: "unknown_label",
        field: "output",
        message: '"zebra" is not a label of the task; use one of "a", "b".',
      },
    ]);
    const near = await rejectsOf(['{"input": "x", "output": "Delivry"}'], { allowedLabels: ["a", "delivery"] });
    expect(near).toMatchObject([
      { code: "unknown_label", message: expect.stringContaining('did you mean "delivery"?') },
    ]);
  });

  test("an unknown split, a split that is no text, and none where none is the default", async () => {
    const rejects = await rejectsOf(
      [
        '{"input": "x", "output": "a", "part": "validation"}',
        '{"input": "y", "output": "a", "part": 1}',
        '{"input": "z", "output": "a"}',
      ],
      { splitColumn: "part", defaultSplit: Split.TRAIN },
    );
    expect(rejects.map(({ line, code, field }) => [line, code, field])).toEqual([
      [2, "unknown_split", "part"],
      [3, "wrong_type", "part"],
    ]);
    expect(rejects[0]?.message).toContain('did you mean "dev"?');
    const file = jsonl([
      { ...good, part: "TEST" },
      { input: "x", output: "a", part: "" },
    ]);
    const answer = await importFile(client, await newDataset(client), file, {
      splitColumn: "part",
      defaultSplit: Split.UNSPECIFIED,
    });
    expect(answer.version?.splits).toEqual({ train: 0, dev: 0, test: 1 });
    expect(answer.rejects).toMatchObject([{ line: 2, code: "missing_field", field: "part" }]);
  });

  test("malformed CSV records, by the line on which they begin", async () => {
    const file = 'input,output\n"two\nlines",a\nthree,a,extra\n"x"y,a\n"",a\nopen "quote,a\nlast,a\n"never closed,a';
    const answer = await importFile(client, await newDataset(client), file, csv);
    expect(answer.rejects.map(({ line, code }) => [line, code])).toEqual([
      [4, "malformed_csv"],
      [5, "malformed_csv"],
      [6, "empty_field"],
      [7, "malformed_csv"],
      [9, "malformed_csv"],
    ]);
    expect((await allRows(client, answer.version)).map(({ input }) => input)).toEqual(["two\nlines", "last"]);
  });

  test("white space around a column's name counts neither in the header nor where it is asked for", async () => {
    const header = { ...csv, inputColumn: " Text", outputColumn: "Label ", splitColumn: "part" };
    const answer = await importFile(client, await newDataset(client), "Text , Label, part\nx,a,test\n", header);
    expect(answer.version?.splits).toEqual({ train: 0, dev: 0, test: 1 });
    // A JSON key is what it is.
    const spaced = await importFile(client, await newDataset(client), '{" Text": "x", "Label ": "a"}\n', {
      inputColumn: " Text",
      outputColumn: "Label ",
    });
    expect(spaced.importedRows).toBe(1);
  });

  test("only the first 1,000 are listed, all are counted", async () => {
    const answer = await importFile(
      client,
      await newDataset(client),
      `${JSON.stringify(good)}\n${"{\n".repeat(1_200)}`,
    );
    expect(answer).toMatchObject({ importedRows: 1, rejectedRows: 1_200 });
    expect(answer.rejects).toHaveLength(1_000);
  });
});

test("the same row in two splits is two rows; in one split it is a duplicate", async () => {
  const file = jsonl([
    { ...good, part: "train" },
    { ...good, part: "test" },
    { ...good, part: "test" },
  ]);
  const answer = await importFile(client, await newDataset(client), file, { splitColumn: "part" });
  expect(answer.version?.splits).toEqual({ train: 1, dev: 0, test: 1 });
  expect(answer.rejects).toMatchObject([{ line: 3, code: "duplicate_row" }]);
});

test("strict refuses the whole file and still lists what is wrong", async () => {
  const id = await newDataset(client);
  const answer = await importFile(client, id, `${jsonl([good])}{\n`, { strict: true });
  expect(answer).toMatchObject({ version: undefined, importedRows: 0, rejectedRows: 1 });
  expect(answer.rejects).toHaveLength(1);
  expect((await client.listVersions({ projectId: project, datasetId: id })).versions).toEqual([]);
});

test.each([
  ["an empty file", "", {}],
  ["only blank lines", "\n\r\n\n", {}],
  ["no good row", "{\n[]\n", {}],
  ["a CSV file with only its header", "input,output\n", csv],
  ["an empty CSV file", "", csv],
])("%s makes no version", async (_, file, header) => {
  const id = await newDataset(client);
  const answer = await importFile(client, id, file, header);
  expect(answer).toMatchObject({ version: undefined, importedRows: 0 });
  expect((await client.getDataset({ projectId: project, id })).latestVersionId).toBe("");
});

test("columns are mapped, others become metadata, numbers and booleans become text", async () => {
  const file = jsonl([
    {
      q: "what?",
      label: 7,
      part: "dev",
      source: "web",
      score: 0.5,
      flag: true,
      none: null,
      tags: ["x"],
      constructor: "c",
    },
    { q: "why?", label: false, metadata: { origin: "forum" } },
    { messages: [{ role: "user", content: "hi" }], label: "a" },
  ]);
  const header = { inputColumn: "q", outputColumn: "label", splitColumn: "part", defaultSplit: Split.TEST };
  const { version, rejects } = await importFile(client, await newDataset(client), file, header);
  expect(rejects).toEqual([]);
  const rows = await allRows(client, version);
  expect(rows[0]).toMatchObject({ input: "what?", output: "7", split: Split.DEV });
  expect(rows[0]?.metadata).toEqual({ source: "web", score: "0.5", flag: "true", tags: '["x"]', constructor: "c" });
  expect(rows[1]).toMatchObject({ input: "why?", output: "false", split: Split.TEST, metadata: { origin: "forum" } });
  expect(rows[2]).toMatchObject({ input: "", messages: [{ role: "user", content: "hi" }] });
});

test("CSV with a byte order mark, CRLF and quotes reads as RFC 4180 says, in chunks of any size", async () => {
  const file = '\ufeffoutput,input,note\r\na,"Say ""hi"",\r\nplease",\r\nb,plain\ttab\\n,"n, m"\r\n';
  for (const chunkBytes of [1, 10, 1_000]) {
    const { version, rejects } = await importFile(client, await newDataset(client), file, csv, chunkBytes);
    expect(rejects).toEqual([]);
    expect((await allRows(client, version)).map(({ input, output, metadata }) => [input, output, metadata])).toEqual([
      ['Say "hi",\r\nplease', "a", { note: "" }],
      ["plain\ttab\\n", "b", { note: "n, m" }],
    ]);
  }
});

test("the same row has the same id, and equal rows the same digest, in every project and format", async () => {
  const other = await client.createDataset({ projectId: "project-2", name: "d" });
  const fromJson = await importFile(client, await newDataset(client), jsonl([good]));
  const fromCsv = await importFile(client, other.id, "output,input\na,good\n", { ...csv, projectId: "project-2" });
  expect(fromCsv.version?.digest).toBe(fromJson.version?.digest);
  expect(fromCsv.version?.artifactUri).toMatch(/\/project-2\/versions\/[0-9a-f]{64}\.jsonl$/);
});

test.each<[string, Parameters<typeof importFile>[3], string, string]>([
  ["no format", { format: FileFormat.UNSPECIFIED }, "", "format"],
  ["no split at all", { defaultSplit: Split.UNSPECIFIED }, "", "default_split"],
  ["one column twice", { outputColumn: "input" }, "", "output_column"],
  ["the split in the input's column", { splitColumn: "input" }, "", "split_column"],
  ["an empty label", { allowedLabels: ["a", " "] }, "", "allowed_labels[1]"],
  ["a project that is a path", { projectId: "../etc" }, "", "project_id"],
  ["a dataset id that is no UUID", { datasetId: "1" }, "", "dataset_id"],
  ["a key that is too long", { idempotencyKey: "k".repeat(201) }, "", "idempotency_key"],
  ["a CSV file without the column", csv, "text;output\nx;a\n", "input_column"],
  ["a CSV file without the split's column", { ...csv, splitColumn: "part" }, "input,output\nx,a\n", "split_column"],
  ["a CSV header with a name twice", csv, "input,output,input\n", "file"],
  ["a CSV header that is malformed", csv, 'in"put,output\nx,a\n', "file"],
])("a request with %s is refused, naming the field", async (_, header, file, field) => {
  const refused = await importFile(client, await newDataset(client), file, header).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refused).toMatchObject({ code: "invalid_argument", fields: [{ field }] });
});

test("a stream without a header first, with two, or with too large a chunk is refused", async () => {
  const header = {
    projectId: project,
    datasetId: await newDataset(client),
    format: FileFormat.JSONL,
    defaultSplit: Split.TRAIN,
  };
  const send = (...parts: Parameters<typeof client.importRows>[0] extends AsyncIterable<infer Part> ? Part[] : never) =>
    client.importRows(
      (async function* () {
        yield* parts;
      })(),
    );
  const first = { part: { $case: "header" as const, value: header } };
  const chunk = (bytes: number) => ({ part: { $case: "chunk" as const, value: Buffer.alloc(bytes, 32) } });
  await expect(send()).rejects.toMatchObject({ fields: [{ field: "header" }] });
  await expect(send(chunk(1))).rejects.toMatchObject({ fields: [{ field: "header" }] });
  await expect(send(first, first)).rejects.toMatchObject({ fields: [{ field: "header" }] });
  await expect(send(first, chunk(1024 * 1024 + 1))).rejects.toMatchObject({ fields: [{ field: "chunk" }] });
  const end = (sizeBytes: number) => ({ part: { $case: "end" as const, value: { sizeBytes } } });
  const whole = { part: { $case: "chunk" as const, value: Buffer.from(jsonl([good])) } };
  const incomplete = { code: "invalid_argument", reason: "stream_incomplete", fields: [{ field: "end" }] };
  await expect(send(first, whole)).rejects.toMatchObject(incomplete);
  await expect(send(first, whole, end(1))).rejects.toMatchObject(incomplete);
  await expect(send(first, end(whole.part.value.byteLength), whole, whole)).rejects.toMatchObject(incomplete);
  expect((await client.listVersions({ projectId: project, datasetId: header.datasetId })).versions).toEqual([]);
  expect(await send(first, whole, end(whole.part.value.byteLength))).toMatchObject({ importedRows: 1 });
});

test("append starts from the newest version, and its rows count as seen", async () => {
  const id = await newDataset(client);
  const first = await importFile(client, id, jsonl([good, { input: "two", output: "a" }]));
  const file = jsonl([good, { input: "two", output: "b" }, { input: "three", output: "a" }]);
  const second = await importFile(client, id, file, { append: true });
  expect(second.version).toMatchObject({ rowCount: 3, addedRowCount: 1, parentVersionId: first.version?.id });
  expect(second.rejects).toMatchObject([
    { line: 1, code: "duplicate_row", message: expect.stringContaining("in the dataset already") },
    { line: 2, code: "conflicting_output" },
  ]);
  const nothingNew = await importFile(client, id, jsonl([good, good]), { append: true });
  expect(nothingNew).toMatchObject({ version: second.version, importedRows: 0, rejectedRows: 2 });
  // Asked strictly, or with another bad row, that is not what was wanted.
  const strict = await importFile(client, id, jsonl([good]), { append: true, strict: true });
  expect(strict).toMatchObject({ version: undefined, importedRows: 0, rejectedRows: 1 });
  const alsoBad = await importFile(client, id, `${jsonl([good])}{\n`, { append: true });
  expect(alsoBad).toMatchObject({ version: undefined, rejectedRows: 2 });
  expect((await client.listVersions({ projectId: project, datasetId: id })).versions).toHaveLength(2);
  const fresh = await importFile(client, id, jsonl([good]));
  expect(fresh.version).toMatchObject({ rowCount: 1, parentVersionId: "" });
  const whole = await importFile(
    client,
    await newDataset(client),
    jsonl([good, { input: "two", output: "a" }, { input: "three", output: "a" }]),
  );
  expect(whole.version?.digest).toBe(second.version?.digest);
});

test("a key returns the first import's answer, and refuses another file or header", async () => {
  const id = await newDataset(client);
  const file = `${jsonl([good])}{\n`;
  const header = { idempotencyKey: "import-1" };
  const first = await importFile(client, id, file, header);
  expect(await importFile(client, id, file, header)).toEqual(first);
  expect((await client.listVersions({ projectId: project, datasetId: id })).versions).toHaveLength(1);
  const reused = { code: "already_exists", reason: "idempotency_key_reused" };
  await expect(importFile(client, id, jsonl([good]), header)).rejects.toMatchObject(reused);
  await expect(importFile(client, id, file, { ...header, defaultSplit: Split.DEV })).rejects.toMatchObject(reused);
  const elsewhere = await importFile(client, await newDataset(client), file, header);
  expect(elsewhere.version?.id).not.toBe(first.version?.id);
});

test("imports at once: appends all land, one after the other, and an equal key makes one version", async () => {
  const id = await newDataset(client);
  await importFile(client, id, jsonl([good]));
  const appends = Array.from({ length: 6 }, (_, index) =>
    importFile(
      client,
      id,
      jsonl([
        { input: `row ${index}`, output: "a" },
        { input: "shared", output: "a" },
      ]),
      { append: true },
    ),
  );
  const answers = await Promise.all(appends);
  expect(answers.filter(({ importedRows }) => importedRows === 2)).toHaveLength(1);
  const { latestVersionId } = await client.getDataset({ projectId: project, id });
  const latest = await client.getVersion({ projectId: project, id: latestVersionId });
  expect(latest.rowCount).toBe(8);
  expect(new Set((await allRows(client, latest)).map(({ input }) => input)).size).toBe(8);

  const same = await Promise.all(
    Array.from({ length: 4 }, () => importFile(client, id, jsonl([good]), { idempotencyKey: "once" })),
  );
  expect(new Set(same.map(({ version }) => version?.id)).size).toBe(1);
});

test("half a file is never committed: a client that cancels, fails or loses its connection leaves nothing", async () => {
  const sockets = new Set<Socket>();
  const [host, port] = fixture.address.split(":");
  const proxy = createServer((socket) => {
    const upstream = createConnection(Number(port), host);
    socket.pipe(upstream).pipe(socket);
    for (const each of [socket, upstream]) each.on("error", () => {}) && sockets.add(each);
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const id = await newDataset(client);
  for (let attempt = 0; attempt < 30; attempt++) {
    const broken: Client = connect(DatasetsServiceDefinition, address);
    const abort = new AbortController();
    async function* requests() {
      const value = { projectId: project, datasetId: id, format: FileFormat.JSONL, defaultSplit: Split.TRAIN };
      yield { part: { $case: "header" as const, value } };
      yield { part: { $case: "chunk" as const, value: Buffer.from(jsonl([good])) } };
      await sleep(attempt % 7);
      if (attempt % 3 === 0) abort.abort();
      if (attempt % 3 === 1) for (const socket of sockets) socket.destroy();
      throw new Error("the client's file cannot be read");
    }
    await expect(broken.importRows(requests(), { signal: abort.signal })).rejects.toThrow();
    broken.close();
  }
  proxy.close();
  await sleep(100);
  expect((await client.listVersions({ projectId: project, datasetId: id })).versions).toEqual([]);
});

test("100,000 rows are imported, counted, listed by page and exported", async () => {
  const rows = Array.from({ length: 100_000 }, (_, index) => ({
    input: `Question number ${index}: where is my order, and why is it late?`,
    output: `label ${index % 7}`,
    part: index % 10 === 0 ? "dev" : "train",
  }));
  const { version } = await importFile(client, await newDataset(client), jsonl(rows), { splitColumn: "part" });
  expect(version).toMatchObject({ rowCount: 100_000, splits: { train: 90_000, dev: 10_000, test: 0 } });
  const request = { projectId: project, versionId: version?.id ?? "" };
  const page = await client.listRows({ ...request, split: Split.DEV, pageSize: 1_000 });
  const next = await client.listRows({ ...request, split: Split.DEV, pageSize: 1_000, cursor: page.nextCursor });
  expect(next.rows[0]?.input).toBe(rows[10_000]?.input);
  let lines = 0;
  for await (const { chunk } of client.exportRows(request)) for (const byte of chunk) if (byte === 10) lines++;
  expect(lines).toBe(100_000);
});
