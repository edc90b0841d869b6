/** The command line with the files that people really have: what it takes, what it leaves out, and what it says of it. */
import { readdir } from "node:fs/promises";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CliFixture, startCliFixture } from "./cli-fixture.js";

const slow = 180_000;
let fixture: CliFixture;
const api = () => request(fixture.url);

beforeAll(async () => {
  fixture = await startCliFixture();
}, slow);
afterAll(() => fixture?.stop(), slow);

const many = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const csv = (header: string, records: string[]) => `${[header, ...records].join("\n")}\n`;
const labels = ["billing", "delivery"];
/** A campaign on a file whose columns are text and label. */
const campaign = (data: string, name = "support", task = "labels: [billing, delivery]") =>
  `name: ${JSON.stringify(name)}
data: {${data}, columns: {input: text, output: label}}
task: {kind: classification, prompt_template: "Text: {input}\\nIt is about", ${task}}
settings: {preflight: false}
`;

test(
  "near-twins of a text lie on one side, so that what init writes for them is taken",
  async () => {
    const texts = many(60, (i) => `Where is parcel ${i}?`);
    const twins = texts.map((text) => ` ${text.toUpperCase().replace("?", " …").replaceAll(" ", "  ")}`);
    const records = [...texts, ...twins].map((text, i) => `${text},${labels[i % 2]}`);
    await fixture.put("twins.csv", csv("text,label", records));
    expect((await fixture.tutelage("init", "twins.csv", "--out", "twins.yaml")).code).toBe(0);
    const { code, told, out } = await fixture.tutelage("estimate", "twins.yaml");
    expect(told).toMatch(/rows as train\n.*rows as test\n$/);
    expect(code, told).toBe(0);
    expect(out).toContain("teacher_calls");
  },
  slow,
);

test(
  "bad CSV records are named with their line and left out, held back or not; strict refuses the file",
  async () => {
    const good = many(40, (i) => `"message ${i}\nin two lines",${labels[i % 2]}`);
    const bad = ["one, two,billing", 'a 5" screen,delivery', '"never closed,billing'];
    // Lines 2 to 41 are the first twenty rows, then come the bad ones.
    const lines = [42, 43, 44];
    await fixture.put("bad.csv", csv("text,label", [...good.slice(0, 20), ...bad, ...good.slice(20)]));
    await fixture.put("held.yaml", campaign("train: bad.csv, hold_back: 0.4"));
    await fixture.put("plain.yaml", campaign("train: bad.csv"));
    for (const file of ["held.yaml", "plain.yaml"]) {
      const { code, told } = await fixture.tutelage("estimate", file);
      expect(code, told).toBe(0);
      for (const line of lines)
        expect(told).toMatch(new RegExp(`^ {2}bad\\.csv:${line}: (The record has 3|A quote|Text follows)`, "m"));
      expect(told).toContain("3 left out");
      const rows = [...told.matchAll(/(\d+) rows as/g)].reduce((sum, [, count]) => sum + Number(count), 0);
      expect(rows, told).toBe(40);
      const strict = await fixture.tutelage("estimate", "--strict", file);
      expect(strict.code).toBe(65);
      expect(strict.told).toContain("strict refuses the whole file");
      expect(strict.told).toContain("bad.csv:43: ");
    }
  },
  slow,
);

test(
  "a row that is there twice is named by both its lines in the file",
  async () => {
    // Two lines a row, so that a part's lines are not the file's.
    const records = many(40, (i) => `"message\n${i}",${labels[i % 2]}`);
    await fixture.put("twice.csv", csv("text,label", [...records, ...records]));
    await fixture.put("twice.yaml", campaign("train: twice.csv, hold_back: 0.4"));
    const { code, told } = await fixture.tutelage("estimate", "twice.yaml");
    expect(code, told).toBe(0);
    const named = [...told.matchAll(/^ {2}twice\.csv:(\d+): input: The same input and output stand on line (\d+) /gm)];
    expect(named.length).toBeGreaterThan(20);
    for (const [, line, first] of named) expect(Number(line) - Number(first)).toBe(80);
  },
  slow,
);

test(
  "bytes that are no UTF-8 are named with their line, not replaced",
  async () => {
    const good = many(12, (i) => `message ${i},${labels[i % 2]}\n`).join("");
    await fixture.put(
      "latin1.csv",
      Buffer.concat([Buffer.from(`text,label\n${good}`), Buffer.from([0xfc, 0x2c, 0x61, 0x0a])]),
    );
    await fixture.put("latin1.yaml", campaign("train: latin1.csv"));
    const { code, told } = await fixture.tutelage("estimate", "latin1.yaml");
    expect(told).toContain("latin1.csv:14: The row is not UTF-8");
    expect(code, told).toBe(0);
  },
  slow,
);

test.each(["Kündigungen & Störungen 2026", "お客様の声", `much ${"too ".repeat(40)}long`])(
  "a file and a campaign may be called %s",
  async (name) => {
    const records = many(90, (i) => `message ${i},${labels[i % 2]}`);
    // A file's name has at most 255 bytes.
    const file = `${name.slice(0, 120)}.csv`;
    await fixture.put(file, csv("text,label", records));
    expect((await fixture.tutelage("init", file, "--out", "named.yaml", "--force")).code).toBe(0);
    const guessed = await fixture.tutelage("estimate", "named.yaml");
    expect(guessed.code, guessed.told).toBe(0);
    await fixture.put("called.yaml", campaign(`train: ${JSON.stringify(file)}`, name));
    const { code, told } = await fixture.tutelage("estimate", "called.yaml");
    expect(code, told).toBe(0);
  },
  slow,
);

test.each([
  ["a space after the comma", "Text, Label"],
  ["line breaks", '"What they\nwrote","Sorted into\n# by us: all"'],
  ["signs of YAML", '"- text: {a}","#label"'],
  ["a column without a name", "Words,Kind,"],
])(
  "what init writes for columns with %s can be read and is taken",
  async (_, header) => {
    const index = header.endsWith(",");
    const records = many(90, (i) => `message number ${i},${labels[i % 2]}${index ? ",1" : ""}`);
    await fixture.put("columns.csv", csv(header, records));
    const { code: made, told: why } = await fixture.tutelage("init", "columns.csv", "--out", "columns.yaml", "--force");
    expect(made, why).toBe(0);
    const { code, told } = await fixture.tutelage("estimate", "columns.yaml");
    expect(code, told).toBe(0);
    expect(told).not.toContain("left out");
  },
  slow,
);

test(
  "a mistyped label is left out and named with its line and the label that was meant; labels may hold commas",
  async () => {
    const records = many(20, (i) => `message ${i},"${["billing, refunds", "delivery"][i % 2]}"`);
    await fixture.put("typo.csv", csv("text,label", [...records, "one more,delivry"]));
    await fixture.put("typo.yaml", campaign("train: typo.csv", "typo", 'labels: ["billing, refunds", delivery]'));
    const { code, told } = await fixture.tutelage("estimate", "typo.yaml");
    expect(code, told).toBe(0);
    expect(told).toContain('typo.csv:22: label: "delivry" is not a label of the task; did you mean "delivery"?');
    expect(told).toContain("typo.csv: 20 rows as train, 1 left out");
  },
  slow,
);

test(
  "a share that holds nothing back is refused in one line with the least that works",
  async () => {
    await fixture.put(
      "few.csv",
      csv(
        "text,label",
        many(6, (i) => `message ${i},${labels[i % 2]}`),
      ),
    );
    await fixture.put("few.yaml", campaign("train: few.csv, hold_back: 0.05"));
    const { code, told } = await fixture.tutelage("estimate", "few.yaml");
    expect(code).toBe(65);
    const [, least = ""] =
      /^data\.hold_back: 0\.05 of the 6 rows .* no test row; the least share that works is (0\.\d+)\.\n$/.exec(told) ??
      [];
    const share = Number(least);
    expect(share, told).toBeGreaterThan(0.05);
    await fixture.put("few.yaml", campaign(`train: few.csv, hold_back: ${share}`));
    expect((await fixture.tutelage("estimate", "few.yaml")).told).toContain("1 rows as test");
    await fixture.put("few.yaml", campaign(`train: few.csv, hold_back: ${(share - 0.01).toFixed(2)}`));
    expect((await fixture.tutelage("estimate", "few.yaml")).code).toBe(65);
  },
  slow,
);

test(
  "a campaign on a named dataset takes its newest rows, and is the same one while they are",
  async () => {
    fixture.student.fails = false;
    const add = (rows: object[], status: number) =>
      api()
        .post("/v1/datasets/grown/import?append=true")
        .set("content-type", "application/x-ndjson")
        .send(rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
        .expect(status);
    const rows = many(12, (i) => ({ input: `message ${i}`, output: labels[i % 2] }));
    await api().post("/v1/datasets").send({ name: "grown" }).expect(201);
    await fixture.put("grown.yaml", campaign("dataset: grown"));
    const empty = await fixture.tutelage("run", "--detach", "grown.yaml");
    expect(empty).toMatchObject({ code: 65, told: 'The dataset "grown" has no rows yet; import some first.\n' });
    const { body: first } = await add(rows, 201);
    const run = async () => (await fixture.tutelage("run", "--detach", "grown.yaml")).out.trim();
    const id = await run();
    expect(await run()).toBe(id);
    // Nothing new: the version as it was.
    const { body: again } = await add(rows, 200);
    expect(again).toMatchObject({ imported_rows: 0, rejected_rows: 12, version: first.version });
    expect(await run()).toBe(id);
    const { body: more } = await add([{ input: "something new", output: "billing" }], 201);
    const other = await run();
    expect(other).not.toBe(id);
    const { body } = await api().get(`/v1/campaigns/${other}`).expect(200);
    expect(body.request.dataset_version_id).toBe(more.version.id);
    for (const one of [id, other]) await api().post(`/v1/campaigns/${one}/cancel`).send({}).expect(200);
  },
  slow,
);

test(
  "a dataset's overlaps are listed by row and by kind",
  async () => {
    await api().post("/v1/datasets").send({ name: "twins" }).expect(201);
    expect((await fixture.tutelage("datasets", "overlaps", "twins")).code).toBe(65);
    const rows = [
      { input: "where is my blue parcel", output: "a", split: "train" },
      { input: "Where is my blue parcel?", output: "a", split: "test" },
    ];
    await api()
      .post("/v1/datasets/twins/import?split_column=split")
      .set("content-type", "application/x-ndjson")
      .send(rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
      .expect(201);
    const { code, out } = await fixture.tutelage("datasets", "overlaps", "twins");
    expect(code).toBe(0);
    expect(out).toMatch(/^train against test rows +1 +0 +0$/m);
    expect(out).toMatch(/^train [0-9a-f]{32} +test [0-9a-f]{32} +exact +1\.00$/m);
  },
  slow,
);

test(
  "init says why when a file's header cannot be read",
  async () => {
    await fixture.put("header.csv", 'text,"label\nmessage,billing\n');
    const { code, told } = await fixture.tutelage("init", "header.csv", "--out", "header.yaml");
    expect(code).toBe(65);
    expect(told).toContain("header.csv:1: the header row cannot be read. A field opens with a quote");
    expect(await readdir(fixture.desk)).not.toContain("header.yaml");
  },
  slow,
);

test(
  "a public task's file is imported by its layout, whatever its name; without one the fix is said",
  async () => {
    await fixture.put(
      "train_5500.label",
      Buffer.from("LOC:city Where is Malm\u00f6 ?\nWhere ?\nHUM:ind Who ?\n", "latin1"),
    );
    expect((await fixture.tutelage("datasets", "create", "trec")).code).toBe(0);
    const { code, told, out } = await fixture.tutelage(
      ...["datasets", "import", "trec", "train_5500.label", "--layout", "trec", "--default-split", "test"],
    );
    expect(told).toMatch(/^ {2}train_5500\.label:2: The line is not "LABEL:fine question"/);
    expect(out).toContain("2 rows taken, 1 left out");
    expect(code).toBe(1);
    const exported = await fixture.tutelage("datasets", "export", "trec");
    expect(exported.out).toContain("Where is Malmö ?");
    const unsaid = await fixture.tutelage("datasets", "import", "trec", "train_5500.label");
    expect(unsaid).toMatchObject({ code: 64, told: expect.stringContaining("--layout") });
    const unknown = await fixture.tutelage("datasets", "import", "trec", "train_5500.label", "--layout", "trek");
    expect(unknown).toMatchObject({ code: 64, told: expect.stringMatching(/casehold, gsm8k, snips, sst2, trec/) });
    expect((await fixture.tutelage("datasets", "import", "--help")).out).toContain("--layout <task>");
  },
  slow,
);

test(
  "a task's worked example goes into YAML and comes back, and is checked",
  async () => {
    const yaml = (newOutput: string) => `name: sorting
kind: classification
prompt_template: "Text: {input}\\nIt is about"
labels: [{name: billing}, {name: delivery}]
worked_example:
  input: You took my money twice.
  output: billing
  wrong_answer: delivery
  new_input: Why is this invoice higher?
  new_output: ${newOutput}
`;
    await fixture.put("sorting.yaml", yaml("billing"));
    expect((await fixture.tutelage("tasks", "put", "sorting.yaml")).code).toBe(0);
    const { out } = await fixture.tutelage("tasks", "get", "sorting");
    expect(out).toContain("worked_example:\n  input: You took my money twice.\n");
    expect(out).toContain("  new_input: Why is this invoice higher?\n");
    await fixture.put("sorting.yaml", yaml("delivery"));
    const refused = await fixture.tutelage("tasks", "put", "sorting.yaml");
    expect(refused).toMatchObject({ code: 65, told: expect.stringContaining("worked_example.new_output") });
    const preset = await fixture.tutelage("tasks", "get", "gsm8k");
    expect(preset.out).toContain("worked_example:");
  },
  slow,
);
