import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, watchDeadlineMs } from "@tutelage/platform/grpc";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { type GenerationRun, TeacherServiceDefinition } from "@tutelage/proto/teacher/v1/teacher";
import { expect, test } from "vitest";
import { testDatabaseUrl } from "../../../tests/support/database.js";
import { startTeacherServer } from "../../../tests/support/teacher-server.js";
import { order, profileYaml, row, writeRequest } from "./service.fixture.js";

const concurrency = 3;
const orders = 20;

test("after kill -9 in the middle of a run only the calls that were in flight are paid again", {
  timeout: 60_000,
}, async () => {
  const server = await startTeacherServer({ delayMs: 100 });
  const home = await mkdtemp(join(tmpdir(), "tutelage-teacher-crash-"));
  const profiles = join(home, "profiles.yaml");
  await writeFile(profiles, `profiles:\n${profileYaml("chat", server.url, [`max_concurrency: ${concurrency}`])}\n`);
  const databaseUrl = await testDatabaseUrl();
  const main = createRequire(import.meta.url).resolve("@tutelage/teacher/main");
  const startProcess = async (): Promise<{ child: ChildProcess; address: string }> => {
    const child = fork(main, {
      env: {
        ...process.env,
        TUTELAGE_HOME: home,
        DATABASE_URL: databaseUrl,
        TEACHER_LISTEN: "127.0.0.1:0",
        TEACHER_PROFILES: profiles,
        LOG_LEVEL: "fatal",
      },
      execArgv: [],
    });
    const [{ address }] = (await once(child, "message")) as [{ address: string }];
    return { child, address };
  };

  const first = await startProcess();
  const firstClient = connect(TeacherServiceDefinition, first.address);
  const started = await firstClient.startGenerationRun(
    writeRequest(
      "chat",
      Array.from({ length: orders }, (_, index) => order(row(`k${index}`, `seat ${index} to Pisa`, "book_flight"))),
    ),
  );
  await expect.poll(() => server.calls.length, { timeout: 10_000, interval: 10 }).toBeGreaterThan(7);
  first.child.kill("SIGKILL");
  await once(first.child, "exit");
  firstClient.close();
  const atDeath = server.calls.length;
  expect(atDeath).toBeLessThan(orders);

  const second = await startProcess();
  const client = connect(TeacherServiceDefinition, second.address);
  let run: GenerationRun = started;
  const request = { projectId: "p", id: started.run?.id ?? "" };
  for await (const now of client.watchGenerationRun(request, { deadline: watchDeadlineMs })) run = now;
  expect(run.run?.status).toBe(RunStatus.SUCCEEDED);
  expect(run.run?.fence).toBe(2);
  expect(run.results).toBe(orders);
  expect(run.usage?.calls).toBe(orders);
  expect(server.calls.length).toBeLessThanOrEqual(orders + concurrency);
  // Results stand in the order of the orders, whoever made them.
  const rowIds: string[] = [];
  for await (const { results } of client.listResults(request)) rowIds.push(...results.map(({ rowId }) => rowId));
  expect(rowIds).toEqual(Array.from({ length: orders }, (_, index) => `k${index}`));
  client.close();
  second.child.kill("SIGTERM");
  await once(second.child, "exit");
  await server.stop();
  await rm(home, { recursive: true, force: true });
});
