/** Reading and annotating what a campaign did, over REST, against a whole stack. */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Stack } from "@tutelage/standalone/stack";
import { type CampaignView, call, type Trial } from "@tutelage/standalone/trial";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TeacherServer } from "../support/teacher-server.js";
import { labelOf, task } from "../support/tinytask.js";
import { until } from "../support/waiting.js";
import { type CampaignFixture, quick, slow, startCampaignFixture, teacherKey } from "./campaign-fixture.js";

interface Ledger {
  calls: {
    id: string;
    purpose: string;
    iteration?: number;
    cost_micro_usd: number;
    outcome: string;
    seconds: number;
  }[];
  next_cursor: string;
  totals?: { purpose: string; calls: number; failed_calls: number; cost_micro_usd: number }[];
}

let fixture: CampaignFixture;
let stack: Stack;
let teacher: TeacherServer;
let first: Trial;
let id: string;
const api = () => request(stack.url);

beforeAll(async () => {
  fixture = await startCampaignFixture();
  ({ stack, teacher } = fixture);
  teacher.options = { labelOf };
  first = await fixture.trial("first", { seed: 1 });
  id = first.campaign.run.id;
}, slow);
afterAll(() => fixture?.stop(), slow);

test("the ledger is every call that the campaign made, adds up by purpose, and holds no text", async () => {
  const ledger = await call<Ledger>(stack, "GET", `/v1/campaigns/${id}/ledger?limit=1000`);
  expect(ledger.calls).toHaveLength(teacher.calls.length);
  expect(ledger.calls).toHaveLength(first.campaign.usage?.calls ?? 0);
  const purposes = ["preflight_write", "preflight_label", "write", "check_record", "check"];
  expect(ledger.totals?.map(({ purpose }) => purpose)).toEqual(purposes);
  for (const total of ledger.totals ?? []) {
    const own = ledger.calls.filter(({ purpose }) => purpose === total.purpose);
    expect(total.calls).toBe(own.length);
    expect(total.cost_micro_usd).toBe(own.reduce((sum, one) => sum + one.cost_micro_usd, 0));
  }
  const cost = ledger.totals?.reduce((sum, one) => sum + one.cost_micro_usd, 0);
  expect(cost).toBe(first.campaign.usage?.cost_micro_usd);
  expect(new Set(ledger.calls.filter(({ purpose }) => purpose === "write").map(({ iteration }) => iteration))).toEqual(
    new Set([0, 1]),
  );
  const text = JSON.stringify(ledger);
  expect(text).not.toContain("train 0");
  expect(text).not.toContain(teacherKey);

  const paged: string[] = [];
  let cursor = "";
  do {
    const page: Ledger = await call(stack, "GET", `/v1/campaigns/${id}/ledger?limit=13&cursor=${cursor}`);
    expect(page.totals === undefined).toBe(cursor !== "");
    paged.push(...page.calls.map((one) => one.id));
    cursor = page.next_cursor;
  } while (cursor !== "");
  expect(paged).toEqual(ledger.calls.map((one) => one.id));
});

test("one call shows its prompt and raw reply, to its own campaign only", async () => {
  const { calls } = await call<Ledger>(stack, "GET", `/v1/campaigns/${id}/ledger`);
  const one = calls.find(({ purpose }) => purpose === "write");
  const { body } = await api().get(`/v1/campaigns/${id}/ledger/${one?.id}`).expect(200);
  expect(body).toMatchObject({ ...one, outcome: "answered" });
  expect(body.prompt).toContain("train ");
  expect(JSON.parse(body.raw_reply).choices).toHaveLength(1);
  expect(JSON.stringify(body)).not.toContain(teacherKey);
  for (const missing of [crypto.randomUUID(), "7"]) {
    expect((await api().get(`/v1/campaigns/${id}/ledger/${missing}`).expect(404)).body.reason).toBe(
      "teacher_call_not_found",
    );
  }
  await api().get(`/v1/campaigns/${crypto.randomUUID()}/ledger`).expect(404);
});

test("the dataset of the returned student is linked, and its synthetic rows lead back to seed row, call and verdicts", async () => {
  const dataset = (await api().get(`/v1/campaigns/${id}/dataset`).expect(200)).body;
  const chosen = first.iterations.find(({ number }) => number === dataset.chosen_iteration);
  if (chosen !== undefined) expect(dataset.version.splits.train).toBe(chosen.train_rows);
  const newest = first.iterations.at(-1) as unknown as { dataset_version_id: string };
  const grown = `/v1/versions/${newest.dataset_version_id}`;
  const diff = (await api().get(`${grown}/diff?against=${dataset.seed_version_id}&limit=1000`).expect(200)).body;
  const accepted = first.iterations.reduce((sum, one) => sum + one.accepted, 0);
  expect(diff.summary).toMatchObject({ added_rows: accepted, removed_rows: 0, unchanged_rows: 44 });
  for (const link of Object.values(dataset.links)) await api().get(String(link)).expect(200);

  const { row } = diff.changes[0];
  const lineage = (await api().get(`${grown}/rows/${row.id}/lineage`).expect(200)).body;
  expect(lineage.ancestors.at(-1)).toMatchObject({ id: row.root_row_id, origin: "seed" });
  expect(lineage.made_by).toMatchObject({ campaign_id: id, campaign_name: "first" });
  const { candidate } = lineage.made_by;
  expect(candidate).toMatchObject({ row_id: row.id, input: row.input, accepted: true, seed_row_id: row.parent_row_id });
  expect((candidate.verdicts as { checker: string }[])[0]?.checker).toBe("students");
  const made = (await api().get(`/v1/campaigns/${id}/ledger/${candidate.call_id}`).expect(200)).body;
  expect(made.purpose).toBe("write");
  expect(JSON.parse(JSON.parse(made.raw_reply).choices[0].message.content).input).toBe(row.input);
  const seed = (await api().get(`${grown}/rows/${row.root_row_id}/lineage`).expect(200)).body;
  expect(seed.children.map((child: { id: string }) => child.id)).toContain(row.id);
  expect(seed.made_by).toBeUndefined();
});

test("a client that comes back with its Last-Event-ID gets a snapshot and what it has not seen, or nothing at all", async () => {
  const events = async (headers: Record<string, string>) => {
    const { text } = await api().get(`/v1/campaigns/${id}/events`).set(headers).buffer(true).expect(200);
    return text.split("\n\n").flatMap((block) => {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
      return field("event") === undefined
        ? []
        : [{ id: field("id"), event: field("event"), data: field("data") ?? "" }];
    });
  };
  const all = await events({});
  const campaign = (await api().get(`/v1/campaigns/${id}`).expect(200)).body;
  expect(all[0]).toMatchObject({ id: undefined, event: "campaign.snapshot" });
  expect(JSON.parse(all[0]?.data ?? "")).toEqual(campaign);
  const stored = all.filter((one) => one.id !== undefined);
  expect(stored.map((one) => Number(one.id))).toEqual(stored.map((_, index) => index + 1));
  expect(stored.slice(0, 2).map(({ event }) => event)).toEqual(["campaign.queued", "campaign.started"]);
  expect(stored.at(-1)?.event).toBe("campaign.finished");
  for (let seen = 1; seen < stored.length; seen++) {
    const rest = await events({ "last-event-id": String(seen) });
    expect(rest[0]?.event).toBe("campaign.snapshot");
    expect(rest.filter((one) => one.id !== undefined)).toEqual(stored.slice(seen));
  }
  await api().get(`/v1/campaigns/${id}/events`).set("last-event-id", String(stored.length)).expect(204);
});

test("candidates are narrowed by what became of them and by seed row", async () => {
  type Page = { candidates: { accepted: boolean; rejection: string; seed_row_id: string }[] };
  const list = async (query: string) =>
    (await call<Page>(stack, "GET", `/v1/campaigns/${id}/candidates?limit=1000${query}`)).candidates;
  const all = await list("");
  expect(await list("&accepted=true")).toEqual(all.filter((one) => one.accepted));
  expect(await list("&accepted=false")).toEqual(all.filter((one) => !one.accepted));
  const [some] = all;
  expect(await list(`&seed_row=${some?.seed_row_id}`)).toEqual(
    all.filter((one) => one.seed_row_id === some?.seed_row_id),
  );
  for (const reason of new Set(all.map((one) => one.rejection).filter((one) => one !== ""))) {
    expect(await list(`&rejection=${reason}`)).toEqual(all.filter((one) => one.rejection === reason));
  }
  expect((await api().get(`/v1/campaigns/${id}/candidates?accepted=maybe`).expect(400)).body.errors[0].field).toBe(
    "accepted",
  );
});

test("a campaign is renamed, annotated and found again; an ended one's caps stay", async () => {
  const change = { name: "The good one", note: "shown on Monday", tags: ["talk"] };
  const changed = (await api().patch(`/v1/campaigns/${id}`).send(change).expect(200)).body;
  expect(changed).toMatchObject({ request: { name: "The good one" }, note: "shown on Monday", tags: ["talk"] });
  const found = async (query: string) =>
    (await api().get(`/v1/campaigns?${query}`).expect(200)).body.campaigns.map((one: CampaignView) => one.run.id);
  const today = new Date().toISOString();
  expect(await found("name=good&status=succeeded,failed&dataset=first&tag=talk&since=2026-01-01")).toEqual([id]);
  for (const none of ["status=running", "name=bad", "tag=other", `since=${today}`, "before=2026-01-01T00:00:00Z"]) {
    expect(await found(none), none).toEqual([]);
  }
  for (const [query, field] of [
    ["status=sleeping", "status"],
    ["since=yesterday", "since"],
    ["colour=red", "colour"],
  ]) {
    const { body } = await api().get(`/v1/campaigns?${query}`).expect(400);
    expect(body.errors[0].field, JSON.stringify(body)).toMatch(new RegExp(`^${field}`));
  }
  expect((await api().get("/v1/campaigns?dataset=nobody").expect(404)).body.reason).toBe("dataset_not_found");
  const late = await api().patch(`/v1/campaigns/${id}`).send({ max_teacher_calls: 5 }).expect(409);
  expect(late.body).toMatchObject({ reason: "campaign_ended", errors: [{ field: "max_teacher_calls" }] });
  const wrong = await api()
    .patch(`/v1/campaigns/${id}`)
    .send({ settings: { folds: 3 } })
    .expect(400);
  expect(wrong.body.errors[0].field).toBe("settings");
});

test(
  "a task is stored and named by a campaign, whose raised cap lets it go on; its stream begins with a snapshot",
  async () => {
    const own = { ...task, name: "stored" };
    expect((await api().put("/v1/tasks/stored").send(own).expect(200)).body).toMatchObject({ preset: false });
    expect((await api().put("/v1/tasks/other").send(own).expect(400)).body.errors[0].field).toBe("name");
    expect((await api().get("/v1/tasks/stored").expect(200)).body.task).toMatchObject(own);
    const { tasks } = (await api().get("/v1/tasks").expect(200)).body;
    expect(tasks.map((one: { task: { name: string } }) => one.task.name)).toEqual(
      expect.arrayContaining(["sentiment", "multiple-choice", "math-word-problem", "short-answer", "stored"]),
    );

    // The pre-flight writes and labels one row for each of the 12 seed rows, which leaves no call for the iterations;
    // slow enough to raise the cap meanwhile.
    teacher.options = { labelOf, delayMs: 150 };
    const preflightCalls = 2 * 12;
    const body = {
      dataset: "first",
      task: "stored",
      student_profile: "tiny",
      teacher_profile: "scripted",
      settings: { ...quick, seed: 77, iterations: 1, max_teacher_calls: preflightCalls, finish_at_budget: true },
    };
    const started = (await api().post("/v1/campaigns").send(body).expect(201)).body;
    expect(started.request).toMatchObject({ name: "stored", task: own });
    const path = `/v1/campaigns/${started.run.id}`;
    expect((await api().get(`${path}/dataset`).expect(409)).body.reason).toBe("campaign_not_finished");
    await api().delete("/v1/tasks/stored").expect(204);
    expect((await api().get("/v1/tasks/stored").expect(404)).body.reason).toBe("task_not_found");
    expect((await api().delete("/v1/tasks/sentiment").expect(409)).body.reason).toBe("task_is_preset");
    const unknown = await api().post("/v1/campaigns").send(body).expect(400);
    expect(unknown.body).toMatchObject({ reason: "unknown_task", errors: [{ field: "task" }] });

    const lower = await api().patch(path).send({ max_teacher_calls: 1 }).expect(400);
    expect(lower.body).toMatchObject({ reason: "cap_lowered", errors: [{ field: "max_teacher_calls" }] });
    const raised = (await api().patch(path).send({ max_teacher_calls: 0 }).expect(200)).body;
    expect(raised.request.settings.max_teacher_calls).toBe(0);

    const events = (await api().get(`${path}/events`).buffer(true).timeout(slow).expect(200)).text
      .split("\n\n")
      .flatMap((block) => /^event: (.*)$/m.exec(block)?.[1] ?? []);
    expect(events[0]).toBe("campaign.snapshot");
    expect(events.filter((one) => one === "campaign.snapshot")).toHaveLength(1);
    const view = () => call<CampaignView>(stack, "GET", path);
    await until(async () => (await view()).run.status === "succeeded", slow);
    const { usage, outcome } = await view();
    expect(outcome?.stop_reason).not.toBe("budget");
    expect(usage?.calls).toBeGreaterThan(preflightCalls);
  },
  slow,
);

test("the command line shows the same, narrows the same, and changes the same", async () => {
  const folder = join(fixture.home, "cli");
  await mkdir(folder);
  const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
  const run = (...args: string[]) =>
    promisify(execFile)(process.execPath, [main, "--url", stack.url, ...args], { cwd: folder }).then(
      ({ stdout }) => ({ code: 0, text: stdout }),
      ({ code, stderr }: { code: number; stderr: string }) => ({ code, text: stderr }),
    );
  const json = async (...args: string[]) => JSON.parse((await run("--json", ...args)).text);

  expect((await run("campaigns", "update", id, "--note", "from a shell", "--tag", "a", "b")).code).toBe(0);
  expect(await json("campaigns", "get", id)).toMatchObject({ note: "from a shell", tags: ["a", "b"] });
  expect((await run("campaigns", "update", id)).code).toBe(64);
  expect(await run("campaigns", "update", id, "--max-teacher-calls", "9")).toEqual({
    code: 65,
    text: expect.stringContaining("has ended"),
  });
  expect((await json("campaigns", "list", "--tag", "b", "--status", "succeeded")).length).toBe(1);
  expect(await json("campaigns", "list", "--before", "2026-01-01")).toEqual([]);

  const ledger = await run("campaigns", "ledger", id);
  expect(ledger.text).toMatch(/^purpose +calls/);
  expect(ledger.text).toContain("check_record");
  const { calls } = await json("campaigns", "ledger", id, "--limit", "3");
  expect(calls).toHaveLength(3);
  expect((await run("campaigns", "ledger", id, calls[0].id)).text).toMatch(/Prompt[\s\S]+Reply/);
  const rejected = await json("campaigns", "candidates", id, "--rejected");
  expect(rejected.every((one: { accepted: boolean }) => !one.accepted)).toBe(true);
  expect((await run("campaigns", "candidates", id, "--accepted", "--rejected")).code).toBe(64);

  const iterations = await json("campaigns", "iterations", id);
  expect(iterations.map((one: { number: number }) => one.number)).toEqual(first.iterations.map((one) => one.number));
  expect((await run("campaigns", "iterations", id)).text.split("\n")[1]).toMatch(/^0 +\d+ +\d+ +\d+ +\d+ +[\d.]+ %/);
  const seedRows = await json("campaigns", "seed-rows", id, "--limit", "5");
  expect(seedRows).toHaveLength(5);
  const [graded] = seedRows;
  const shown = (await run("campaigns", "seed-rows", id)).text
    .split("\n")
    .find((line) => line.startsWith(graded.row.id));
  for (const part of [graded.row.input, graded.grades[0].correct ? "✓" : "✗", graded.row.output]) {
    expect(shown).toContain(part);
  }

  const { seed_version_id: seed } = await json("campaigns", "dataset", id);
  const newest = (first.iterations.at(-1) as unknown as { dataset_version_id: string }).dataset_version_id;
  const diff = await run("datasets", "diff", newest, "--against", seed);
  expect(diff.text).toMatch(/^\d+ added, 0 removed, 44 unchanged\n/);
  const [synthetic] = await json("datasets", "rows", newest, "--origin", "synthetic", "--limit", "1");
  const lineage = await run("datasets", "lineage", newest, synthetic.id);
  for (const part of ["from  ", "this  ", `made by campaign ${id}`, "students says", "teacher says"]) {
    expect(lineage.text).toContain(part);
  }
  expect(await json("datasets", "rows", newest, "--contains", "TRAIN", "--split", "test")).toEqual([]);

  await writeFile(join(folder, "task.yaml"), `name: from-shell\nkind: text\nprompt_template: "Q: {input}\\nA:"\n`);
  expect((await run("tasks", "put", "task.yaml")).text).toContain("task: from-shell");
  expect((await run("tasks", "get", "from-shell")).text).toContain("kind: text");
  expect((await run("tasks", "list")).text).toMatch(/from-shell +text +your own/);
  const named = `name: named\ndata: {dataset: first}\nstudent: tiny\nteacher: scripted\ntask: `;
  await writeFile(join(folder, "named.yaml"), `${named}from-shell\n`);
  expect((await run("estimate", "named.yaml")).text).toContain("teacher_calls");
  // A named extraction's fields say which rows of a file are taken, as those of a task in the file would.
  const extraction = { name: "stays", kind: "extraction", prompt_template: "{input}\nAs JSON:" };
  await writeFile(
    join(folder, "stays.json"),
    JSON.stringify({ ...extraction, fields: [{ name: "nights", type: "number" }] }),
  );
  expect((await run("tasks", "put", "stays.json")).code).toBe(0);
  const stays = Array.from({ length: 5 }, (_, n) => ({ input: `${n} nights please`, output: { nights: n } }));
  const odd = { input: "one night please", output: { nights: "one" } };
  await writeFile(join(folder, "stays.jsonl"), [...stays, odd].map((row) => JSON.stringify(row)).join("\n"));
  await writeFile(
    join(folder, "stays.yaml"),
    "name: stays\ndata: {train: stays.jsonl}\nstudent: tiny\nteacher: scripted\ntask: stays\n",
  );
  const told = await promisify(execFile)(process.execPath, [main, "--url", stack.url, "estimate", "stays.yaml"], {
    cwd: folder,
  });
  expect(told.stderr).toMatch(/stays\.jsonl:6: .*nights/);
  expect(told.stderr).toContain("5 rows as train, 1 left out");
  expect((await run("tasks", "delete", "from-shell")).code).toBe(0);
  const gone = await run("estimate", "named.yaml");
  expect([gone.code, gone.text]).toEqual([65, expect.stringContaining('There is no task "from-shell"')]);
  await writeFile(join(folder, "task.yaml"), "kind: text\n");
  expect((await run("tasks", "put", "task.yaml")).code).toBe(65);
}, 120_000);

test(
  "without a raise the same cap stops the campaign",
  async () => {
    teacher.options = { labelOf };
    const { outcome, campaign } = await fixture.trial("capped", {
      seed: 78,
      iterations: 1,
      max_teacher_calls: 24,
      finish_at_budget: true,
    });
    expect(outcome.stop_reason).toBe("budget");
    expect(campaign.usage?.calls).toBeLessThanOrEqual(24);
  },
  slow,
);
