import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { apiSchema } from "tutelage/apischema";
import { afterAll, beforeAll, expect, test } from "vitest";
import { digestOf, readExperiment, variantsOf } from "./experimentfile.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tutelage-experiment-"));
});
afterAll(async () => await rm(folder, { recursive: true, force: true }));

const text = `name: tiny
task: question-type
settings: { iterations: 2 }
experiment:
  data: tiny
  seed_rows: 10
  replicates: 2
  arms: [none_matched, oracle]
  variants:
    continued: { start_from: previous }
`;
async function read(content: string, name = "tiny.yaml") {
  await writeFile(join(folder, name), content);
  return await readExperiment(join(folder, name));
}

test("the campaign as it stands has the arms; a variant changes settings and has none", async () => {
  const [main, continued, ...others] = variantsOf(await read(text), false);
  expect(others).toEqual([]);
  expect(main).toMatchObject({
    name: "default",
    task: "question-type",
    settings: { iterations: 2, arms: ["none_matched", "oracle"], oracle_teacher_profile: "oracle" },
  });
  expect(continued).toMatchObject({ name: "continued", settings: { iterations: 2, start_from: "previous" } });
  expect(continued?.settings).not.toHaveProperty("arms");
  expect(main?.digest).not.toBe(continued?.digest);
});

test("the digest changes with what shapes a campaign, and with nothing else", async () => {
  const digest = async (content: string, tune = false) => variantsOf(await read(content), tune)[0]?.digest;
  const first = await digest(text);
  expect(await digest(text.replace("replicates: 2", "replicates: 9"))).toBe(first);
  expect(await digest(text.replace("  continued", "  renamed"))).toBe(first);
  expect(await digest(text, true)).not.toBe(first);
  for (const change of ["seed_rows: 11", "seed_rows: 10\n  test_rows: 5"]) {
    expect(await digest(text.replace("seed_rows: 10", change))).not.toBe(first);
  }
  expect(digestOf({ a: 1, b: { c: 2, d: 3 } })).toBe(digestOf({ b: { d: 3, c: 2 }, a: 1 }));
});

test("a mistake is named with its file and field", async () => {
  await expect(read(text.replace("seed_rows: 10", "seed_rows: none"))).rejects.toThrow(
    /tiny\.yaml: experiment\.seed_rows/,
  );
  await expect(read(text.replace("arms:", "arm:"))).rejects.toThrow(/experiment.*arm/s);
  await expect(read(text, "other.yaml")).rejects.toThrow(/name it as the file is named/);
  await expect(read(text.replace("continued:", "default:"))).rejects.toThrow(/variants\.default: .*rename it/);
  await expect(readExperiment(join(folder, "none.yaml"))).rejects.toThrow(/There is no file/);
});

test("the repository's experiments can be read", async () => {
  const experiments = fileURLToPath(new URL("../../../../experiments/", import.meta.url));
  const files = (await readdir(experiments)).filter((name) => name.endsWith(".yaml"));
  expect(files.sort()).toEqual(["casehold.yaml", "gsm8k.yaml", "snips.yaml", "sst2.yaml", "trec.yaml"]);
  const known = apiSchema.CampaignSettings?.properties ?? {};
  for (const file of files) {
    const { settings, experiment } = await readExperiment(join(experiments, file));
    for (const changed of [settings, ...Object.values(experiment.variants)]) {
      for (const setting of Object.keys(changed)) expect(known, `${file}: ${setting}`).toHaveProperty(setting);
    }
  }
});
