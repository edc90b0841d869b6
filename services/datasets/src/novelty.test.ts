import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { appendRows, importFile, jsonl, newDataset, project, startFixture, syntheticRow } from "./service.fixture.js";

const fixture = await startFixture();
const { client } = fixture;
afterAll(() => fixture.stop());

async function versionOf(rows: object[]) {
  const { version } = await importFile(client, await newDataset(client), jsonl(rows), { splitColumn: "split" });
  if (version === undefined) throw new Error("no version");
  const { rows: stored } = await client.listRows({ projectId: project, versionId: version.id });
  return { version, ids: stored.map(({ id }) => id) };
}

async function measure(versionId: string, texts: string[]) {
  return (await client.measureNovelty({ projectId: project, versionId, texts })).novelties;
}

test("each text is compared with every row and with the texts before it", async () => {
  const { version, ids } = await versionOf([
    { input: "where is my order", output: "a" },
    { input: "I want a refund now", output: "b" },
    {
      messages: [
        { role: "system", content: "be kind" },
        { role: "user", content: "reset the password" },
      ],
      output: "c",
    },
  ]);
  const novelties = await measure(version.id, [
    "Where is my parcel?",
    "where is my parcel now",
    "reset the password!",
    "xyz",
    "",
  ]);
  expect(novelties).toMatchObject([
    { maxRougeL: 0.75, nearestRowId: ids[0], nearestTextIndex: -1 },
    { maxRougeL: expect.closeTo(8 / 9, 14), nearestRowId: "", nearestTextIndex: 0 },
    { maxRougeL: 1, nearestRowId: ids[2], nearestTextIndex: -1 },
    { maxRougeL: 0, nearestRowId: "", nearestTextIndex: -1 },
    { maxRougeL: 0, nearestRowId: "", nearestTextIndex: -1 },
  ]);
});

test("a row wins over a text that is as near", async () => {
  const { version, ids } = await versionOf([{ input: "a b c", output: "a" }]);
  expect((await measure(version.id, ["a b c", "a b c"]))[1]).toMatchObject({
    maxRougeL: 1,
    nearestRowId: ids[0],
    nearestTextIndex: -1,
  });
});

test("nearness to a dev or test row is told, also where something else is nearer", async () => {
  const { version, ids } = await versionOf([
    { input: "a b c d", output: "a", split: "train" },
    { input: "a b x y", output: "a", split: "test" },
  ]);
  const [first, second] = await measure(version.id, ["a b c y", "a b c y z"]);
  expect(first).toMatchObject({ maxRougeL: 0.75, nearestRowId: ids[0], heldOutMaxRougeL: 0.75 });
  expect(second).toMatchObject({ nearestTextIndex: 0, heldOutMaxRougeL: expect.closeTo(6 / 9, 14) });
});

test("an appended version is measured with its new rows, its parent without", async () => {
  const { version, ids } = await versionOf([{ input: "a b c", output: "a" }]);
  expect((await measure(version.id, ["x y z"]))[0]?.maxRougeL).toBe(0);
  const child = await appendRows(client, version.id, [syntheticRow("x y z", ids[0] ?? "")]);
  expect((await measure(child.id, ["x y z"]))[0]?.maxRougeL).toBe(1);
  expect((await measure(version.id, ["x y z"]))[0]?.maxRougeL).toBe(0);
});

test("2,000 texts against 2,000 rows leave the service answering others meanwhile", async () => {
  const text = (index: number) => Array.from({ length: 60 }, (_, at) => `w${(index * 31 + at * at) % 700}`).join(" ");
  const { version } = await versionOf(
    Array.from({ length: 2_000 }, (_, index) => ({ input: text(index), output: "a" })),
  );
  let done = false;
  const measuring = measure(
    version.id,
    Array.from({ length: 2_000 }, (_, index) => text(index + 5_000)),
  ).finally(() => {
    done = true;
  });
  let answeredMeanwhile = 0;
  while (!done) {
    await client.getVersion({ projectId: project, id: version.id });
    if (!done) answeredMeanwhile++;
  }
  expect(await measuring).toHaveLength(2_000);
  expect(answeredMeanwhile).toBeGreaterThan(5);
});

test("an artifact that was changed is not measured against", async () => {
  const { version } = await versionOf([{ input: "an original", output: "a" }]);
  const path = fileURLToPath(version.artifactUri);
  await writeFile(path, (await readFile(path, "utf8")).replace("original", "imitation"));
  await expect(measure(version.id, ["x"])).rejects.toMatchObject({ code: "data_loss" });
});

test("too many texts and unknown versions are refused", async () => {
  const { version } = await versionOf([{ input: "a", output: "a" }]);
  await expect(measure(version.id, Array<string>(10_001).fill(""))).rejects.toMatchObject({
    fields: [{ field: "texts" }],
  });
  const request = { projectId: "other", versionId: version.id, texts: ["a"] };
  await expect(client.measureNovelty(request)).rejects.toMatchObject({ code: "not_found" });
});

test("texts in many messages are measured as in one", async () => {
  const { version } = await versionOf([
    { input: "where is my order", output: "a", split: "train" },
    { input: "I want a refund now", output: "b", split: "test" },
  ]);
  const words = ["where", "is", "my", "order", "a", "refund", "now", "parcel"];
  // From the 75th on, each repeats one of the 60th to 74th.
  const texts = Array.from({ length: 90 }, (_, index) => Math.min(index, 149 - index)).map((n) =>
    [`rare${n}`, ...[n, n >> 1, n >> 2].map((i) => words[i % 8])].join(" "),
  );
  const request = (part: string[]) => ({ projectId: project, versionId: version.id, texts: part });
  const inParts = async (cuts: number[]) => {
    const parts = cuts.map((cut, index) => texts.slice(cut, cuts[index + 1] ?? texts.length));
    const measured = [];
    const answers = client.measureNovelties(
      (async function* () {
        yield* parts.map(request);
      })(),
    );
    for await (const { novelties } of answers) measured.push(...novelties);
    return measured;
  };
  const whole = await measure(version.id, texts);
  expect(whole.filter(({ nearestTextIndex }) => nearestTextIndex > 50).length).toBeGreaterThan(0);
  expect(await inParts([0])).toEqual(whole);
  expect(await inParts([0, 1, 40, 40, 76])).toEqual(whole);
});

test("a stream is of one version, and a message holds at most 10,000 texts", async () => {
  const [one, other] = await Promise.all([
    versionOf([{ input: "a b c", output: "a" }]),
    versionOf([{ input: "d e f", output: "a" }]),
  ]);
  const consume = async (requests: { versionId: string; texts: string[] }[]) => {
    const answers = client.measureNovelties(
      (async function* () {
        yield* requests.map((request) => ({ projectId: project, ...request }));
      })(),
    );
    for await (const _ of answers);
  };
  const changed = [one, other].map(({ version }) => ({ versionId: version.id, texts: ["x"] }));
  await expect(consume(changed)).rejects.toMatchObject({ fields: [{ field: "version_id" }] });
  const many = [{ versionId: one.version.id, texts: Array(10_001).fill("x") }];
  await expect(consume(many)).rejects.toMatchObject({ fields: [{ field: "texts" }] });
});
