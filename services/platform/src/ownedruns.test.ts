/** What a run's owner asks under its claims, and what is refused to whoever had it before. */
import { randomUUID } from "node:crypto";
import { type Owner, StopKind } from "@tutelage/proto/run/v1/owner";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "./database.js";
import { stopOwnedRuns } from "./ownedruns.js";
import { heldBy } from "./ownerfence.js";
import { resumeOrRetryRun } from "./runcontrol.js";
import { type Asked, log, openRunsDatabase, type State, timing } from "./runs.fixture.js";
import { Runs } from "./runs.js";

let database: Database;
let runs: Runs<Asked, State>;
beforeAll(async () => {
  database = await openRunsDatabase();
  runs = new Runs<Asked, State>(database, log, timing);
});
afterAll(() => database.close());

const start = (owner: Owner, step: string) => {
  const key = `${owner.id}/${step}`;
  return runs.start("p", key, { what: step }, { alongside: heldBy("p", owner, key) });
};
const resume = (owner: Owner, id: string) => resumeOrRetryRun(runs, "p", id, heldBy("p", owner));
const stop = (owner: Owner, kind: StopKind) => stopOwnedRuns(runs, { projectId: "p", owner, kind });
const statusOf = async (id: string) => (await runs.get("p", id)).status;
const outdated = { code: "aborted", reason: "fence_outdated" };

test("a holder that was replaced starts and resumes nothing, neither after a pause nor after a cancel", async () => {
  const id = randomUUID();
  const [former, present, next] = [1, 2, 3].map((fence) => ({ id, fence })) as [Owner, Owner, Owner];
  const first = await start(former, "train");
  const second = await start(present, "evaluate");
  // The key is there, but who asks is not heard.
  await expect(start(former, "train")).rejects.toMatchObject(outdated);
  await expect(start(former, "late")).rejects.toMatchObject(outdated);
  await expect(stop(former, StopKind.CANCEL)).rejects.toMatchObject(outdated);

  expect(await stop(present, StopKind.PAUSE)).toEqual({ stopping: 0 });
  expect(await stop(present, StopKind.PAUSE)).toEqual({ stopping: 0 });
  expect([await statusOf(first.id), await statusOf(second.id)]).toEqual(["PAUSED", "PAUSED"]);
  for (const late of [former, present]) {
    await expect(resume(late, first.id)).rejects.toMatchObject(outdated);
    await expect(start(late, "late")).rejects.toMatchObject(outdated);
  }
  expect(await statusOf(first.id)).toBe("PAUSED");

  expect((await resume(next, first.id)).status).toBe("QUEUED");
  // A pause that is over, passed on by whoever hung before.
  await expect(stop(present, StopKind.PAUSE)).rejects.toMatchObject(outdated);
  expect(await statusOf(first.id)).toBe("QUEUED");

  // One whose holder dies before it can note the run: found by its key.
  const unknown = await start(next, "generate");
  await stop(next, StopKind.CANCEL);
  for (const run of [first, second, unknown]) expect(await statusOf(run.id)).toBe("CANCELLED");
  await expect(start(next, "late")).rejects.toMatchObject(outdated);
  expect(await runs.startedBy("p", `${id}/late`, { what: "late" })).toBeUndefined();
});

test("of starts and a stop at the same time no run is left going", async () => {
  for (let round = 0; round < 10; round += 1) {
    const owner = { id: randomUUID(), fence: 1 };
    const starts = Array.from({ length: 8 }, (_, number) => start(owner, `step-${number}`));
    const [, ...started] = await Promise.allSettled([stop(owner, StopKind.CANCEL), ...starts]);
    for (const one of started) {
      if (one.status === "fulfilled") expect(await statusOf(one.value.id)).toBe("CANCELLED");
      else expect(one.reason).toMatchObject(outdated);
    }
  }
});

test("others are not concerned: another owner's runs, another project's, and those of nobody", async () => {
  const owner = { id: randomUUID(), fence: 5 };
  const other = await start({ id: randomUUID(), fence: 1 }, "train");
  const nobodys = await runs.start("p", "train", { what: "a" }, { alongside: heldBy("p", undefined, "train") });
  const elsewhere = await runs.start("q", `${owner.id}/train`, { what: "a" });
  await stop(owner, StopKind.CANCEL);
  expect([await statusOf(other.id), await statusOf(nobodys.id)]).toEqual(["QUEUED", "QUEUED"]);
  expect((await runs.get("q", elsewhere.id)).status).toBe("QUEUED");
});

test("a run that a stop would not find is not started, and an owner without an id not heard", async () => {
  const owner = { id: randomUUID(), fence: 1 };
  expect(() => heldBy("p", owner, "train")).toThrow(/idempotency_key/);
  for (const wrong of [undefined, { id: "", fence: 1 }, { ...owner, fence: -1 }])
    await expect(stopOwnedRuns(runs, { projectId: "p", owner: wrong, kind: StopKind.CANCEL })).rejects.toMatchObject({
      fields: [{ field: "owner" }],
    });
  await expect(stop(owner, StopKind.UNSPECIFIED)).rejects.toMatchObject({ fields: [{ field: "kind" }] });
});
