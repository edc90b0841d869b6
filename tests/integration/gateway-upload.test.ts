import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../support/waiting.js";
import { type Fixture, startFixture } from "./gateway-fixture.js";

const limit = 200_000;
let fixture: Fixture;
let made = 0;
const api = () => request(fixture.url);
const jsonl = (...inputs: string[]) => inputs.map((input) => `${JSON.stringify({ input, output: "a" })}\n`).join("");
async function dataset(): Promise<string> {
  const name = `upload-${++made}`;
  await api().post("/v1/datasets").send({ name }).expect(201);
  return name;
}

beforeAll(async () => {
  fixture = await startFixture({ GATEWAY_MAX_IMPORT_BYTES: String(limit) });
});
afterAll(() => fixture.stop());

test.each([
  ["rows.jsonl", undefined, jsonl("one", "two")],
  ["ROWS.CSV", "application/vnd.ms-excel", 'input,output\none,a\n"two",a\n'],
  ["rows", "text/csv; charset=utf-8", "input,output\none,a\ntwo,a\n"],
  ["blob", "application/x-ndjson", jsonl("one", "two")],
])("a form with the file %s (%s) is imported", async (filename, contentType, text) => {
  const { body } = await api()
    .post(`/v1/datasets/${await dataset()}/import?default_split=dev`)
    .attach("file", Buffer.from(text), { filename, ...(contentType === undefined ? {} : { contentType }) })
    .expect(201);
  expect(body).toMatchObject({ imported_rows: 2, rejected_rows: 0, version: { splits: { dev: 2 } } });
});

test("the key makes a form and the bare file the same import, and another file another request", async () => {
  const path = `/v1/datasets/${await dataset()}/import`;
  const send = (text: string) =>
    api().post(path).set("idempotency-key", "once").attach("file", Buffer.from(text), { filename: "a.jsonl" });
  const first = (await send(jsonl("one")).expect(201)).body;
  expect((await send(jsonl("one")).expect(201)).body).toEqual(first);
  const bare = await api()
    .post(path)
    .set("idempotency-key", "once")
    .set("content-type", "application/x-ndjson")
    .send(jsonl("one"));
  expect(bare.body).toEqual(first);
  expect((await send(jsonl("two")).expect(409)).body.reason).toBe("idempotency_key_reused");
});

test("bad rows are told by line, and strict refuses the file, as with a bare one", async () => {
  const { body } = await api()
    .post(`/v1/datasets/${await dataset()}/import?strict=true`)
    .attach("file", Buffer.from(`${jsonl("one")}oops\n`), { filename: "a.jsonl" })
    .expect(422);
  expect(body).toMatchObject({ reason: "rows_rejected", errors: [{ field: "line 2" }] });
});

const boundary = "----x";
const part = (headers: string, content: string) => `--${boundary}\r\n${headers}\r\n\r\n${content}\r\n`;
const filePart = (name: string, content: string) =>
  part(`Content-Disposition: form-data; name="${name}"; filename="a.jsonl"`, content);
const end = `--${boundary}--\r\n`;

test.each([
  [
    "a second file",
    `${filePart("file", jsonl("one"))}${filePart("more", jsonl("two"))}${end}`,
    "invalid_argument",
    "more",
  ],
  [
    "a field before the file",
    `${part('Content-Disposition: form-data; name="strict"', "true")}${filePart("file", jsonl("one"))}${end}`,
    "invalid_argument",
    "strict",
  ],
  [
    "a field after the file",
    `${filePart("file", jsonl("one"))}${part('Content-Disposition: form-data; name="strict"', "true")}${end}`,
    "invalid_argument",
    "strict",
  ],
  ["no file", end, "invalid_argument", "file"],
  ["an unknown kind of file", filePart("file", "x").replace("a.jsonl", "a.xlsx") + end, "unknown_file_format", "file"],
  ["a body cut off in the file", filePart("file", jsonl("one", "two")).slice(0, -20), "malformed_multipart", undefined],
  ["a body cut off after the file", filePart("file", jsonl("one")), "malformed_multipart", undefined],
  ["a body that is none", "hello", "malformed_multipart", undefined],
])("%s is refused, and nothing is imported", async (_what, body, reason, field) => {
  const name = await dataset();
  const response = await api()
    .post(`/v1/datasets/${name}/import`)
    .set("content-type", `multipart/form-data; boundary=${boundary}`)
    .send(body)
    .expect(400);
  expect(response.headers["content-type"]).toContain("application/problem+json");
  expect(response.body).toMatchObject({ reason, errors: field === undefined ? [] : [{ field }] });
  expect((await api().get(`/v1/datasets/${name}`)).body.latest_version_id).toBe("");
});

test.each([
  ["an unknown kind of file", "rows.xlsx", 400, "unknown_file_format"],
  ["a file beyond the limit", "rows.jsonl", 413, "body_too_large"],
])("after %s the rest of a large upload is taken and dropped", async (_what, filename, status, reason) => {
  const { hostname, port } = new URL(fixture.url);
  const head = filePart("file", "").replace("a.jsonl", filename).slice(0, -2);
  const megabytes = 20;
  // A socket: Node's own client says no more when it may go on, once it has its answer.
  const socket = connect(Number(port), hostname);
  const answer: Buffer[] = [];
  socket.on("data", (bytes) => answer.push(bytes));
  socket.write(
    `POST /v1/datasets/${await dataset()}/import HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n` +
      `content-type: multipart/form-data; boundary=${boundary}\r\n` +
      `content-length: ${head.length + megabytes * 1_000_000}\r\n\r\n${head}`,
  );
  for (let sent = 0; sent < megabytes; sent += 1) {
    if (!socket.write("x".repeat(1_000_000))) await once(socket, "drain", { signal: AbortSignal.timeout(10_000) });
  }
  await until(() => Buffer.concat(answer).includes(reason));
  socket.destroy();
  expect(Buffer.concat(answer).toString()).toContain(`HTTP/1.1 ${status} `);
});

test("multipart without a boundary is malformed, and only the import takes a form at all", async () => {
  const send = (path: string, type: string) => api().post(path).set("content-type", type).send("x");
  const bare = await send(`/v1/datasets/${await dataset()}/import`, "multipart/form-data").expect(400);
  expect(bare.body.reason).toBe("malformed_multipart");
  for (const path of ["/v1/datasets", `/v1/campaigns/${crypto.randomUUID()}/cancel`]) {
    const other = await send(path, `multipart/form-data; boundary=${boundary}`).expect(415);
    expect(other.body.reason).toBe("unsupported_media_type");
  }
});

test("a web page of another site cannot send a form", async () => {
  const { body } = await api()
    .post(`/v1/datasets/${await dataset()}/import`)
    .set("origin", "https://evil.example")
    .attach("file", Buffer.from(jsonl("one")), { filename: "a.jsonl" })
    .expect(403);
  expect(body.reason).toBe("origin_not_allowed");
});

test.each([
  ["multipart", `multipart/form-data; boundary=${boundary}`],
  ["a bare file", "application/x-ndjson"],
])("%s beyond the limit gets its answer although 30 MB of it are still to come", async (_what, contentType) => {
  const name = await dataset();
  const call = httpRequest(`${fixture.url}/v1/datasets/${name}/import`, {
    method: "POST",
    headers: { "content-type": contentType },
  });
  const answered = once(call, "response") as Promise<[IncomingMessage]>;
  const form = contentType.startsWith("multipart");
  function* pieces() {
    if (form) yield filePart("file", "").slice(0, -2);
    const filler = jsonl(...Array.from({ length: 100 }, () => "x".repeat(3_000)));
    for (let piece = 0; piece < 100; piece++) yield filler;
    if (form) yield `\r\n${end}`;
  }
  // Whoever is refused in the middle stops sending, as curl does.
  const sending = pipeline(Readable.from(pieces()), call).catch(() => {});
  const [response] = await answered;
  let text = "";
  for await (const chunk of response) text += chunk.toString();
  expect(response.statusCode).toBe(413);
  call.destroy();
  await sending;
  expect(JSON.parse(text)).toMatchObject({ reason: "body_too_large", detail: expect.stringContaining(String(limit)) });
  expect((await api().get(`/v1/datasets/${name}`)).body.latest_version_id).toBe("");
});

test("a file for a dataset that is not there gets that answer", async () => {
  const { body } = await api()
    .post("/v1/datasets/nobody/import")
    .attach("file", Buffer.from(jsonl("one")), { filename: "a.jsonl" })
    .expect(404);
  expect(body.reason).toBe("dataset_not_found");
});
