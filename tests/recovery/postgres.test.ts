/** Postgres stops, is killed and comes back under running services: they stay up, say so, and go on. */
import { setTimeout as sleep } from "node:timers/promises";
import { openDatabase } from "@tutelage/platform/database";
import { createLog } from "@tutelage/platform/log";
import { Runs } from "@tutelage/platform/runs";
import { work } from "@tutelage/platform/worker";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CampaignFixture, slow, startCampaignFixture } from "../integration/campaign-fixture.js";
import { type OwnCluster, startOwnCluster } from "../support/owncluster.js";
import { startServiceProcess } from "../support/serviceprocess.js";
import { gate, until } from "../support/waiting.js";
import { asking } from "./evidence.js";

const log = createLog("test", "fatal");
const services = ["datasets", "training", "evaluation", "teacher", "campaigns", "gateway", "student"] as const;
let cluster: OwnCluster;

beforeAll(async () => {
  cluster = await startOwnCluster();
});
afterAll(() => cluster.remove());

test("a watch is woken again after a restart, at once and not by its next look", { timeout: 60_000 }, async () => {
  const database = await openDatabase({ url: cluster.url, schema: "training", log, hasRuns: true });
  const runs = new Runs<object, object>(database, log, { leaseMs: 6_000, heartbeatMs: 2_000, pollMs: 120_000 });
  const listening = runs.signals.listen();
  const { id } = await runs.start("p", "", {});
  const watch = runs.watch("p", id, AbortSignal.timeout(50_000));
  expect((await watch.next()).value?.status).toBe("QUEUED");
  await cluster.kill();
  await cluster.start();
  // Whoever waits looks once when the connection is there again; what changes from then on is heard.
  const heard = await sessionsOf("tutelage-signals");
  expect(heard).toBe(1);
  await runs.cancel("p", id);
  expect((await watch.next()).value?.status).toBe("CANCELLED");
  await runs.signals.close();
  await listening;
  await database.close();
});

test("what a run came to is stored although Postgres restarts in that moment; nothing is done twice", {
  timeout: 60_000,
}, async () => {
  const database = await openDatabase({ url: cluster.url, schema: "training", log, hasRuns: true });
  const runs = new Runs<object, { result?: string }>(database, log);
  const { id } = await runs.start("p", "", {});
  const stop = new AbortController();
  let handled = 0;
  let back: Promise<unknown> = Promise.resolve();
  const working = work(
    runs,
    async (lease) => {
      handled += 1;
      await cluster.stop();
      const restarted = sleep(1_500).then(() => cluster.start());
      await lease.report({ message: "written while Postgres was away" });
      await restarted;
      await cluster.stop();
      back = sleep(1_500).then(() => cluster.start());
      return { state: { result: "kept" } };
    },
    { concurrency: 1, signal: stop.signal },
  );
  await until(async () => (await runs.get("p", id).catch(() => undefined))?.status === "SUCCEEDED", 30_000);
  expect(await runs.get("p", id)).toMatchObject({ fence: 1, state: { result: "kept" } });
  expect(handled).toBe(1);
  // The next test may stop it again.
  await back;
  stop.abort();
  await working;
  await database.close();
});

test("a holder that cannot reach Postgres for longer than its lease drops its work; the run goes on afterwards", {
  timeout: 60_000,
}, async () => {
  const database = await openDatabase({ url: cluster.url, schema: "training", log, hasRuns: true });
  const runs = new Runs<object, object>(database, log, { leaseMs: 1_500, heartbeatMs: 500, pollMs: 200 });
  const { id } = await runs.start("p", "", {});
  const stop = new AbortController();
  const dropped = gate();
  const working = work(
    runs,
    async (lease) => {
      if (lease.fence > 1) return {};
      await cluster.stop();
      await new Promise((resolve) => lease.signal.addEventListener("abort", resolve, { once: true }));
      dropped.open();
      throw new Error("dropped");
    },
    { concurrency: 1, signal: stop.signal },
  );
  await dropped.pass(AbortSignal.timeout(20_000));
  await cluster.start();
  await until(async () => (await runs.get("p", id).catch(() => undefined))?.status === "SUCCEEDED", 20_000);
  expect((await runs.get("p", id)).fence).toBe(2);
  stop.abort();
  await working;
  await database.close();
});

test("a cluster that shuts down is waited for and started, not taken for a live one", { timeout: 60_000 }, async () => {
  const session = new pg.Client({ connectionString: cluster.url });
  session.on("error", () => {});
  await session.connect();
  const before = await cluster.postmaster();
  // The smart shutdown waits for the session.
  process.kill(before, "SIGTERM");
  const starting = cluster.start();
  await sleep(1_000);
  await session.end();
  expect(await starting).toBe(false);
  expect(await cluster.postmaster()).not.toBe(before);
});

test("a service that starts before Postgres waits for it", { timeout: 60_000 }, async () => {
  await cluster.stop();
  const starting = startServiceProcess("datasets", { DATABASE_URL: cluster.url, TUTELAGE_HOME: cluster.home });
  await sleep(2_000);
  await cluster.start();
  expect((await (await starting).end("SIGTERM")).code).toBe(0);
});

test("a campaign goes on after kill -9 and a long absence of Postgres; services stay up and /ready tells", {
  timeout: slow,
}, async () => {
  const fixture = await startCampaignFixture({ databaseUrl: cluster.url });
  try {
    const pids = () => services.map((name) => fixture.stack.pidOf(name));
    const before = pids();
    const id = await fixture.begin("storm", {});
    await until(async () => (await phaseOf(fixture, id)) !== "", 60_000);
    await cluster.kill();
    await notReady(fixture, 503);
    await cluster.start();
    await notReady(fixture, 200);

    const kept = fixture.teacher.calls.length;
    await until(async () => fixture.teacher.calls.length > kept || (await isDone(fixture, id)), 120_000);
    await cluster.stop();
    await notReady(fixture, 503);
    // Longer than any lease.
    await sleep(8_000);
    await cluster.start();
    await until(() => isDone(fixture, id), 120_000);
    const { body } = await request(fixture.stack.url).get(`/v1/campaigns/${id}`).expect(200);
    expect(body.run).toMatchObject({ status: "succeeded" });
    expect(pids()).toEqual(before);
  } finally {
    await fixture.stop();
  }
});

/** Sessions of an application, once there is one. */
async function sessionsOf(application: string): Promise<number> {
  return await asking(cluster.url, async (client) => {
    const count = async () =>
      (
        await client.query("select 1 from pg_stat_activity where application_name = $1 and query ilike 'listen%'", [
          application,
        ])
      ).rowCount ?? 0;
    await until(async () => (await count()) > 0);
    return await count();
  });
}

async function notReady({ stack }: CampaignFixture, status: 200 | 503): Promise<void> {
  await until(async () => {
    const answer = await request(stack.url).get("/ready");
    if (answer.status !== status) return false;
    if (status === 200) return true;
    const named = answer.body.errors.map(({ field }: { field: string }) => field);
    return ["campaigns", "datasets", "evaluation", "teacher", "training"].every((name) => named.includes(name));
  }, 60_000);
}

async function phaseOf({ stack }: CampaignFixture, id: string): Promise<string> {
  return (await request(stack.url).get(`/v1/campaigns/${id}`)).body.phase ?? "";
}

async function isDone({ stack }: CampaignFixture, id: string): Promise<boolean> {
  const { body } = await request(stack.url).get(`/v1/campaigns/${id}`);
  return ["succeeded", "failed", "cancelled"].includes(body.run?.status);
}
