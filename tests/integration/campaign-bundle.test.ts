/** The evidence of a campaign: the same bytes each time, verified without a server, and no forgery of it passes. */
import { execFile } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { BundlePart } from "@tutelage/platform/bundle";
import { BundleFault, BundleFile } from "@tutelage/platform/bundlefile";
import { call, type Trial } from "@tutelage/standalone/trial";
import pg from "pg";
import request from "supertest";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { documentsIn, download, forge, membersOf, verifyBundle } from "../support/evidence.js";
import { labelOf } from "../support/tinytask.js";
import { type CampaignFixture, longRecipe, rows, slow, startCampaignFixture, teacherKey } from "./campaign-fixture.js";

const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));
const changedBytes = 300;

let fixture: CampaignFixture;
let folder: string;
let trial: Trial;
let path: string;
let members: BundlePart[];

const urlOf = (id: string) => `${fixture.stack.url}/v1/campaigns/${id}/bundle`;
const fileOf = (name: string) => join(folder, `${name}.tar`);

/** Downloads and verifies, and gives the members. */
async function verified(id: string, name: string): Promise<BundlePart[]> {
  await download(urlOf(id), fileOf(name));
  const { code, document, told } = await verifyBundle(fileOf(name));
  expect(document.findings ?? [], told).toEqual([]);
  expect(code, told).toBe(0);
  return await membersOf(fileOf(name));
}

beforeAll(async () => {
  fixture = await startCampaignFixture();
  // Some replies cannot be read, so that there are rejected candidates, too.
  const useless = { kind: "reply", text: "no idea" } as const;
  fixture.teacher.options = {
    labelOf,
    behave: ({ number, wants }) => (wants === "write" && number % 5 === 0 ? useless : undefined),
  };
  folder = await mkdtemp(join(tmpdir(), "tutelage-evidence-"));
  trial = await fixture.trial("evidence", {
    seed: 4,
    check_teacher: "on",
    arms: ["zero_shot", "few_shot", "teacher", "probe", "none_matched", "eda", "random"],
  });
  path = fileOf("whole");
  members = await verified(trial.campaign.run.id, "whole");
  fixture.teacher.options = { labelOf };
}, slow);
afterAll(async () => {
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
}, slow);

test("a download is the same bytes each time, by REST and by the command line, and holds no key", async () => {
  const { id } = trial.campaign.run;
  const again = await request(fixture.stack.url).get(`/v1/campaigns/${id}/bundle`).buffer(true).expect(200);
  expect(again.headers["content-type"]).toBe("application/x-tar");
  expect(again.headers["content-disposition"]).toBe(`attachment; filename="campaign-${id}.tar"`);
  const out = fileOf("again");
  const args = [command, "--url", fixture.stack.url, "--json", "campaigns", "bundle", id, "-o", out];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const bytes = await readFile(out);
  expect(bytes.equals(await readFile(path))).toBe(true);
  const { sha256, size_bytes } = JSON.parse(stdout);
  expect(size_bytes).toBe(bytes.length);
  expect((await verifyBundle(out, "--sha256", sha256)).code).toBe(0);
  const other = await verifyBundle(out, "--sha256", "0".repeat(64));
  expect([other.code, other.document.reason]).toEqual([65, "bundle_not_as_it_says"]);
  for (const secret of [teacherKey, fixture.teacher.url]) expect(bytes.includes(secret), secret).toBe(false);
});

test("every part of the chain is there: code, seeds, versions, students, answers, prompts, replies, verdicts", () => {
  const [campaign] = documentsIn(members, "campaign.json");
  expect(campaign?.code).toEqual([{ version: "0.1.0", sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
  // Two arms made rows of their own.
  expect(documentsIn(members, "versions").length).toBe(trial.iterations.length + 2);
  const trained = documentsIn(members, "training-runs") as { request: { seed: number }; checkpoint: object }[];
  for (const { request: asked, checkpoint } of trained) {
    expect(asked.seed).toBeGreaterThan(0);
    expect(checkpoint).toMatchObject({ sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  }
  const calls = new Map(documentsIn(members, "calls").map((one) => [one.id, one]));
  const accepted = documentsIn(members, "candidates").filter((one) => one.accepted);
  expect(accepted.length).toBe(trial.iterations.reduce((sum, one) => sum + one.accepted, 0));
  expect(accepted.length).toBeGreaterThan(0);
  for (const { callId, input, verdicts } of accepted) {
    expect(calls.get(callId)).toMatchObject({ status: "answered", prompt: expect.stringContaining("wrong") });
    expect(calls.get(callId)?.rawReply).toContain(input);
    expect(verdicts).not.toEqual([]);
  }
});

test(
  `any of ${changedBytes} random bytes changed is found, and the command says where`,
  async () => {
    const bytes = await readFile(path);
    const changed = fileOf("changed");
    for (let count = 0; count < changedBytes; count += 1) {
      const at = randomInt(bytes.length);
      const before = bytes[at] as number;
      bytes[at] = (before + randomInt(1, 256)) % 256;
      await writeFile(changed, bytes);
      const fault = await BundleFile.open(changed).catch((error: unknown) => error);
      expect(fault, `byte ${at}`).toBeInstanceOf(BundleFault);
      bytes[at] = before;
    }
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
    await writeFile(changed, bytes);
    const { code, document } = await verifyBundle(changed);
    expect([code, document.reason]).toEqual([65, "bundle_not_as_it_says"]);
    expect(document.detail).toMatch(/is not what it says\. \S/);
  },
  slow,
);

type Json = Record<string, never>;
type Change = (documents: Json[]) => Json[];

describe("a forgery whose digests fit is found by what follows from the parts", () => {
  const each =
    (change: (document: Json) => void, which: (document: Json) => boolean = () => true): Change =>
    (documents) => {
      const found = documents.find(which) as Json;
      change(found);
      return documents;
    };
  const without =
    (which: (document: Json) => boolean): Change =>
    (documents) => {
      const dropped = documents.findIndex(which);
      expect(dropped).toBeGreaterThanOrEqual(0);
      return documents.filter((_, index) => index !== dropped);
    };
  const set = (document: object, values: object) => void Object.assign(document, values);
  const accepted = (one: Json) => one.accepted === true;
  const plainRun = () => {
    const [campaign] = documentsIn(members, "campaign.json") as { outcome: { baseline: Json } }[];
    return campaign?.outcome.baseline.trainingRunId;
  };

  test.each<[string, string, Change, string]>([
    [
      "a better accuracy in the report",
      "report.json",
      each((one) => set(one.finalMetrics as object, { unreadableRows: 3 })),
      "report",
    ],
    [
      "a better gain",
      "campaign.json",
      each((one) => set((one.outcome as Json).gain as object, { gain: 0.5 })),
      "outcome",
    ],
    [
      "a better sentence",
      "campaign.json",
      each((one) =>
        set(one.outcome as object, {
          summary: "The student of iteration 1 is returned: 99.9 % of 20 test rows right.",
        }),
      ),
      "outcome",
    ],
    [
      "a wrong answer called right",
      "predictions",
      each(
        (one) => set(one, { correct: true }),
        (one) => one.correct !== true,
      ),
      "answers",
    ],
    ["another answer of a student", "predictions", each((one) => set(one, { text: "NUM and LOC" })), "answers"],
    ["a dropped prediction", "predictions", without((one) => one.correct !== true), "answers"],
    ["a dropped candidate", "candidates", without((one) => !accepted(one)), "candidates"],
    [
      "a rejected candidate made a row",
      "candidates",
      each(
        (one) => set(one, { accepted: true, rejection: "" }),
        (one) => !accepted(one),
      ),
      "candidates",
    ],
    [
      "another verdict's consequence",
      "candidates",
      each(
        (one) => set(one, { rejection: "not_needed_at_all" }),
        (one) => !accepted(one),
      ),
      "iterations",
    ],
    ["another wrong answer", "candidates", each((one) => set(one, { wrongAnswer: "LOC?" })), "candidates"],
    [
      "a swapped reply",
      "calls",
      (calls) => {
        const written = calls.filter((one) => String(one.rawReply).includes("output"));
        const [first, last] = [written[0] as Json, written.at(-1) as Json];
        [first.rawReply, last.rawReply] = [last.rawReply as never, first.rawReply as never];
        return calls;
      },
      "candidates",
    ],
    ["a dropped call", "calls", without((one) => one.status === "answered"), "ledger"],
    [
      "a cheaper call",
      "calls",
      each(
        (one) => set(one, { costMicroUsd: 1 }),
        (one) => Number(one.costMicroUsd) > 1,
      ),
      "ledger",
    ],
    ["a smaller bill", "ledger-totals", each((one) => set(one.usage as object, { costMicroUsd: 1 })), "ledger"],
    ["another row", "rows", each((one) => set(one, { output: one.output === "NUM" ? "LOC" : "NUM" })), "versions"],
    ["a dropped row", "rows", without((one) => one.split === "test"), "versions"],
    ["another digest of a version", "versions", each((one) => set(one, { digest: "0".repeat(64) })), "versions"],
    [
      "fewer errors",
      "iterations",
      each(
        (one) => set(one, { errors: 0 }),
        (one) => Number(one.errors) > 0,
      ),
      "iterations",
    ],
    [
      "another state of a seed row",
      "seed-rows",
      each((one) => set(one, { state: "SEED_ROW_STATE_FORGOTTEN" })),
      "seed rows",
    ],
    [
      "another checkpoint",
      "training-runs",
      each(
        (one) => set(one.checkpoint as object, { sha256: "0".repeat(64) }),
        (one) => (one.run as Json).id === plainRun(),
      ),
      "outcome",
    ],
    [
      "a lower loss",
      "training-steps",
      each(
        (one) => set(one, { loss: 0.001 }),
        (one) => one.runId === plainRun(),
      ),
      "report",
    ],
    ["a dropped step of a training", "training-steps", without(() => true), "trainings"],
  ])("%s", async (name, list, change, check) => {
    const forged = fileOf(`forged-${name.replace(/\W+/g, "-")}`);
    await forge(members, list, change as never, forged);
    const { code, document, told } = await verifyBundle(forged);
    expect([code, document.reason], told).toEqual([65, "bundle_not_as_it_says"]);
    expect(
      document.findings?.map((one) => one.check),
      JSON.stringify(document.findings),
    ).toContain(check);
    await rm(forged);
  });
});

test(
  "a campaign without test rows whose teacher gave nothing to read: the plain student is returned",
  async () => {
    const { teacher } = fixture;
    const noTest = rows.filter(({ split }) => split !== "test");
    teacher.options = {
      labelOf,
      behave: ({ wants }) => (wants === "write" ? { kind: "reply", text: "no idea" } : undefined),
    };
    const { campaign, outcome } = await fixture.trial("fruitless", { seed: 5, preflight: "off" }, noTest);
    expect(outcome.plain_returned).toBe(true);
    const [told] = documentsIn(await verified(campaign.run.id, "fruitless"), "campaign.json");
    expect(told?.outcome).toMatchObject({ stopReason: "nothing_accepted" });
    teacher.options = { labelOf };
  },
  slow,
);

test(
  "a campaign that failed, and one that was cancelled: what there is",
  async () => {
    const { teacher } = fixture;
    teacher.options = { behave: () => ({ kind: "reply", text: "As a large language model I like turtles." }) };
    const failed = await fixture.begin("failed", { seed: 6, iterations: 1 });
    expect((await fixture.untilStatus(failed, "failed", "succeeded")).run.status).toBe("failed");
    teacher.options = { labelOf };
    const ofFailed = await verified(failed, "failed");
    expect(documentsIn(ofFailed, "calls").length).toBeGreaterThan(0);
    expect(ofFailed.some(({ name }) => name === "report.json")).toBe(false);

    const cancelled = await fixture.begin("cancelled", { seed: 7, iterations: 1, recipe: longRecipe });
    await fixture.untilStatus(cancelled, "running");
    const early = await request(fixture.stack.url).get(`/v1/campaigns/${cancelled}/bundle`);
    expect([early.status, early.body.reason]).toEqual([409, "campaign_not_finished"]);
    const args = [command, "--url", fixture.stack.url, "campaigns", "bundle", cancelled, "-o", fileOf("early")];
    await expect(promisify(execFile)(process.execPath, args)).rejects.toMatchObject({ code: 65 });
    await call(fixture.stack, "POST", `/v1/campaigns/${cancelled}/cancel`);
    await fixture.untilStatus(cancelled, "cancelled");
    await verified(cancelled, "cancelled");
  },
  slow,
);

test(
  "a fork has what it shares: its parent's calls, students and settings",
  async () => {
    const { id } = trial.campaign.run;
    const body = { iteration: 1, settings: { accept_probability: 0.3, iterations: 2 } };
    const { run } = await call<{ run: { id: string } }>(fixture.stack, "POST", `/v1/campaigns/${id}/fork`, body);
    expect((await fixture.untilStatus(run.id, "succeeded", "failed")).run.status).toBe("succeeded");
    const ofFork = await verified(run.id, "fork");
    const [ancestor] = documentsIn(ofFork, "ancestors");
    expect(ancestor?.run).toMatchObject({ id });
    const shared = documentsIn(ofFork, "steps").filter((one) => one.shared);
    expect(shared.some(({ name }) => name === "iteration/0/generate")).toBe(true);
  },
  slow,
);

test(
  "in-sample mining without dev rows, by the paper's schedule",
  async () => {
    const noDev = rows.filter(({ split }) => split !== "dev");
    const { campaign } = await fixture.trial("in-sample", { seed: 8, schedule: "paper", iterations: 2 }, noDev);
    await verified(campaign.run.id, "in-sample");
  },
  slow,
);

test("who is not there has no evidence", async () => {
  const none = await request(fixture.stack.url).get(`/v1/campaigns/${crypto.randomUUID()}/bundle`);
  expect([none.status, none.body.reason]).toEqual([404, "campaign_not_found"]);
  const client = new pg.Client({ connectionString: fixture.databaseUrl });
  await client.connect();
  try {
    const { id } = trial.campaign.run;
    const moved = "update campaigns.runs set project_id = $2 where id = $1";
    await client.query(moved, [id, "another"]);
    expect((await request(fixture.stack.url).get(`/v1/campaigns/${id}/bundle`)).status).toBe(404);
    await client.query(moved, [id, "default"]);
  } finally {
    await client.end();
  }
  expect((await request(fixture.stack.url).get("/v1/campaigns/nonsense/bundle")).status).toBe(404);
});
