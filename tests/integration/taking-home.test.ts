/** A student taken home by REST and by the command line, and run as its model card says, by plain transformers and PEFT. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Stack } from "@tutelage/standalone/stack";
import type { Trial } from "@tutelage/standalone/trial";
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../support/waiting.js";
import { type CampaignFixture, slow, startCampaignFixture } from "./campaign-fixture.js";

const python = fileURLToPath(new URL("../../.venv/bin/python", import.meta.url));
const main = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
const run = promisify(execFile);
const inputs = ["how many legs ?", "which city ?", "count the number", "the river in the north"];

let fixture: CampaignFixture;
let stack: Stack;
let trial: Trial;
let folder: string;
let path: string;
let expected: string[];

beforeAll(async () => {
  fixture = await startCampaignFixture();
  ({ stack } = fixture);
  trial = await fixture.trial("home", { seed: 2, iterations: 1 });
  folder = await mkdtemp(join(tmpdir(), "tutelage-home-"));
  path = `/v1/campaigns/${trial.campaign.run.id}`;
  const reply = await request(stack.url).post(`${path}/predict`).send({ inputs }).expect(200);
  expected = reply.body.predictions.map(({ text }: { text: string }) => text);
}, slow);
afterAll(async () => {
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
}, slow);

/** Runs the code of a folder's README.md there, in a process that knows no Tutelage. */
async function askAsTheCardSays(where: string): Promise<string[]> {
  const card = await readFile(join(where, "README.md"), "utf8");
  const code = /```python\n([\s\S]*?)```/.exec(card)?.[1] ?? "";
  const asked = code.replace('print(ask("an input"))', `for text in ${JSON.stringify(inputs)}:\n    print(ask(text))`);
  expect(asked).not.toBe(code);
  await writeFile(join(where, "ask.py"), asked);
  const { PYTHONPATH: _, ...env } = process.env;
  const { stdout } = await run(python, ["-W", "ignore", "ask.py"], { cwd: where, env });
  return stdout.trim().split("\n");
}

async function unpacked(archive: "tar" | "tar.gz" | "zip", query: string): Promise<string> {
  const reply = await request(stack.url)
    .get(`${path}/model?archive=${archive}&${query}`)
    .buffer(true)
    .parse((response, done) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => done(null, Buffer.concat(chunks)));
    })
    .expect(200);
  expect(reply.headers["content-disposition"]).toBe(`attachment; filename="home.${archive}"`);
  const file = join(folder, `taken.${archive}`);
  await writeFile(file, reply.body);
  const into = join(folder, archive);
  await run(python, ["-c", "import shutil, sys; shutil.unpack_archive(*sys.argv[1:])", file, into]);
  return join(into, "home");
}

test(
  "merged weights: made once, checked, and plain transformers answers as the student",
  async () => {
    const started = await request(stack.url).post(`${path}/exports`).send({ form: "merged" }).expect(202);
    const { location = "" } = started.headers;
    const now = async () => (await request(stack.url).get(location).expect(200)).body;
    await until(async () => (await now()).run.status === "succeeded", 120_000);
    const made = await now();
    expect(made).toMatchObject({ form: "merged", includes_base: false, check: { passed: true, rows: 16 } });
    const pairs = made.check.comparisons.map((one: { compared: string; reference: string }) => [
      one.compared,
      one.reference,
    ]);
    expect(pairs).toEqual([
      ["adapter", "student"],
      ["merged", "adapter"],
      ["merged", "student"],
    ]);
    const again = await request(stack.url).post(`${path}/exports`).send({ form: "merged" }).expect(202);
    expect(again.body.run.id).toBe(made.run.id);

    const home = await unpacked("zip", "form=merged");
    expect(await askAsTheCardSays(home)).toEqual(expected);
    const card = await readFile(join(home, "README.md"), "utf8");
    const { campaign, outcome } = trial;
    const manifest = JSON.parse(await readFile(join(home, "export.json"), "utf8"));
    for (const fact of [campaign.run.id, outcome.summary, manifest.model_digest, "16 of 16", "n = 20"]) {
      expect(card).toContain(fact);
    }
    expect(card).toMatch(/Trained on: \d+ rows; the teacher wrote \d+ of its dataset's; dataset digest `[0-9a-f]{64}`/);
    expect(card).toContain('template = "Question: {input}\\nClass:"');
  },
  slow,
);

test(
  "an adapter comes with the base weights that nobody else can fetch, and PEFT answers as the student",
  async () => {
    const home = await unpacked("tar.gz", "");
    expect(await askAsTheCardSays(home)).toEqual(expected);
    expect(JSON.parse(await readFile(join(home, "adapter_config.json"), "utf8")).base_model_name_or_path).toBe("base");
  },
  slow,
);

test(
  "the command line makes a folder, and refuses to overwrite one",
  async () => {
    const { id } = trial.campaign.run;
    const args = [main, "--url", stack.url, "--json", "export", id, "--form", "merged", "--out", "student/"];
    const { stdout, stderr } = await run(process.execPath, args, { cwd: folder });
    const made = JSON.parse(stdout);
    expect(made).toMatchObject({ out: "student", form: "merged", check: { passed: true } });
    expect(made.files).toContain("README.md");
    expect(existsSync(join(folder, "student.partial"))).toBe(false);
    expect(stderr).toContain("merged answers as adapter on 16 of 16 rows");
    expect(await askAsTheCardSays(join(folder, "student"))).toEqual(expected);
    await expect(run(process.execPath, args, { cwd: folder })).rejects.toMatchObject({
      code: 66,
      stderr: expect.stringContaining("student is there already"),
    });
  },
  slow,
);

test("what cannot be exported is refused by name", async () => {
  const none = await request(stack.url).get(`${path}/exports/${crypto.randomUUID()}`);
  expect([none.status, none.body.reason]).toEqual([404, "run_not_found"]);
  const form = await request(stack.url).get(`${path}/model?form=gguf`);
  expect([form.status, form.body.errors[0].field]).toEqual([400, "form"]);
  const base = await request(stack.url).post(`${path}/exports`).send({ form: "merged", include_base: true });
  expect([base.status, base.body.errors[0].field]).toEqual([400, "include_base"]);
});
