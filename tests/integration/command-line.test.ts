/** The command line as a process of its own, before a real gateway and datasets service. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Campaign } from "@tutelage/proto/campaigns/v1/campaigns";
import { RunStatus } from "@tutelage/proto/run/v1/run";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../support/waiting.js";
import { type Fixture, startFixture } from "./gateway-fixture.js";

/** Each test is many processes, of half a second on an idle core. */
const slowMs = 120_000;
const command = fileURLToPath(new URL("../../cli/bin/tutelage.mjs", import.meta.url));
let fixture: Fixture;
let folder: string;

beforeAll(async () => {
  fixture = await startFixture();
  folder = await mkdtemp(join(tmpdir(), "tutelage-command-"));
});
afterAll(async () => {
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
});

interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** A running command: what it has said so far, and how it ends. */
function begin(args: string[], environment: NodeJS.ProcessEnv = {}) {
  const env = { ...process.env, TUTELAGE_URL: fixture.url, ...environment };
  const child: ChildProcess = spawn(process.execPath, [command, ...args], { cwd: folder, env });
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      said[name] += text;
    });
  }
  const ended = once(child, "close").then(([code, signal]): Ended => ({ code, signal, ...said }));
  return { child, said, ended };
}
const tutelage = async (...args: string[]) => await begin(args).ended;
const json = async (...args: string[]) => {
  const { code, stdout } = await tutelage(...args, "--json");
  return { code, value: JSON.parse(stdout) };
};

function putCampaign(status: RunStatus, more: object = {}): string {
  const id = crypto.randomUUID();
  return fixture.campaigns.put(Campaign.fromPartial({ run: { id, status, createdAt: new Date(), ...more } }));
}

test(
  "a dataset is made, filled, refused, added to, and taken away again",
  async () => {
    expect((await tutelage("datasets", "create", "support")).stdout).toContain("tutelage datasets import support FILE");
    const twice = await json("datasets", "create", "support");
    expect([twice.code, twice.value.status, twice.value.reason]).toEqual([65, 409, "dataset_name_taken"]);
    expect((await tutelage("datasets", "get", "support")).stdout).toContain("none yet");
    const empty = await tutelage("datasets", "export", "support");
    expect([empty.code, empty.stdout, empty.stderr]).toEqual([65, "", expect.stringContaining("has no version yet")]);

    await writeFile(
      join(folder, "rows.csv"),
      "asked,intent,part\nwhere is it?,delivery,train\n,billing,train\npay twice?,billing,test\n",
    );
    const columns = ["--input-column", "asked", "--output-column", "intent", "--split-column", "part"];
    const strict = await tutelage("datasets", "import", "support", "rows.csv", ...columns, "--strict");
    expect(strict.code).toBe(65);
    expect(strict.stderr).toContain('rows.csv:3: asked: "asked" is empty; give the input text.');
    expect(strict.stderr).toContain("strict refuses the whole file");
    const refused = await json("datasets", "import", "support", "rows.csv", ...columns, "--strict");
    expect(refused.value).toMatchObject({
      status: 422,
      reason: "rows_rejected",
      rejects: [{ line: 3, field: "asked" }],
    });

    const some = await tutelage("datasets", "import", "support", "rows.csv", ...columns);
    expect([some.code, some.stdout]).toEqual([1, expect.stringMatching(/2 rows taken, 1 left out; 2 in this version/)]);
    await writeFile(join(folder, "more.jsonl"), '{"input":"a \\u001b[2J \\u009b1m","output":"returns"}\n');
    const more = await json("datasets", "import", "support", "more.jsonl", "--append", "--default-split", "dev");
    expect([more.code, more.value]).toEqual([
      0,
      expect.objectContaining({ imported_rows: 1, version: expect.objectContaining({ row_count: 3 }) }),
    ]);
    expect((await json("datasets", "import", "support", "more.jsonl", "--labels", "billing,delivery")).code).toBe(65);

    const exported = await tutelage("datasets", "export", "support");
    const rows = exported.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows.map(({ output }) => output)).toEqual(["delivery", "billing", "returns"]);
    const version = more.value.version.id;
    const saved = await json("datasets", "export", version, "--split", "dev", "--out", "dev.jsonl");
    const text = await readFile(join(folder, "dev.jsonl"), "utf8");
    expect(saved).toEqual({
      code: 0,
      value: { out: "dev.jsonl", size_bytes: Buffer.byteLength(text), version_id: version },
    });
    expect(text.trim().split("\n")).toHaveLength(1);

    // For a person without the control characters, as data with them.
    const shown = await tutelage("datasets", "rows", version, "--limit", "200000");
    expect(shown.stdout).toContain("a ␛[2J \uFFFD1m");
    const asData = await tutelage("datasets", "rows", version, "--json");
    expect(JSON.parse(asData.stdout)[2].input).toBe("a \u001b[2J \u009b1m");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
    for (const one of [shown.stdout, asData.stdout]) expect(one).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  },
  slowMs,
);

test(
  "a large file for a dataset that is not there is refused as that, however much of it is under way",
  async () => {
    const row = `${JSON.stringify({ input: "x".repeat(1_000), output: "billing" })}\n`;
    await writeFile(join(folder, "large.jsonl"), row.repeat(40_000));
    const { code, value } = await json("datasets", "import", "nowhere", "large.jsonl");
    expect([code, value.status, value.reason]).toEqual([65, 404, "dataset_not_found"]);
    const unasked = await tutelage("datasets", "import", "nowhere", "large.jsonl", "--url", "http://127.0.0.1:9");
    expect([unasked.code, unasked.stderr]).toEqual([69, expect.stringMatching(/^Nobody answers[^\n]*\n$/)]);
  },
  slowMs,
);

test(
  "with --json every refusal is one problem document, and the exit code stays",
  async () => {
    const cases: [code: number, reason: string, args: string[]][] = [
      [64, "wrong_usage", ["fly"]],
      [64, "wrong_usage", ["datasets", "rows"]],
      [64, "wrong_usage", ["datasets", "export", "support", "--out", "-"]],
      [64, "wrong_usage", ["up"]],
      [65, "campaign_not_found", ["campaigns", "get", crypto.randomUUID()]],
      [65, "invalid_request", ["campaigns", "candidates", crypto.randomUUID(), "--iteration", "x"]],
      [66, "file_error", ["run", "nothing.yaml"]],
      [66, "file_error", ["datasets", "import", "support", "nothing.csv"]],
      [69, "nobody_answers", ["usage", "--url", "http://127.0.0.1:9"]],
    ];
    for (const [code, reason, args] of cases) {
      const ended = await tutelage(...args, "--json");
      expect(ended.code, args.join(" ")).toBe(code);
      expect(JSON.parse(ended.stdout), args.join(" ")).toMatchObject({
        type: `urn:tutelage:problem:${reason}`,
        reason,
        title: expect.any(String),
        detail: expect.any(String),
      });
      expect(ended.stdout.trim().split("\n"), args.join(" ")).toHaveLength(1);
      expect(ended.stderr, args.join(" ")).not.toMatch(/^ +at /m);
    }
    expect((await readdir(folder)).filter((name) => name.endsWith(".partial"))).toEqual([]);
  },
  slowMs,
);

test(
  "a campaign that failed is a document, too, and one that ended is not said to be stopping",
  async () => {
    const failure = { code: "unavailable", message: "The teacher is away." };
    const failed = putCampaign(RunStatus.FAILED, { failure });
    const watched = await json("watch", failed);
    expect([watched.code, watched.value]).toEqual([
      1,
      expect.objectContaining({ run: expect.objectContaining({ id: failed, failure }), iterations: [] }),
    ]);
    const prose = await tutelage("watch", failed);
    expect([prose.code, prose.stdout, prose.stderr]).toEqual([
      1,
      "",
      "The campaign failed (unavailable): The teacher is away.\n",
    ]);
    const cancelled = await json("watch", putCampaign(RunStatus.CANCELLED));
    expect([cancelled.code, cancelled.value.run.status]).toEqual([1, "cancelled"]);

    expect((await tutelage("campaigns", "cancel", failed)).stdout).toContain("has failed already");
    expect((await tutelage("campaigns", "cancel", putCampaign(RunStatus.SUCCEEDED))).stdout).toContain(
      "has succeeded already; there is nothing to cancel",
    );
    expect((await tutelage("campaigns", "cancel", putCampaign(RunStatus.CANCELLED))).stdout).toMatch(/: cancelled\n$/);
    expect((await tutelage("campaigns", "cancel", putCampaign(RunStatus.RUNNING))).stdout).toContain(
      "is cancelling, and will have stopped within seconds",
    );
    expect((await tutelage("campaigns", "pause", putCampaign(RunStatus.RUNNING))).stdout).toContain(
      "is pausing: what is under way ends first",
    );
    const resting = putCampaign(RunStatus.PAUSED, { rest: { code: "paused", message: "Somebody paused it." } });
    expect((await tutelage("campaigns", "pause", resting)).stdout).toBe(`${resting}: is paused. Somebody paused it.\n`);
    expect((await tutelage("campaigns", "resume", resting)).stdout).toBe(`${resting}: is queued\n`);
    expect((await tutelage("campaigns", "retry", failed)).stdout).toBe(`${failed}: is queued\n`);
    const exhausted = putCampaign(RunStatus.BUDGET_EXHAUSTED, {
      rest: { code: "campaign_budget", message: "Raise it." },
    });
    const stopped = await tutelage("watch", exhausted);
    expect([stopped.code, stopped.stderr]).toEqual([1, expect.stringContaining("The budget is exhausted. Raise it.")]);
    const forked = await json("campaigns", "fork", failed, "--iteration", "2", "--settings", '{"folds": 4}');
    expect(forked.value.forked_from).toMatchObject({ campaign_id: failed, iteration: 2 });
    expect(fixture.campaigns.forked.at(-1)?.settings?.folds).toBe(4);
    expect((await tutelage("campaigns", "fork", failed, "--iteration", "1", "--settings", "{")).code).toBe(64);
    const budget = await json("budget", "--training-seconds", "90");
    expect(budget.value.lines).toContainEqual({ name: "training_seconds", used: 0, cap: 90 });
    expect((await tutelage("budget")).stdout).toMatch(/training_seconds +0 +90/);
  },
  slowMs,
);

test(
  "Ctrl-C ends the watching, and says so; the campaign goes on",
  async () => {
    const id = putCampaign(RunStatus.RUNNING);
    for (const args of [
      ["watch", id],
      ["watch", id, "--json"],
    ]) {
      const { child, said, ended } = begin(args);
      await until(async () => said.stderr.includes("iteration 0"), 20_000);
      child.kill("SIGINT");
      const { code, stdout, stderr } = await ended;
      expect(code).toBe(130);
      expect(stderr).toContain("Stopped watching; the campaign goes on");
      if (args.includes("--json")) expect(JSON.parse(stdout)).toMatchObject({ reason: "interrupted", campaign_id: id });
      else expect(stdout).toBe("");
    }
    expect(fixture.campaigns.campaigns.get(id)?.run?.cancelRequested).toBe(false);
  },
  slowMs,
);

test("Ctrl-C of up stops the server that it is, and nothing speaks of a campaign", async () => {
  // A server that starts and waits for its database: what it does on Ctrl-C is the real one's.
  const database = createServer().listen(0, "127.0.0.1");
  await once(database, "listening");
  const home = join(folder, "home");
  try {
    const { child, said, ended } = begin(["up", "--home", "home"], {
      TUTELAGE_PORT: "0",
      DATABASE_URL: `postgres://nobody@127.0.0.1:${(database.address() as AddressInfo).port}/none`,
    });
    await until(async () => said.stderr.includes(`Starting on ${home}`), 120_000);
    await until(() => existsSync(join(home, "stack.lock")), 30_000);
    // Only this process, as a supervisor would; a terminal signals the whole group, of which there is no more.
    child.kill("SIGINT");
    const { code, signal, stderr, stdout } = await ended;
    expect([code, signal]).toEqual([0, null]);
    expect(stderr).toMatch(/Stopping …\n(.*\n)*Stopped\.\n$/);
    expect(stdout + stderr).not.toContain("campaign");
    expect(existsSync(join(home, "stack.lock"))).toBe(false);
  } finally {
    database.close();
  }
}, 200_000);

test(
  "doctor names the profiles of a server that answers, and what is wrong is its exit code",
  async () => {
    const findings = await json("doctor");
    const byName = Object.fromEntries(findings.value.map((one: { name: string }) => [one.name, one]));
    expect(Object.keys(byName)).toEqual(
      expect.arrayContaining(["Node", "Python", "set-up", "models", "home", "GPU", "port", "server", "profiles"]),
    );
    expect(byName.profiles).toMatchObject({ found: "students smollm2-135m; teachers gemma3-270m" });
    for (const { state, fix } of findings.value) expect(fix === "").toBe(state === "ok");
    const away = await json("doctor", "--url", "http://127.0.0.1:9");
    expect(away.code).toBe(1);
    expect(away.value.map(({ name }: { name: string }) => name)).not.toContain("profiles");
  },
  slowMs,
);
