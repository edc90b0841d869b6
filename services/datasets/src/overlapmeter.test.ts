import { type ListOverlapsResponse, OverlapKind } from "@tutelage/proto/datasets/v1/datasets";
import { Split } from "@tutelage/proto/task/v1/task";
import { afterAll, expect, test } from "vitest";
import type { wholeVersion } from "./draft.js";
import { OverlapMeter } from "./overlapmeter.js";
import { plantedLeaks } from "./plantedleaks.fixture.js";
import { importFile, jsonl, newDataset, project, startFixture } from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

const { EXACT, NGRAM, NEAR_DUPLICATE, UNSPECIFIED } = OverlapKind;

async function versionOf(rows: object[]) {
  const { version } = await importFile(client, await newDataset(client), jsonl(rows), { splitColumn: "split" });
  if (version === undefined) throw new Error("no version");
  const { rows: stored } = await client.listRows({ projectId: project, versionId: version.id, pageSize: 1000 });
  return { version, ids: stored.map(({ id }) => id) };
}

async function measured(requests: { versionId: string; texts: string[] }[]) {
  const overlaps = [];
  const answers = client.measureOverlaps(
    (async function* () {
      yield* requests.map((request) => ({ projectId: project, ...request }));
    })(),
  );
  for await (const { overlaps: more } of answers) overlaps.push(...more);
  return overlaps;
}

async function listed(versionId: string) {
  const found: ListOverlapsResponse = { overlaps: [], counts: [] };
  for await (const { overlaps, counts } of client.listOverlaps({ projectId: project, versionId })) {
    found.overlaps.push(...overlaps);
    found.counts.push(...counts);
  }
  return found;
}

const rows = [
  { input: "where can I see the old lighthouse?", output: "a", split: "train" },
  { input: "Please say: which river runs through Kosta town", output: "a", split: "train" },
  { input: "I want a refund", output: "b", split: "train" },
  { input: "Which river runs through Kosta town?", output: "a", split: "dev" },
  { input: "Where can I see the old lighthouse", output: "a", split: "dev" },
  { input: "Where can I see the old lighthouse ?!", output: "a", split: "test" },
  { input: "Who keeps forty grey donkeys in Belmar?", output: "b", split: "test" },
  {
    messages: [
      { role: "system", content: "be kind" },
      { role: "user", content: "my key broke in the lock of the shed" },
    ],
    output: "c",
    split: "test",
  },
];

test("each text is told the dev or test row that it says again, of equals the test row", async () => {
  const { version, ids } = await versionOf(rows);
  const texts = [
    "WHERE can I see the old lighthouse",
    "They asked which river runs through Kosta town again and again and got no answer",
    "In Belmar, who keeps forty grey donkeys?",
    "my key broke in the lock of the shed!",
    "I want a refund",
    "",
  ];
  const expected = [
    { kind: EXACT, rowId: ids[5], split: Split.TEST, strength: 1 },
    { kind: NGRAM, rowId: ids[3], split: Split.DEV, strength: 1 },
    { kind: NEAR_DUPLICATE, rowId: ids[6], split: Split.TEST, strength: 1 },
    { kind: EXACT, rowId: ids[7], split: Split.TEST, strength: 1 },
    { kind: UNSPECIFIED, rowId: "", split: Split.UNSPECIFIED, strength: 0 },
    { kind: UNSPECIFIED, rowId: "", split: Split.UNSPECIFIED, strength: 0 },
  ];
  const versionId = version.id;
  expect(await measured([{ versionId, texts }])).toEqual(expected);
  const parts = [texts.slice(0, 2), [], texts.slice(2)].map((part) => ({ versionId, texts: part }));
  expect(await measured(parts)).toEqual(expected);
});

test("a version's splits are compared: train with dev and test, dev with test", async () => {
  const { version, ids } = await versionOf(rows);
  const { overlaps, counts } = await listed(version.id);
  expect(overlaps.map(({ rowId, split, overlap }) => [rowId, split, overlap?.kind, overlap?.rowId])).toEqual([
    [ids[0], Split.TRAIN, EXACT, ids[5]],
    [ids[0], Split.TRAIN, EXACT, ids[4]],
    [ids[1], Split.TRAIN, NGRAM, ids[3]],
    [ids[4], Split.DEV, EXACT, ids[5]],
  ]);
  expect(counts).toEqual([
    { split: Split.TRAIN, against: Split.DEV, kind: EXACT, rows: 1 },
    { split: Split.TRAIN, against: Split.DEV, kind: NGRAM, rows: 1 },
    { split: Split.TRAIN, against: Split.TEST, kind: EXACT, rows: 1 },
    { split: Split.DEV, against: Split.TEST, kind: EXACT, rows: 1 },
  ]);
  const { version: clean } = await versionOf([rows[2] as object, rows[3] as object]);
  expect(await listed(clean.id)).toEqual({ overlaps: [], counts: [] });
});

test("more overlaps than a message holds come in several, with the counts once", async () => {
  const many = Array.from({ length: 1_200 }, (_, n) =>
    ["train", "test"].map((split) => ({
      input: split === "train" ? `row${n} has a text of its own` : `Row${n} has a text of its own.`,
      output: "a",
      split,
    })),
  ).flat();
  const { version } = await versionOf(many);
  const sizes: number[] = [];
  for await (const { overlaps } of client.listOverlaps({ projectId: project, versionId: version.id })) {
    sizes.push(overlaps.length);
  }
  expect(sizes).toEqual([1_000, 200]);
  expect((await listed(version.id)).counts).toEqual([
    { split: Split.TRAIN, against: Split.TEST, kind: EXACT, rows: 1_200 },
  ]);
});

test("planted leaks are found over the wire as in memory", async () => {
  const { heldOut, leaks } = plantedLeaks();
  const { version, ids } = await versionOf(heldOut.map((input) => ({ input, output: "a", split: "test" })));
  const overlaps = await measured([{ versionId: version.id, texts: leaks.map(({ text }) => text) }]);
  const right = overlaps.filter(({ rowId }, index) => heldOut[ids.indexOf(rowId)] === leaks[index]?.row);
  expect(right.length / leaks.length).toBeGreaterThan(0.98);
});

test("too many texts, a changed version and unknown versions are refused", async () => {
  const [one, other] = await Promise.all([versionOf(rows), versionOf(rows.slice(1))]);
  const versionId = one.version.id;
  await expect(measured([{ versionId, texts: Array<string>(10_001).fill("") }])).rejects.toMatchObject({
    fields: [{ field: "texts" }],
  });
  const changed = [one, other].map(({ version }) => ({ versionId: version.id, texts: ["x"] }));
  await expect(measured(changed)).rejects.toMatchObject({ fields: [{ field: "version_id" }] });
  await expect(measured([{ versionId: crypto.randomUUID(), texts: [] }])).rejects.toMatchObject({ code: "not_found" });
  await expect(listed(crypto.randomUUID())).rejects.toMatchObject({ code: "not_found" });
});

test("dev and test rows with more words than memory is for are refused with the fix", async () => {
  const lines = ["one two three", "four five six"].map((input, n) =>
    JSON.stringify({ id: `r${n}`, input, output: "a", split: n === 0 ? "dev" : "test" }),
  );
  const artifacts = {
    read: async function* () {
      yield Buffer.from(lines.join("\n"));
    },
  } as unknown as ConstructorParameters<typeof OverlapMeter>[0];
  const version = { projectId: project, digest: "d" } as Parameters<typeof wholeVersion>[0];
  const { signal } = new AbortController();
  const measure = (heldOutWords: number) =>
    new OverlapMeter(artifacts, { cachedWords: 10, heldOutWords }).measure(version, ["one two three"], signal);
  await expect(measure(5)).rejects.toMatchObject({ code: "resource_exhausted", reason: "held_out_too_large" });
  expect(await measure(6)).toMatchObject([{ kind: EXACT, rowId: "r0" }]);
});
