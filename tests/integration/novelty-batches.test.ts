/** The novelty check of an iteration with more candidates than one message holds, against the real datasets service. */
import type { Campaign } from "@tutelage/campaigns/campaign";
import { checkNovelty } from "@tutelage/campaigns/checks";
import { textBatches } from "@tutelage/campaigns/textbatches";
import { Candidate } from "@tutelage/proto/campaigns/v1/campaigns";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Fixture,
  importFile,
  jsonl,
  newDataset,
  project,
  startFixture,
} from "../../services/datasets/src/service.fixture.js";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture();
});
afterAll(() => fixture?.stop());

test("texts are cut into messages by their number and by their length, and none is lost", () => {
  const many = Array.from({ length: 10_001 }, (_, index) => String(index));
  expect(textBatches(many).map(({ length }) => length)).toEqual([10_000, 1]);
  const long = ["a".repeat(5_000_000), "b".repeat(5_000_000), "c", "d".repeat(9_000_000)];
  expect(textBatches(long)).toEqual([[long[0]], [long[1], "c"], [long[3]]]);
  expect(textBatches([])).toEqual([]);
});

test("10,500 candidates are checked, and one that repeats a text of another message is a near duplicate", async () => {
  const { client } = fixture;
  const rows = [{ input: "count the hills", output: "NUM" }];
  const { version } = await importFile(client, await newDataset(client), jsonl(rows));
  if (version === undefined) throw new Error("no version");
  const candidates = Array.from({ length: 10_500 }, (_, number) =>
    Candidate.fromPartial({ number, input: number === 10_400 ? "word17 token17" : `word${number} token${number}` }),
  );
  const campaign = {
    projectId: project,
    signal: new AbortController().signal,
    settings: { maxRougeL: 0.95 },
    services: { datasets: client },
    step: async (_: string, work: () => Promise<unknown>) => await work(),
  } as unknown as Campaign;
  const seed = { version, seedRows: [], devRows: 0, testRows: 0, givenRows: [], leftOut: [], grewFrom: new Map() };
  const checked = await checkNovelty(campaign, { prefix: "iteration/0", iteration: 0 }, version, seed, candidates);
  expect(checked).toHaveLength(10_500);
  expect(checked.filter(({ rejection }) => rejection !== "").map(({ number }) => number)).toEqual([10_400]);
}, 60_000);
