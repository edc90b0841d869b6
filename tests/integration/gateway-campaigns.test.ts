import { get } from "node:http";
import { Arm, Campaign, Mining, Selection, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { TuningMethod } from "@tutelage/proto/student/v1/student";
import { Grader, TaskKind } from "@tutelage/proto/task/v1/task";
import request from "supertest";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { campaignBody, type Fixture, startFixture } from "./gateway-fixture.js";

let fixture: Fixture;
let dataset: string;
const api = () => request(fixture.url);

beforeAll(async () => {
  fixture = await startFixture({ GATEWAY_HEARTBEAT_MS: "200" });
  dataset = (await api().post("/v1/datasets").send({ name: "seed" }).expect(201)).body.id;
});
afterAll(() => fixture.stop());

test("a campaign is started with exactly what was asked, the rest left to the service's defaults", async () => {
  const recipe = { method: "lora", batch_rows: 8, micro_batch_tokens: 2048, learning_rate: 0.001, max_grad_norm: 1 };
  const settings = {
    mining: "in_sample",
    rows_per_seed_row: 1.5,
    check_teacher: false,
    arms: ["none_matched"],
    recipe,
  };
  const { body, headers } = await api()
    .post("/v1/campaigns")
    .set("idempotency-key", "once")
    .send({ ...campaignBody, dataset, settings })
    .expect(201);
  expect(headers.location).toBe(`/v1/campaigns/${body.run.id}`);
  expect(body.run).toMatchObject({ status: "queued", cancel_requested: false });
  expect(body.request.task).toMatchObject({ kind: "classification", prompt_template: "Message: {input}\nIntent:" });
  expect(body.request.settings).toMatchObject({ mining: "in_sample", check_teacher: false });

  const asked = fixture.campaigns.started.at(-1);
  expect(asked).toMatchObject({
    projectId: "default",
    idempotencyKey: "once",
    datasetVersionId: "",
    datasetId: dataset,
    studentProfile: "smollm2-135m",
    task: {
      kind: TaskKind.CLASSIFICATION,
      grader: Grader.UNSPECIFIED,
      labels: [{ name: "billing" }, { name: "returns" }],
    },
    settings: {
      mining: Mining.IN_SAMPLE,
      selection: Selection.UNSPECIFIED,
      iterations: 0,
      rowsPerSeedRow: 1.5,
      checkTeacher: Switch.OFF,
      checkStudents: Switch.UNSPECIFIED,
      arms: [Arm.NONE_MATCHED],
      recipe: { method: TuningMethod.LORA, batchRows: 8, learningRate: 0.001, loraRank: 0 },
      decoding: undefined,
    },
  });
});

test("a task's name goes to the service as it is, and names the campaign", async () => {
  await api()
    .post("/v1/campaigns")
    .send({ ...campaignBody, name: undefined, dataset, task: "sentiment" })
    .expect(201);
  expect(fixture.campaigns.started.at(-1)).toMatchObject({ taskName: "sentiment", task: undefined, name: "sentiment" });
});

test.each([
  [{ dataset: undefined }, "dataset", /either dataset or dataset_version_id/],
  [{ settings: { iteratons: 3 } }, "settings.iteratons", /not a known field/],
  [{ settings: { iterations: "three" } }, "settings.iterations", /a number|an int/],
  [{ settings: { seed: 0 } }, "settings.seed", /is 0; it must be greater/],
  [{ settings: { mining: "luck" } }, "settings.mining", /one of "in_sample", "cross_fit"\.$/],
  [{ task: { ...campaignBody.task, prompt_template: "Intent:" } }, "task.prompt_template", /"\{input\}" exactly once/],
  [{ task: { ...campaignBody.task, labels: [] } }, "task.labels", /at least two labels/],
  [{ task: { ...campaignBody.task, kind: "luck" } }, "task.kind", /one of "classification", /],
  [{ task: { ...campaignBody.task, prompt: "x" } }, "task.prompt", /not a known field/],
  [{ task: { ...campaignBody.task, name: undefined } }, "task.name", /give a text/],
  [{ task: 7 }, "task", /^must be a text, or a JSON object\.$/],
  [{ task: undefined }, "task", /^is missing; give a text, or a JSON object\.$/],
  [{ task: "no spaces" }, "task", /1 to 100 letters/],
  [{ student_profile: undefined }, "student_profile", /missing/],
] as const)("%j is refused: %s is named", async (change, field, fix) => {
  const { body } = await api()
    .post("/v1/campaigns")
    .send({ ...campaignBody, dataset: "seed", ...change })
    .expect(400);
  expect(body.reason).toBe("invalid_request");
  expect(body.errors).toEqual([{ field, message: expect.stringMatching(fix) }]);
});

test("campaigns are listed, read, cancelled; another's or none is not found", async () => {
  const { body } = await api()
    .post("/v1/campaigns")
    .send({ ...campaignBody, dataset: "seed" })
    .expect(201);
  const path = `/v1/campaigns/${body.run.id}`;
  expect((await api().get(path).expect(200)).body).toEqual(body);
  const page = (await api().get("/v1/campaigns?limit=5").expect(200)).body;
  expect(page.campaigns).toContainEqual(body);
  expect(page.next_cursor).toBe("next");
  for (const action of ["pause", "resume", "retry"]) {
    expect((await api().post(`${path}/${action}`).expect(200)).body.run).toMatchObject({ status: "queued" });
    await api().post(`/v1/campaigns/${crypto.randomUUID()}/${action}`).expect(404);
  }
  expect((await api().post(`${path}/cancel`).expect(200)).body.run.cancel_requested).toBe(true);
  await api().get(`${path}/candidates?iteration=2&limit=7&cursor=abc`).expect(200);
  expect(fixture.campaigns.candidateRequests.at(-1)).toMatchObject({ iteration: 2, pageSize: 7, cursor: "abc" });
  await api().get(`${path}/candidates`).expect(200);
  expect(fixture.campaigns.candidateRequests.at(-1)).toMatchObject({ iteration: -1, pageSize: 100, cursor: "" });
  await api().get(`/v1/campaigns/${crypto.randomUUID()}`).expect(404);
  await api().get("/v1/campaigns/7/events").expect(404);
  await api().get(`/v1/campaigns/${crypto.randomUUID()}/events`).expect(404);
});

test("a fork takes the settings of its campaign, but for those that are given; 0 takes one away", async () => {
  const settings = { max_teacher_calls: 500, folds: 5 };
  const { body } = await api()
    .post("/v1/campaigns")
    .send({ ...campaignBody, dataset: "seed", settings })
    .expect(201);
  const path = `/v1/campaigns/${body.run.id}/fork`;
  const change = { iterations: 4, max_teacher_calls: 0 };
  const made = await api().post(path).set("idempotency-key", "f").send({ iteration: 2, settings: change }).expect(201);
  expect(made.headers.location).toBe(`/v1/campaigns/${made.body.run.id}`);
  expect(made.body.forked_from).toMatchObject({ campaign_id: body.run.id, iteration: 2 });
  expect(fixture.campaigns.forked.at(-1)).toMatchObject({
    id: body.run.id,
    iteration: 2,
    idempotencyKey: "f",
    settings: { iterations: 4, maxTeacherCalls: 0, folds: 5 },
  });
  const refused = await api()
    .post(path)
    .send({ iteration: 0, settings: { fold: 3 } })
    .expect(400);
  expect(refused.body.errors.map(({ field }: { field: string }) => field)).toEqual(["iteration", "settings.fold"]);
  await api().post(`/v1/campaigns/${crypto.randomUUID()}/fork`).send({ iteration: 1 }).expect(404);
});

test("the project's month is read and changed, each cap by the service that counts it", async () => {
  const lines = async () => (await api().get("/v1/allowance").expect(200)).body.lines;
  expect(await lines()).toHaveLength(4);
  const changed = await api()
    .patch("/v1/allowance")
    .send({ cost_micro_usd: 5_000_000, training_seconds: 60 })
    .expect(200);
  expect(changed.body.month).toBe("2026-11");
  expect(changed.body.lines).toContainEqual({ name: "training_seconds", used: 0, cap: 60 });
  await api().patch("/v1/allowance").send({ cost_micro_usd: 0 }).expect(200);
  expect(await lines()).toContainEqual({ name: "cost_micro_usd", used: 0, cap: 0 });
  const refused = await api().patch("/v1/allowance").send({ hours: 1, teacher_calls: -1 }).expect(400);
  expect(refused.body.errors.map(({ field }: { field: string }) => field).sort()).toEqual(["hours", "teacher_calls"]);
});

test("events come as they happen, silence is bridged, and the stream ends with the campaign", async () => {
  const campaign = runningCampaign();
  const stream = openEvents(campaign.run?.id ?? "");
  await stream.until("campaign.snapshot");
  fixture.campaigns.tell();
  await stream.until("campaign.progress");
  fixture.campaigns.tell("iteration.started", { iteration: 0 });
  await stream.until("iteration.started");
  await stream.until(": still here");
  if (campaign.run !== undefined) campaign.run.status = RunStatus.SUCCEEDED;
  fixture.campaigns.tell("campaign.finished", { summary: "better" });
  await stream.ended;
  const events = stream.events().filter(({ id }) => id !== undefined);
  expect(events.map(({ id, event }) => [id, event])).toEqual([
    ["1", "iteration.started"],
    ["2", "campaign.finished"],
  ]);
  expect(events[1]?.data).toMatchObject({ sequence: 2, type: "campaign.finished", payload: { summary: "better" } });
  expect(stream.headers()["content-type"]).toBe("text/event-stream");

  // Back after a lost connection: only what it has not seen, and nothing at all when it has seen everything.
  const again = openEvents(campaign.run?.id ?? "", { "last-event-id": "1" });
  await again.ended;
  const [first] = again.events().filter(({ event }) => event !== undefined);
  expect(first).toMatchObject({ id: undefined, event: "campaign.snapshot", data: { run: { status: "succeeded" } } });
  expect(again.events().flatMap(({ id }) => id ?? [])).toEqual(["2"]);
  await api().get(`/v1/campaigns/${campaign.run?.id}/events`).set("last-event-id", "2").expect(204);
});

test("a stream begins with the campaign as it is, in the form of GET, whoever comes and from wherever", async () => {
  const campaign = runningCampaign();
  const id = campaign.run?.id ?? "";
  fixture.campaigns.tell("iteration.started", { iteration: 0 });
  fixture.campaigns.tell("phase.started", { iteration: 0, phase: "train" });
  const whole = (await api().get(`/v1/campaigns/${id}`).expect(200)).body;
  for (const [headers, query, ids] of [
    [{}, "", ["1", "2"]],
    [{ "last-event-id": "1" }, "", ["2"]],
    [{}, "?after=1", ["2"]],
    // The browser's own memory is newer than the address.
    [{ "last-event-id": "1" }, "?after=0", ["2"]],
  ] as const) {
    const stream = openEvents(id, headers, fixture.url, query);
    await stream.until("phase.started");
    const events = stream.events().filter(({ event }) => event !== undefined);
    expect(events[0]).toEqual({ id: undefined, event: "campaign.snapshot", data: whole });
    expect(events.flatMap((one) => one.id ?? [])).toEqual(ids);
    expect(events.filter(({ event }) => event === "campaign.snapshot")).toHaveLength(1);
    stream.close();
  }
  const wrong = await api().get(`/v1/campaigns/${id}/events`).set("last-event-id", "soon").expect(400);
  expect(wrong.body.errors[0].field).toBe("last-event-id");
});

test("a client that goes takes its watch with it", async () => {
  const stream = openEvents(runningCampaign().run?.id ?? "");
  await stream.until("campaign.snapshot");
  const watching = fixture.campaigns.watchers;
  expect(watching).toBeGreaterThan(0);
  stream.close();
  await vi.waitFor(() => expect(fixture.campaigns.watchers).toBe(watching - 1), 5_000);
});

test("a stopping gateway ends its event streams instead of waiting for campaigns", async () => {
  const other = await startFixture();
  const campaign = runningCampaign();
  const id = other.campaigns.put(campaign);
  const stream = openEvents(id, {}, other.url);
  await stream.until("campaign.snapshot");
  const began = Date.now();
  await other.gateway.stop();
  await stream.ended;
  expect(Date.now() - began).toBeLessThan(3_000);
  const last = stream.events().findLast(({ event }) => event !== undefined);
  expect(last).toMatchObject({ event: "stream.closing", data: { reason: "server_stopping" } });
  await other.stop();
});

test("a stopping campaigns service ends event streams with its reason, and the gateway goes on", async () => {
  const other = await startFixture();
  const stream = openEvents(other.campaigns.put(runningCampaign()), {}, other.url);
  await stream.until("campaign.snapshot");
  await other.stopCampaigns();
  await stream.ended;
  expect(stream.events().findLast(({ event }) => event !== undefined)).toMatchObject({
    id: undefined,
    event: "stream.closing",
    data: { reason: "service_stopping", message: expect.stringContaining("again") },
  });
  await request(other.url).get("/health").expect(200);
  await other.stop();
});

test("before a campaign has finished there is no student to take home or to ask", async () => {
  const path = `/v1/campaigns/${runningCampaign().run?.id}`;
  for (const call of [
    api().get(`${path}/model`),
    api().post(`${path}/exports`).send({ form: "merged" }),
    api().get(`${path}/exports/${crypto.randomUUID()}`),
    api()
      .post(`${path}/predict`)
      .send({ inputs: ["hello"] }),
  ]) {
    expect((await call.expect(409)).body.reason).toBe("campaign_not_finished");
  }
});

test("the student answers with probabilities, by scoring the task's labels", async () => {
  const campaign = finish(runningCampaign(), "file:///nowhere");
  const { body } = await api()
    .post(`/v1/campaigns/${campaign.run?.id}/predict`)
    .send({ inputs: ["i was charged twice", "where is it"] })
    .expect(200);
  expect(body.predictions).toHaveLength(2);
  expect(body.predictions[0]).toMatchObject({ text: "billing", label_scores: [{ label: "billing" }], too_long: false });
  expect(body.predictions[0].probability).toBeCloseTo(0.75);
  expect(fixture.predictions.at(-1)).toMatchObject({
    checkpointUri: "file:///nowhere",
    model: "package:base",
    rows: [{ input: "i was charged twice" }, { input: "where is it" }],
    decoding: { scoreLabels: true },
  });
  await api().post(`/v1/campaigns/${campaign.run?.id}/predict`).send({ inputs: [] }).expect(400);
});

function runningCampaign(): Campaign {
  fixture.campaigns.events.length = 0;
  const id = crypto.randomUUID();
  const labels = ["billing", "returns"].map((name) => ({ name, description: "" }));
  const task = { name: "intents", kind: TaskKind.CLASSIFICATION, promptTemplate: "Message: {input}\nIntent:", labels };
  const campaign = Campaign.fromPartial({
    run: { id, status: RunStatus.RUNNING, createdAt: new Date() },
    request: { name: "support", task, settings: {} },
  });
  fixture.campaigns.put(campaign);
  return campaign;
}

function finish(campaign: Campaign, uri: string): Campaign {
  const final = { name: "campaign", checkpoint: { uri, model: "package:base" } };
  Object.assign(campaign, Campaign.fromPartial({ ...campaign, outcome: { final } } as never));
  if (campaign.run !== undefined) campaign.run.status = RunStatus.SUCCEEDED;
  return campaign;
}

/** A server-sent event stream read by hand. */
function openEvents(id: string, headers: Record<string, string> = {}, url = fixture.url, query = "") {
  let text = "";
  let received: NodeJS.Dict<string | string[]> = {};
  const call = get(`${url}/v1/campaigns/${id}/events${query}`, { headers });
  const ended = new Promise<void>((done, fail) => {
    call.on("error", (error) => (call.destroyed ? done() : fail(error)));
    call.on("response", (response) => {
      received = response.headers;
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", done);
      response.on("error", () => done());
    });
  });
  return {
    ended,
    headers: () => received,
    until: (part: string) => vi.waitFor(() => expect(text).toContain(part), 5_000),
    events: () =>
      text.split("\n\n").map((block) => {
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
        const data = field("data");
        return { id: field("id"), event: field("event"), data: data === undefined ? undefined : JSON.parse(data) };
      }),
    close: () => call.destroy(),
  };
}
