import { RunStatus } from "@tutelage/proto/run/v1/run";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTeacherServer, type TeacherServer } from "../../../tests/support/teacher-server.js";
import {
  type Fixture,
  labelRequest,
  order,
  profileYaml,
  row,
  seedRows,
  startFixture,
  writeRequest,
} from "./service.fixture.js";

let server: TeacherServer;
let profiles: string[];
let fixture: Fixture;

beforeAll(async () => {
  server = await startTeacherServer({ delayMs: 100 });
  profiles = [profileYaml("chat", server.url, ["seed_field: seed"])];
  fixture = await startFixture(profiles);
});
afterAll(async () => {
  await fixture.stop();
  await server.stop();
});

const orders = (name: string, count: number) =>
  Array.from({ length: count }, (_, index) => order(row(`${name}${index}`, `to ${name} ${index}`, "book_flight")));

test("a reply that another run paid for is free, and what it had cost is counted as saved", async () => {
  const paid = await fixture.run(writeRequest("chat", orders("Rome", 4)));
  expect(paid.usage).toMatchObject({ calls: 4, reusedCalls: 0, savedMicroUsd: 0 });
  const sent = server.calls.length;
  const free = await fixture.run(writeRequest("chat", orders("Rome", 4)));
  expect(server.calls.length).toBe(sent);
  expect(free.usage).toMatchObject({ calls: 0, reusedCalls: 4, costMicroUsd: 0 });
  expect(free.usage?.savedMicroUsd).toBe(paid.usage?.costMicroUsd);
  const outcomes = async (run: typeof paid) => (await fixture.results(run)).map(({ outcome }) => outcome);
  expect(await outcomes(free)).toEqual(await outcomes(paid));
  const usage = await fixture.client.getProjectUsage({ projectId: "p" });
  expect(usage.savedMicroUsd).toBe(paid.usage?.costMicroUsd);
});

test("a run with a scope of its own pays for every reply, and shares them within the scope only", async () => {
  await fixture.run(writeRequest("chat", orders("Bari", 2)));
  const scoped = { ...writeRequest("chat", orders("Bari", 2)), replyScope: "campaign-1" };
  expect((await fixture.run(scoped)).usage).toMatchObject({ calls: 2, reusedCalls: 0 });
  expect((await fixture.run(scoped)).usage).toMatchObject({ calls: 0, reusedCalls: 2 });
  expect((await fixture.run({ ...scoped, replyScope: "campaign-2" })).usage).toMatchObject({ calls: 2 });
});

test("asking again on purpose is another attempt: a new call, never the reply that was there", async () => {
  const [first] = seedRows;
  const rows = [first as (typeof seedRows)[0]];
  const ask = async (attempt: number) => {
    const request = labelRequest("chat", rows);
    if (request.work?.$case === "label") request.work.value.attempt = attempt;
    return await fixture.run(request);
  };
  expect((await ask(0)).usage).toMatchObject({ calls: 1, reusedCalls: 0 });
  expect((await ask(0)).usage).toMatchObject({ calls: 0, reusedCalls: 1 });
  expect((await ask(1)).usage).toMatchObject({ calls: 1, reusedCalls: 0 });
  expect(server.calls.at(-1)?.prompt).toBe(server.calls.at(-2)?.prompt);
  expect(server.calls.at(-1)?.seed).not.toBe(server.calls.at(-2)?.seed);
  expect(server.calls.at(-1)?.key).not.toBe(server.calls.at(-2)?.key);
});

test("two replicas that make the same calls at the same moment pay for each once", async () => {
  const other = await startFixture(profiles, { databaseUrl: fixture.databaseUrl });
  const sent = server.calls.length;
  const runs = await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      (index % 2 === 0 ? fixture : other).run(writeRequest("chat", orders("Turin", 10))),
    ),
  );
  const keys = server.calls.slice(sent).map(({ key }) => key);
  expect(keys).toHaveLength(10);
  expect(new Set(keys).size).toBe(10);
  expect(runs.map(({ run }) => run?.status)).toEqual(Array(6).fill(RunStatus.SUCCEEDED));
  expect(runs.reduce((sum, { usage }) => sum + (usage?.calls ?? 0), 0)).toBe(10);
  expect(runs.reduce((sum, { usage }) => sum + (usage?.reusedCalls ?? 0), 0)).toBe(50);
  await other.stop();
});
