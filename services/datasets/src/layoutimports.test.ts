/** Public layouts through the service: one import each, and what does not go with a layout. */
import { FileFormat, FileLayout, type ImportHeader } from "@tutelage/proto/datasets/v1/datasets";
import { FieldType, Split } from "@tutelage/proto/task/v1/task";
import { afterAll, expect, test } from "vitest";
import { allRows, importFile, newDataset, startFixture } from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

const choices = "holding a,holding b,holding c,holding d,holding e";

test.each<[keyof typeof FileLayout, string, [input: string, output: string][], rejectedLine: number]>([
  [
    "GSM8K",
    '{"question": "4 rows of 6?", "answer": "4*6=<<4*6=24>>24\\n#### 24"}\n{"question": "5?", "answer": "5"}\n',
    [["4 rows of 6?", "4*6=24\n#### 24"]],
    2,
  ],
  ["TREC", "HUM:ind Who rows ?\nWho rows ?\n", [["Who rows ?", "HUM"]], 2],
  ["SST2", "sentence\tlabel\na bore \t0\na joy\t2\n", [["a bore", "negative"]], 3],
  [
    "SNIPS",
    '{"PlayMusic": [\n{"data": [{"text": "play "}, {"text": "Blue", "entity": "album"}]},\n{"data": 1}\n]}',
    [["play Blue", "PlayMusic"]],
    3,
  ],
  [
    "CASEHOLD",
    `citing_prompt,holding_0,holding_1,holding_2,holding_3,holding_4,label\np,${choices},1\np,${choices},9\n`,
    [
      [
        "p\nWhich holding belongs in the place of <HOLDING>?\n" +
          "A. holding a\nB. holding b\nC. holding c\nD. holding d\nE. holding e",
        "B",
      ],
    ],
    3,
  ],
])("%s: the good rows are a version, the bad one is named by its line", async (task, file, rows, rejectedLine) => {
  const id = await newDataset(client);
  const answer = await importFile(client, id, file, { layout: FileLayout[task], defaultSplit: Split.TEST }, 5);
  expect(answer.rejects.map(({ line }) => Number(line))).toEqual([rejectedLine]);
  const stored = await allRows(client, answer.version);
  expect(stored.map(({ input, output, split }) => [input, output, split])).toEqual(
    rows.map((row) => [...row, Split.TEST]),
  );
  expect(stored[0]?.metadata).toEqual(task === "TREC" ? { fine_label: "ind" } : {});
});

test("labels that the request names count instead of the layout's; strict refuses the whole file", async () => {
  const file = "HUM:ind Who rows ?\nLOC:city Where ?\n";
  const layout = FileLayout.TREC;
  const some = await importFile(client, await newDataset(client), file, { layout, allowedLabels: ["LOC"] });
  expect(some).toMatchObject({ importedRows: 1, rejects: [{ line: 1, code: "unknown_label", field: "label" }] });
  const strict = await importFile(client, await newDataset(client), `${file}x\n`, { layout, strict: true });
  expect(strict).toMatchObject({ version: undefined, rejectedRows: 1 });
});

test("a key stands for the layout, too", async () => {
  const id = await newDataset(client);
  const header = { layout: FileLayout.TREC, idempotencyKey: "once" };
  const first = await importFile(client, id, "HUM:ind Who rows ?\n", header);
  expect(await importFile(client, id, "HUM:ind Who rows ?\n", header)).toEqual(first);
  await expect(
    importFile(client, id, "HUM:ind Who rows ?\n", { ...header, layout: FileLayout.GSM8K }),
  ).rejects.toMatchObject({ reason: "idempotency_key_reused" });
});

test.each<[string, Partial<ImportHeader>]>([
  ["format", { format: FileFormat.CSV }],
  ["input_column", { inputColumn: "a" }],
  ["output_column", { outputColumn: "a" }],
  ["split_column", { splitColumn: "a" }],
  ["fields", { fields: [{ name: "city", type: FieldType.STRING, optional: false, description: "" }] }],
  ["default_split", { defaultSplit: Split.UNSPECIFIED }],
])("%s does not go with a layout", async (field, header) => {
  const asked = importFile(client, await newDataset(client), "", { layout: FileLayout.TREC, ...header });
  await expect(asked).rejects.toMatchObject({ fields: [{ field }] });
});

test("GLUE's test split is refused, with what to use instead", async () => {
  const asked = importFile(client, await newDataset(client), "index\tsentence\n0\tfine\n", { layout: FileLayout.SST2 });
  await expect(asked).rejects.toMatchObject({ message: expect.stringMatching(/use train\.tsv or dev\.tsv/) });
});
