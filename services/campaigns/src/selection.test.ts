import { Priority, Selection } from "@tutelage/proto/campaigns/v1/campaigns";
import { type Row, RowOrigin, Split } from "@tutelage/proto/task/v1/task";
import { expect, test } from "vitest";
import type { MinedRow } from "./mining.js";
import { apportion, wantedRows, writeOrders } from "./selection.js";
import { defaultSettings } from "./settings.js";

function mined(id: string, output: string, correct: boolean, probability: number): MinedRow {
  const rest = { messages: [], rootRowId: "", parentRowId: "", iteration: 0, metadata: {} };
  const row: Row = { id, input: `input ${id}`, output, split: Split.TRAIN, origin: RowOrigin.SEED, ...rest };
  return {
    row,
    correct,
    disputed: false,
    text: "",
    answer: correct ? output : "wrong",
    expectedLogProbability: Math.log(probability),
  };
}

const balanced = { ...defaultSettings, selection: Selection.BALANCED, rowsPerSeedRow: 2, attemptsPerRow: 2 };
const errorsOnly = { ...defaultSettings, selection: Selection.ERRORS_ONLY, examplesPerError: 1, attemptsPerRow: 3 };
const start = { iteration: 0, attemptsSoFar: new Map<string, number>(), callsLeft: 1_000 };
/** Label a is hard and has few rows, label b is easy and has many. */
const rows = [
  mined("a1", "a", false, 0.1),
  mined("a2", "a", false, 0.2),
  ...Array.from({ length: 6 }, (_, index) => mined(`b${index}`, "b", true, 0.9)),
];

test("errors_only asks for each wrong row and for nothing else, as the paper does", () => {
  expect(wantedRows(rows, errorsOnly).map((want) => [want.mined.row.id, want.rows])).toEqual([
    ["a1", 1],
    ["a2", 1],
  ]);
});

test("uncertain asks for errors and for what is right by little, all for every row", () => {
  const some = [...rows.slice(0, 3), mined("unsure", "b", true, 0.6), mined("sure but wrong", "b", false, 0.9)];
  const ids = (selection: Selection) =>
    wantedRows(some, { ...errorsOnly, selection }).map(({ mined: { row } }) => row.id);
  expect(ids(Selection.UNCERTAIN)).toEqual(["a1", "a2", "unsure", "sure but wrong"]);
  expect(ids(Selection.ALL)).toEqual(some.map(({ row }) => row.id));
});

test("calls that do not suffice go by priority, and the orders stay in the rows' order", () => {
  const some = [mined("b1", "b", false, 0.4), mined("a1", "a", false, 0.1), mined("a2", "a", false, 0.2)];
  const seedRows = some.map(({ row }) => row);
  const timesWrong = new Map([["a2", 3]]);
  const calls = (priority: Priority, left: number) =>
    writeOrders(
      wantedRows(some, errorsOnly),
      seedRows,
      { ...errorsOnly, priority },
      { ...start, callsLeft: left, timesWrong },
    ).map(({ seedRow, maxAttempts }) => [seedRow?.id, maxAttempts]);
  expect(calls(Priority.HARDEST, 4)).toEqual([
    ["a1", 3],
    ["a2", 1],
  ]);
  expect(calls(Priority.MOST_OFTEN_WRONG, 4)).toEqual([
    ["a1", 1],
    ["a2", 3],
  ]);
  expect(calls(Priority.LABEL_BALANCED, 6)).toEqual([
    ["b1", 3],
    ["a1", 3],
  ]);
  expect(calls(Priority.HARDEST, 100).map(([id]) => id)).toEqual(["b1", "a1", "a2"]);
});

test("balanced gives every label the same share and hard rows more of it", () => {
  const wants = wantedRows([...rows.slice(0, 7), mined("b6", "b", false, 0.05)], balanced);
  const byLabel = (label: string) =>
    wants.filter((one) => one.mined.row.output === label).reduce((sum, one) => sum + one.rows, 0);
  expect([byLabel("a"), byLabel("b")]).toEqual([8, 8]);
  const of = (id: string) => wants.find((one) => one.mined.row.id === id)?.rows ?? 0;
  expect(of("b6")).toBeGreaterThan(of("b0"));
});

test("no row carries the whole share of a rare label", () => {
  const rare = [
    mined("r1", "rare", false, 0.1),
    ...Array.from({ length: 200 }, (_, i) => mined(`c${i}`, "common", true, 0.8)),
  ];
  const wants = wantedRows(rare, balanced);
  expect(wants.find((one) => one.mined.row.id === "r1")?.rows).toBe(8);
  expect(Math.max(...wants.map((one) => one.rows))).toBe(8);
});

test("balanced spreads over all rows where outputs do not repeat", () => {
  const open = rows.map((one, index) => ({ ...one, row: { ...one.row, output: `answer ${index}` } }));
  const wants = wantedRows(open, { ...balanced, rowsPerSeedRow: 1 });
  expect(wants.reduce((sum, one) => sum + one.rows, 0)).toBe(8);
  expect(Math.max(...wants.map((one) => one.rows))).toBeLessThanOrEqual(2);
});

test("apportioning keeps the total and follows the weights", () => {
  expect(apportion([1, 1, 1], 10)).toEqual([4, 3, 3]);
  expect(apportion([0, 3, 1], 8)).toEqual([0, 6, 2]);
  expect(apportion([0, 0], 5)).toEqual([0, 0]);
});

test("orders never show the row itself, count attempts on, and stop at the calls that are left", () => {
  const seedRows = rows.map((one) => one.row);
  const orders = writeOrders(wantedRows(rows, errorsOnly), seedRows, errorsOnly, {
    iteration: 0,
    attemptsSoFar: new Map([["a1", 3]]),
    callsLeft: 4,
  });
  expect(orders.map((order) => [order.seedRow?.id, order.firstAttempt, order.count, order.maxAttempts])).toEqual([
    ["a1", 3, 1, 3],
    ["a2", 0, 1, 1],
  ]);
  for (const order of orders) {
    expect(order.exampleRows.every((row) => row.id !== order.seedRow?.id && row.output === order.seedRow?.output)).toBe(
      true,
    );
  }
  expect(writeOrders(wantedRows(rows, errorsOnly), seedRows, errorsOnly, { ...start, callsLeft: 0 })).toEqual([]);
});

test("under cross-fitting an order shows rows of its own fold only; any row of the label lends its first words", () => {
  const seedRows = rows.map((one) => one.row);
  const foldOf = new Map(seedRows.map((row, index) => [row.id, index % 2]));
  const orders = writeOrders(wantedRows(rows, balanced), seedRows, balanced, { ...start, foldOf });
  let lent = 0;
  for (const { seedRow, exampleRows, openingTexts } of orders) {
    expect(exampleRows.every((row) => foldOf.get(row.id) === foldOf.get(seedRow?.id ?? ""))).toBe(true);
    lent += openingTexts.filter((text) => !exampleRows.some((row) => row.input === text)).length;
  }
  expect(orders.some(({ exampleRows }) => exampleRows.length > 0)).toBe(true);
  expect(lent).toBeGreaterThan(0);
});
