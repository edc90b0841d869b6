import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { examine, port } from "./doctor.js";
import { home, homeFolder, models, setUp } from "./machine.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-doctor-"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

test("a port that something else took is told from a free one, from one of Tutelage's and from no port", async () => {
  let body = "<html>It works</html>";
  const other = createServer((_request, response) => response.end(body)).listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port: number } = other.address() as AddressInfo;
  try {
    vi.stubEnv("TUTELAGE_PORT", String(number));
    expect(await port(false)).toMatchObject({
      state: "missing",
      found: expect.stringContaining("not Tutelage"),
      fix: expect.stringContaining(`tutelage up --port ${number + 1}`),
    });
    expect(await port(true)).toMatchObject({ state: "note" });
    const findings = await examine(`http://127.0.0.1:${number}`);
    expect(findings.find(({ name }) => name === "server")).toMatchObject({
      state: "missing",
      found: expect.stringContaining("not as Tutelage does"),
    });
    body = '{"status":"ready"}';
    expect(await port(false)).toMatchObject({ state: "ok", found: `${number} is served by Tutelage` });
  } finally {
    other.close();
  }
  expect(await port(false)).toMatchObject({ state: "ok", found: `${number} is free` });
  vi.stubEnv("TUTELAGE_PORT", "http");
  expect(await port(false)).toMatchObject({ state: "missing", fix: expect.stringContaining("8080") });
});

test("a home that cannot be one is said, and one that is not there yet is no fault", async () => {
  vi.stubEnv("TUTELAGE_HOME", join(folder, "new/home"));
  expect(await home()).toMatchObject({ state: "ok", found: expect.stringContaining("not there yet") });
  await writeFile(join(folder, "file"), "");
  vi.stubEnv("TUTELAGE_HOME", join(folder, "file/home"));
  expect(await home()).toMatchObject({
    state: "missing",
    found: expect.stringContaining("is not a folder"),
    fix: expect.stringContaining("TUTELAGE_HOME"),
  });
  vi.stubEnv("TUTELAGE_HOME", "");
  expect(homeFolder()).toBe(join(homedir(), ".tutelage"));
});

test("models are looked for where profiles say", async () => {
  await mkdir(join(folder, "services/training"), { recursive: true });
  await mkdir(join(folder, "services/teacher"), { recursive: true });
  const student = (model: string) =>
    writeFile(join(folder, "services/training/profiles.yaml"), `profiles: { mine: { model: "${model}" } }\n`);
  await writeFile(join(folder, "services/teacher/profiles.yaml"), "profiles: []\n");
  await student(`file:${folder}/nothing.gguf`);
  const lacking = await models(folder);
  expect(lacking).toMatchObject({ state: "missing", fix: expect.stringContaining("npm run setup") });
  expect(lacking.found).toContain(`nothing at ${folder}/nothing.gguf`);
  // No environment in this folder, so no package's model either.
  expect(lacking.found).toContain(".venv/bin/python does not run");
  await writeFile(join(folder, "services/training/profiles.yaml"), "profiles: [\n");
  expect((await models(folder)).found).toContain("cannot be read");
  // Those of this clone are there, or no test would run.
  expect(await models()).toMatchObject({ state: "ok" });
});

test("the set-up's own steps say what is not done", async () => {
  expect(await setUp(folder)).toMatchObject({ state: "note", found: expect.stringContaining("no clone") });
  await mkdir(join(folder, "tools"));
  await writeFile(join(folder, "tools/setup.mjs"), 'export const pendingSteps = () => ["models", "typescript"];\n');
  expect(await setUp(folder)).toMatchObject({
    state: "missing",
    found: "not done: models, typescript",
    fix: expect.stringContaining("npm run setup"),
  });
  vi.stubEnv("TUTELAGE_TORCH", "gpu");
  expect(await setUp()).toMatchObject({ state: "missing", found: expect.stringContaining('TUTELAGE_TORCH is "gpu"') });
});
