import type { Readable } from "node:stream";
import request, { type Response } from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
const api = () => request(fixture.url);
const jsonl = (rows: object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const importJsonl = (dataset: string, body: string, query = "") =>
  api().post(`/v1/datasets/${dataset}/import?${query}`).set("content-type", "application/x-ndjson").send(body);

beforeAll(async () => {
  fixture = await startFixture({ GATEWAY_MAX_IMPORT_BYTES: "200000" });
});
afterAll(() => fixture.stop());

test("a dataset is found by its name and by its id, and its name is taken once", async () => {
  const made = await api().post("/v1/datasets").send({ name: "intents" }).expect(201);
  expect(made.headers.location).toBe(`/v1/datasets/${made.body.id}`);
  expect(made.body).toEqual({
    id: expect.any(String),
    name: "intents",
    latest_version_id: "",
    created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
  });
  expect((await api().get("/v1/datasets/intents").expect(200)).body).toEqual(made.body);
  expect((await api().get(`/v1/datasets/${made.body.id}`).expect(200)).body).toEqual(made.body);
  expect((await api().get("/v1/datasets").expect(200)).body.datasets).toContainEqual(made.body);
  const again = await api().post("/v1/datasets").send({ name: "intents" }).expect(409);
  expect(again.headers["content-type"]).toContain("application/problem+json");
});

test("bad rows are listed with their lines, the good ones imported, paged, filtered and exported", async () => {
  await api().post("/v1/datasets").send({ name: "mixed" }).expect(201);
  const body = [
    '{"input": "where is my parcel", "output": "shipping", "split": "train", "metadata": {"customerId": "7"}}',
    "{not json",
    '{"input": "i was charged twice", "output": "billing", "split": "dev"}',
    '{"output": "billing"}',
    '{"input": "give me my money back", "output": "refund", "split": "test"}',
  ].join("\n");
  const { body: result } = await importJsonl("mixed", body, "split_column=split").expect(201);
  expect(result).toMatchObject({ imported_rows: 3, rejected_rows: 2 });
  expect(result.rejects.map((reject: { line: number; code: string }) => [reject.line, reject.code])).toEqual([
    [2, "malformed_json"],
    [4, "missing_field"],
  ]);
  expect(result.version.splits).toEqual({ train: 1, dev: 1, test: 1 });

  const version = `/v1/versions/${result.version.id}`;
  expect((await api().get(version).expect(200)).body).toEqual(result.version);
  expect((await api().get("/v1/datasets/mixed/versions").expect(200)).body.versions).toEqual([result.version]);
  const first = (await api().get(`${version}/rows?limit=2`).expect(200)).body;
  const second = (await api().get(`${version}/rows?limit=2&cursor=${first.next_cursor}`).expect(200)).body;
  expect([...first.rows, ...second.rows].map((row) => row.output)).toEqual(["shipping", "billing", "refund"]);
  expect(second.next_cursor).toBe("");
  const dev = (await api().get(`${version}/rows?split=dev&origin=seed`).expect(200)).body.rows;
  expect(dev).toHaveLength(1);
  expect(dev[0]).toMatchObject({ input: "i was charged twice", split: "dev", origin: "seed" });

  const file = await api().get(`${version}/export?split=test`).buffer(true).parse(asText).expect(200);
  expect(file.headers["content-type"]).toBe("application/x-ndjson");
  expect(
    String(file.body)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).output),
  ).toEqual(["refund"]);
});

test("what changed between two versions is told by row, with the numbers first; rows are narrowed", async () => {
  await api().post("/v1/datasets").send({ name: "changed" }).expect(201);
  const rowsOf = (last: string) =>
    jsonl([
      { input: "a b", output: "x" },
      { input: "c d", output: last },
    ]);
  const before = (await importJsonl("changed", rowsOf("x")).expect(201)).body.version.id;
  const after = (await importJsonl("changed", rowsOf("y")).expect(201)).body.version.id;
  const path = `/v1/versions/${after}/diff?against=${before}`;
  const first = (await api().get(`${path}&limit=1`).expect(200)).body;
  const second = (await api().get(`${path}&limit=1&cursor=${first.next_cursor}`).expect(200)).body;
  expect([first, second].map(({ changes }) => [changes[0].kind, changes[0].row.output])).toEqual([
    ["added", "y"],
    ["removed", "x"],
  ]);
  expect(first).toMatchObject({
    against_version_id: before,
    summary: {
      added_rows: 1,
      removed_rows: 1,
      unchanged_rows: 1,
      counts: [
        { kind: "added", split: "train", origin: "seed", rows: 1 },
        { kind: "removed", split: "train", origin: "seed", rows: 1 },
      ],
    },
  });
  expect(second.summary).toBeUndefined();
  expect((await api().get(`${path}&change=removed`).expect(200)).body.changes).toEqual(second.changes);
  for (const [query, field] of [
    ["against=first", "against"],
    ["change=moved", "change"],
  ]) {
    expect((await api().get(`/v1/versions/${after}/diff?${query}`).expect(400)).body.errors[0].field).toBe(field);
  }

  const inputs = async (query: string) =>
    (await api().get(`/v1/versions/${after}/rows?${query}`).expect(200)).body.rows.map(
      (row: { input: string }) => row.input,
    );
  expect(await inputs("output=y")).toEqual(["c d"]);
  expect(await inputs("contains=A%20B")).toEqual(["a b"]);
  expect(await inputs("iteration=0")).toEqual(["a b", "c d"]);
  expect(await inputs("iteration=1")).toEqual([]);
  const [{ row }] = first.changes;
  expect(await inputs(`root=${row.id}`)).toEqual([]);
  expect((await api().get(`/v1/versions/${after}/rows?root=x`).expect(400)).body.errors[0].field).toBe("root_row_id");

  const lineage = (await api().get(`/v1/versions/${after}/rows/${row.id}/lineage`).expect(200)).body;
  expect(lineage).toMatchObject({ row, ancestors: [], children: [], descendant_count: 0, added_in: { id: after } });
  expect(lineage.made_by).toBeUndefined();
  const gone = await api().get(`/v1/versions/${before}/rows/${row.id}/lineage`).expect(404);
  expect(gone.body.reason).toBe("row_not_found");
});

test("rows of a split that say what a row of another split says are told with their counts", async () => {
  await api().post("/v1/datasets").send({ name: "overlapping" }).expect(201);
  const body = jsonl([
    { input: "where is my blue parcel", output: "x", split: "train" },
    { input: "Where is my blue parcel?", output: "x", split: "dev" },
    { input: "two red bicycles stand outside", output: "x", split: "test" },
  ]);
  const { version } = (await importJsonl("overlapping", body, "split_column=split").expect(201)).body;
  const path = `/v1/versions/${version.id}`;
  const [train, dev, tested] = (await api().get(`${path}/rows`).expect(200)).body.rows;
  const { body: found } = await api().get(`${path}/overlaps`).expect(200);
  expect(found).toEqual({
    counts: [{ split: "train", against: "dev", kind: "exact", rows: 1 }],
    overlaps: [
      { row_id: train.id, split: "train", overlap: { kind: "exact", row_id: dev.id, split: "dev", strength: 1 } },
    ],
  });
  expect(JSON.stringify(found)).not.toContain(tested.id);
  const { body: none } = await api().get(`${path}/overlaps?limit=1`).expect(200);
  expect(none.overlaps).toHaveLength(1);
  expect((await api().get(`${path}/overlaps?limit=0`).expect(400)).body.errors[0].field).toBe("limit");
  await api().get(`/v1/versions/${crypto.randomUUID()}/overlaps`).expect(404);
});

test("keys of a row's metadata are the user's and stay as they are", async () => {
  await api().post("/v1/datasets").send({ name: "metadata" }).expect(201);
  const body = jsonl([{ input: "a", output: "x", customerId: "7", Mixed_Case: "y" }]);
  const { version } = (await importJsonl("metadata", body).expect(201)).body;
  const { rows } = (await api().get(`/v1/versions/${version.id}/rows`).expect(200)).body;
  expect(rows[0].metadata).toEqual({ customerId: "7", Mixed_Case: "y" });
});

test("CSV columns are mapped", async () => {
  await api().post("/v1/datasets").send({ name: "csv" }).expect(201);
  const { body } = await api()
    .post("/v1/datasets/csv/import?input_column=text&output_column=label&default_split=test&labels=a,b")
    .set("content-type", "text/csv; charset=utf-8")
    .send('text,label\n"one, two",a\nthree,c\n')
    .expect(201);
  expect(body).toMatchObject({ imported_rows: 1, rejected_rows: 1, rejects: [{ line: 3, code: "unknown_label" }] });
  expect(body.version.splits.test).toBe(1);
});

test("allowed labels come between commas, or as a JSON list where one holds a comma", async () => {
  await api().post("/v1/datasets").send({ name: "labels" }).expect(201);
  const rows = jsonl(["a, b", "c", "[d]", "e"].map((output, index) => ({ input: `text ${index}`, output })));
  const left = async (labels: string) => {
    const { body } = await importJsonl("labels", rows, `labels=${encodeURIComponent(labels)}`).expect(201);
    return body.rejects.map(({ line }: { line: number }) => line);
  };
  expect(await left(JSON.stringify(["a, b", "c"]))).toEqual([3, 4]);
  expect(await left("c,[d]")).toEqual([1, 4]);
  expect(await left("[d],e")).toEqual([1, 2]);
  expect(await left("[]")).toEqual([]);
  const { body } = await importJsonl("labels", rows, `labels=${encodeURIComponent('["a", 1]')}`).expect(400);
  expect(body.errors).toMatchObject([{ field: "labels", message: expect.stringContaining("JSON list") }]);
});

test("an append of rows that are all there already answers with the version as it was", async () => {
  await api().post("/v1/datasets").send({ name: "nothing-new" }).expect(201);
  const rows = jsonl([{ input: "a", output: "x" }]);
  const { body: first } = await importJsonl("nothing-new", rows, "append=true").expect(201);
  const { body: again } = await importJsonl("nothing-new", rows, "append=true").expect(200);
  expect(again).toMatchObject({ version: first.version, imported_rows: 0, rejected_rows: 1 });
  expect(again.rejects).toMatchObject([{ code: "duplicate_row" }]);
  await importJsonl("nothing-new", rows, "append=true&strict=true").expect(422);
});

test("strict refuses the whole file and says which line is at fault", async () => {
  await api().post("/v1/datasets").send({ name: "strict" }).expect(201);
  const { body } = await importJsonl("strict", `${jsonl([{ input: "a", output: "b" }])}oops\n`, "strict=true").expect(
    422,
  );
  expect(body).toMatchObject({
    reason: "rows_rejected",
    imported_rows: 0,
    rejected_rows: 1,
    errors: [{ field: "line 2" }],
  });
  expect((await api().get("/v1/datasets/strict")).body.latest_version_id).toBe("");
});

test.each([
  [
    "a body beyond the limit is refused with 413",
    () => importJsonl("limits", "x".repeat(300_000)),
    413,
    "body_too_large",
  ],
  [
    "a JSON body beyond the limit is refused with 413",
    () =>
      api()
        .post("/v1/datasets")
        .send({ name: "x".repeat(2_000_000) }),
    413,
    "body_too_large",
  ],
  [
    "a content type that no web form can avoid is refused with 415",
    () => api().post("/v1/datasets").set("content-type", "text/plain").send('{"name": "x"}'),
    415,
    "unsupported_media_type",
  ],
  [
    "half a JSON is malformed",
    () => api().post("/v1/datasets").set("content-type", "application/json").send('{"name": '),
    400,
    "malformed_json",
  ],
  ["an unknown dataset is not found", () => api().get("/v1/datasets/nobody"), 404, "dataset_not_found"],
  ["an unknown version is not found", () => api().get(`/v1/versions/${crypto.randomUUID()}/rows`), 404, undefined],
  [
    "its export, too, before a byte is sent",
    () => api().get(`/v1/versions/${crypto.randomUUID()}/export`),
    404,
    undefined,
  ],
  ["an id that is none is not found", () => api().get("/v1/versions/7"), 404, "dataset_version_not_found"],
  ["an unknown route is not found", () => api().get("/v1/nothing"), 404, "route_not_found"],
] as const)("%s", async (_name, call, status, reason) => {
  await api().post("/v1/datasets").send({ name: "limits" });
  const { body, headers } = await call();
  expect(body.status).toBe(status);
  if (reason !== undefined) expect(body.reason).toBe(reason);
  expect(headers["content-type"]).toContain("application/problem+json");
  expect(body).toMatchObject({
    type: `urn:tutelage:problem:${body.reason}`,
    title: expect.any(String),
    detail: expect.any(String),
    instance: expect.stringMatching(/^\/v1\//),
    request_id: headers["x-request-id"],
  });
});

test.each([
  ["POST", "/v1/datasets", {}, "name", /missing/],
  ["POST", "/v1/datasets", { name: "no spaces" }, "name", /letters/],
  ["POST", "/v1/datasets", { name: "x", nmae: "y" }, "nmae", /not a known field/],
  ["GET", "/v1/datasets?limit=many", undefined, "limit", /number/],
  ["GET", "/v1/datasets?limit=0", undefined, "limit", /1/],
  ["GET", `/v1/versions/${crypto.randomUUID()}/rows?split=training`, undefined, "split", /"train", "dev", "test"/],
] as const)("%s %s %j names the field and the fix", async (method, path, body, field, fix) => {
  const call = method === "POST" ? api().post(path).send(body) : api().get(path);
  const response = await call.expect(400);
  expect(response.body.reason).toBe("invalid_request");
  expect(response.body.errors).toEqual([{ field, message: expect.stringMatching(fix) }]);
});

function asText(response: Response, done: (error: Error | null, text: string) => void): void {
  let text = "";
  // superagent hands a parser the raw stream, whatever its types say.
  (response as unknown as Readable).on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  (response as unknown as Readable).on("end", () => done(null, text));
}
