import { publicTasks } from "@tutelage/platform/publictasks";
import { FileLayout } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { describe, expect, test } from "vitest";
import { layoutForm, rowsOf } from "./fileform.js";
import { layouts } from "./layouts.js";

type Task = Exclude<keyof typeof FileLayout, "UNSPECIFIED">;

/** What a file comes to: [line, input, output] of a row, [line, code, field, message] of what is none. */
async function read(task: Task, file: string | Buffer, chunkBytes = 7): Promise<unknown[][]> {
  const bytes = Buffer.from(file);
  async function* chunks() {
    for (let at = 0; at < bytes.byteLength; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const layout = layouts[FileLayout[task]];
  const mapping = {
    ...layout,
    splitColumn: "",
    defaultSplit: Split.TRAIN,
    allowedLabels: new Set(layout.labels),
    fields: [],
  };
  const told: unknown[][] = [];
  for await (const batch of rowsOf(chunks(), layoutForm(layout), mapping)) {
    for (const one of batch) {
      if ("row" in one) told.push([one.line, one.row.input, one.row.output]);
      else told.push([one.line, one.problem.code, one.problem.field, one.problem.message]);
    }
  }
  return told;
}

const bad = (line: number, code: string, field: string, message: RegExp) => [
  line,
  code,
  field,
  expect.stringMatching(message),
];
const latin1 = (text: string) => Buffer.from(text, "latin1");
const mebibyte = 1024 * 1024;

test("every public task has a layout of its name", () => {
  expect(Object.keys(layouts).map((name) => name.replace("FILE_LAYOUT_", "").toLowerCase())).toEqual(
    expect.arrayContaining([...publicTasks]),
  );
  expect(Object.keys(layouts)).toHaveLength(publicTasks.length);
});

describe("GSM8K", () => {
  const line = (question: unknown, answer: unknown) => JSON.stringify({ question, answer });

  test("the calculator's marks go, the solution and its last line stay", async () => {
    const file = [
      line(" A crate holds 4 rows of 6 jars. How many? ", "It holds 4*6=<<4*6=24>>24 jars.\n#### 24"),
      line("And $1,200 less a tenth?", "A tenth is $<<1200/10=120>>120.\n1200-120=<<1200-120=1080>>1080\n#### 1,080\n"),
      line("How cold?", "3-5=<<3-5=-2>>-2\n#### -2"),
    ].join("\n");
    expect(await read("GSM8K", file)).toEqual([
      [1, "A crate holds 4 rows of 6 jars. How many?", "It holds 4*6=24 jars.\n#### 24"],
      [2, "And $1,200 less a tenth?", "A tenth is $120.\n1200-120=1080\n#### 1,080"],
      [3, "How cold?", "3-5=-2\n#### -2"],
    ]);
  });

  test("a bad row is named, and the next one read", async () => {
    const file = Buffer.concat([
      Buffer.from(
        `${[
          "{half",
          line("No last line?", "It is 5."),
          line("Two numbers after it?", "#### 5 or 6"),
          line("Not closed?", "5+5=<<5+5=10 10\n#### 10"),
          line("Only a number?", 5),
          line("", "#### 1"),
          line(7, "#### 1"),
          '{"question": "No answer?"}',
          `{"question": "${"x".repeat(mebibyte)}", "answer": "#### 1"}`,
        ].join("\n")}\n`,
      ),
      latin1('{"question": "Café?", "answer": "#### 1"}\n'),
      Buffer.from(line("Last?", "#### 3")),
    ]);
    expect(await read("GSM8K", file, 65_536)).toEqual([
      bad(1, "malformed_json", "", /one JSON object a line/),
      bad(2, "malformed_line", "answer", /does not end with a line "#### n"/),
      bad(3, "malformed_line", "answer", /does not end/),
      bad(4, "malformed_line", "answer", /not closed/),
      bad(5, "malformed_line", "answer", /only a number/),
      bad(6, "empty_field", "question", /give the input/),
      bad(7, "wrong_type", "question", /must be text, not 7/),
      bad(8, "missing_field", "answer", /expected answer/),
      bad(9, "too_large", "", /1 MiB/),
      bad(10, "invalid_utf8", "", /UTF-8/),
      [11, "Last?", "#### 3"],
    ]);
  });
});

describe("TREC", () => {
  test("the coarse label is the output, also where bytes are latin-1", async () => {
    const file = Buffer.concat([
      Buffer.from("NUM:count How many oars has a galley ?\r\n\n"),
      latin1("LOC:other Where is the Zürichberg ?\n"),
      Buffer.from("DESC:def  What is a « café » : a word ?"),
    ]);
    expect(await read("TREC", file)).toEqual([
      [1, "How many oars has a galley ?", "NUM"],
      [3, "Where is the Zürichberg ?", "LOC"],
      [4, "What is a « café » : a word ?", "DESC"],
    ]);
  });

  test("a bad line is named, and the next one read", async () => {
    const lines = [
      "How many oars has a galley ?",
      "NUM How many ?",
      "NUM:count",
      "NUMB:count How many ?",
      "num:count How many ?",
      `NUM:count ${"x".repeat(mebibyte)}`,
      "NUM:count How\u0000many ?",
      "HUM:ind Who rows ?",
    ];
    expect(await read("TREC", lines.join("\n"), 65_536)).toEqual([
      bad(1, "malformed_line", "", /"LABEL:fine question"/),
      bad(2, "malformed_line", "", /LABEL:fine/),
      bad(3, "malformed_line", "", /LABEL:fine/),
      bad(4, "unknown_label", "label", /did you mean "NUM"/),
      bad(5, "unknown_label", "label", /did you mean "NUM"/),
      bad(6, "too_large", "", /1 MiB/),
      bad(7, "wrong_type", "question", /U\+0000/),
      [8, "Who rows ?", "HUM"],
    ]);
  });
});

describe("SST-2", () => {
  test("0 is negative and 1 positive, wherever the columns stand; quotes are text", async () => {
    expect(await read("SST2", 'sentence\tlabel\nfresh and " odd \t1\na bore \t0\r\n')).toEqual([
      [2, 'fresh and " odd', "positive"],
      [3, "a bore", "negative"],
    ]);
    expect(await read("SST2", "\ufeffindex\tlabel\tsentence\n4\t0\tdull")).toEqual([[2, "dull", "negative"]]);
  });

  test("a bad line is named, and the next one read", async () => {
    const lines = ["sentence\tlabel", "no label", "two\ttabs\t1", "high\t2", "hidden\t-1", "none\t", " \t1", "fine\t1"];
    const file = Buffer.concat([Buffer.from(`${lines.join("\n")}\n`), latin1("café\t1\n")]);
    expect(await read("SST2", file)).toEqual([
      bad(2, "malformed_line", "", /1 fields where the header has 2/),
      bad(3, "malformed_line", "", /3 fields/),
      bad(4, "unknown_label", "label", /"2"; it must be 0 \(negative\) or 1/),
      bad(5, "unknown_label", "label", /published without its label/),
      bad(6, "unknown_label", "label", /""/),
      bad(7, "empty_field", "sentence", /give the input/),
      [8, "fine", "positive"],
      bad(9, "invalid_utf8", "", /UTF-8/),
    ]);
  });

  test("the test split, which has no labels, is refused whole; so is a file that is no TSV", async () => {
    await expect(read("SST2", "index\tsentence\n0\tfine\n")).rejects.toMatchObject({
      reason: "column_missing",
      message: expect.stringMatching(/no column "label": this is GLUE's test split/),
    });
    await expect(read("SST2", "text,label\nfine,1\n")).rejects.toThrow(
      /no column "sentence": only "text,label"; the layout has sentence, label/,
    );
    expect(await read("SST2", "")).toEqual([]);
  });
});

describe("CaseHOLD", () => {
  const header = ",citing_prompt,holding_0,holding_1,holding_2,holding_3,holding_4,label";
  const holdings = "holding a,holding b,holding c,holding d";

  test("the passage, the question and a choice a line; the letter is the output", async () => {
    const file = `${header}\n0,"See X, 1 Ex. 2\n(<HOLDING>).",${holdings},"holding  e,\nand more",4\n1,p,${holdings},e,0.0\n`;
    expect(await read("CASEHOLD", file)).toEqual([
      [
        2,
        "See X, 1 Ex. 2 (<HOLDING>).\nWhich holding belongs in the place of <HOLDING>?\nA. holding a\nB. holding b\n" +
          "C. holding c\nD. holding d\nE. holding e, and more",
        "E",
      ],
      [5, expect.stringMatching(/^p\nWhich .*\nA\. holding a\n(?:.*\n){3}E\. e$/), "A"],
    ]);
  });

  test("a bad record is named, and the next one read", async () => {
    const file = Buffer.concat([
      Buffer.from(
        `${[
          header,
          `0,p,${holdings},e,5`,
          `1,p,${holdings},e,`,
          `2,p,${holdings},e,A`,
          `3, ,${holdings},e,1`,
          `4,p,${holdings}, ,1`,
          `5,p,${holdings},1`,
          `6,p "q",${holdings},e,1`,
          `7,${"x".repeat(mebibyte)},${holdings},e,1`,
        ].join("\n")}\n`,
      ),
      latin1(`8,§,${holdings},e,1\n`),
      Buffer.from(`9,p,${holdings},e,1`),
    ]);
    expect(await read("CASEHOLD", file, 65_536)).toEqual([
      bad(2, "unknown_label", "label", /"5"; it must be 0 to 4/),
      bad(3, "unknown_label", "label", /""; it must be 0 to 4/),
      bad(4, "unknown_label", "label", /"A"/),
      bad(5, "empty_field", "citing_prompt", /all five holdings/),
      bad(6, "empty_field", "holding_4", /all five holdings/),
      bad(7, "malformed_csv", "", /7 fields where the header has 8/),
      bad(8, "malformed_csv", "", /quote/),
      bad(9, "too_large", "", /1 MiB/),
      bad(10, "invalid_utf8", "", /UTF-8/),
      [11, expect.stringMatching(/^p\n/), "B"],
    ]);
  });

  test("a file without one of the columns is refused whole", async () => {
    await expect(read("CASEHOLD", "citing_prompt,holding_0,label\n")).rejects.toThrow(/no column "holding_1": only/);
    await expect(read("CASEHOLD", 'citing_prompt,"label\n')).rejects.toThrow(/header row cannot be read/);
  });
});

describe("SNIPS", () => {
  const pretty = (document: object) => JSON.stringify(document, undefined, 2);

  test("an utterance's parts are joined, and its line is the one on which it begins", async () => {
    const file = pretty({
      RateBook: [
        { data: [{ text: "give " }, { text: '[this, "one"] \\', entity: "object_name" }, { text: " two stars\n" }] },
        { data: [{ text: "five of six" }] },
      ],
      GetWeather: [{ data: [{ text: "rain?" }] }],
    });
    const told = await read("SNIPS", file);
    expect(told).toEqual([
      [3, 'give [this, "one"] \\ two stars', "RateBook"],
      [expect.any(Number), "five of six", "RateBook"],
      [expect.any(Number), "rain?", "GetWeather"],
    ]);
    const lines = file.split("\n");
    // The brace that opens the utterance stands two lines above its first text's list.
    for (const [line = 0] of told as number[][]) expect(lines[line - 1]?.trim()).toBe("{");
    expect(await read("SNIPS", `\ufeff${JSON.stringify(JSON.parse(file))}`)).toEqual(
      told.map(([, ...row]) => [1, ...row]),
    );
  });

  test("lines in latin-1 are read beside lines in UTF-8", async () => {
    const file = Buffer.concat([
      Buffer.from('{"PlayMusic": [\n{"data": [{"text": "play Beyoncé"}]},\n'),
      latin1('{"data": [{"text": "play Björk"}]}\n]}'),
    ]);
    expect(await read("SNIPS", file)).toEqual([
      [2, "play Beyoncé", "PlayMusic"],
      [3, "play Björk", "PlayMusic"],
    ]);
  });

  test("a bad utterance is named, and the next one read", async () => {
    const utterances = [
      '"text"',
      "7",
      "null",
      "[]",
      '{"text": "x"}',
      '{"data": []}',
      '{"data": [{"text": "a"}, {"entity": "b"}]}',
      '{"data": [null]}',
      `{"data": [{"text": "${"x".repeat(mebibyte)}"}]}`,
      '{"data": [{"text": "fine"}]}',
    ];
    const file = `{"RateBook": [\n${utterances.join(",\n")}\n], "RateBok": [{"data": [{"text": "a"}]}], "RateBook": [{"data": [{"text": "b"}]}]}`;
    expect(await read("SNIPS", file, 65_536)).toEqual([
      ...[2, 3, 4, 5, 6].map((line) => bad(line, "malformed_line", "data", /give all of its parts/)),
      bad(7, "empty_field", "text", /give the input/),
      bad(8, "malformed_line", "data", /give all/),
      bad(9, "malformed_line", "data", /give all/),
      bad(10, "too_large", "", /1 MiB/),
      [11, "fine", "RateBook"],
      bad(12, "unknown_label", "intent", /did you mean "RateBook"/),
      [12, "b", "RateBook"],
    ]);
  });

  test.each<[string, string, RegExp]>([
    ['{"RateBook": [', "malformed_json", /is not JSON .*\{"AddToPlaylist"/],
    ["", "malformed_json", /is not JSON/],
    ["[]", "layout_mismatch", /is not of the layout snips/],
    ['{"RateBook": {"data": []}}', "layout_mismatch", /one JSON document/],
    ["null", "layout_mismatch", /one JSON document/],
  ])("%s is refused whole", async (file, reason, message) => {
    await expect(read("SNIPS", file)).rejects.toMatchObject({ reason, message: expect.stringMatching(message) });
  });

  test("a document of more than 16 MiB is refused, and not read to its end", async () => {
    await expect(read("SNIPS", Buffer.alloc(17 * mebibyte, 32), mebibyte)).rejects.toMatchObject({
      reason: "file_too_large",
      message: expect.stringMatching(/split it/),
    });
  });

  test("many utterances come in order", async () => {
    const utterances = Array.from({ length: 2_500 }, (_, index) => ({ data: [{ text: `book ${index}` }] }));
    const told = await read("SNIPS", JSON.stringify({ RateBook: utterances }), 65_536);
    expect(told.map(([, text]) => text)).toEqual(utterances.map((_, index) => `book ${index}`));
    expect(await read("SNIPS", '{"RateBook": []}')).toEqual([]);
  });
});
