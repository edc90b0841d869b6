import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Oracle, startOracle, withOracle } from "./oracle.js";

let oracle: Oracle;
const rows = Array.from({ length: 40 }, (_, index) => ({
  input: `real ${index}`,
  output: index % 2 === 0 ? "NUM" : "LOC",
}));
beforeAll(async () => {
  oracle = await startOracle(rows);
});
afterAll(async () => await oracle.stop());

async function ask(row: object, seed?: number): Promise<{ status: number; row: { input: string; output: string } }> {
  // The last message as the teacher service writes it.
  const content = ["The model got this example wrong:", JSON.stringify(row), "Write one new example."].join("\n");
  const response = await fetch(`${oracle.url}/chat/completions`, {
    method: "POST",
    body: JSON.stringify({
      model: "real-rows",
      seed,
      messages: [
        { role: "system", content: "…" },
        { role: "user", content },
      ],
    }),
  });
  const body = (await response.json()) as { choices?: { message: { content: string } }[] };
  return { status: response.status, row: JSON.parse(body.choices?.[0]?.message.content ?? "{}") };
}

test("it answers with a real row of the same output; the same question and seed with the same one", async () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 30; seed += 1) {
    const { row } = await ask({ input: "how many ?", output: "NUM" }, seed);
    expect(row.output).toBe("NUM");
    expect(rows).toContainEqual(row);
    expect(await ask({ input: "how many ?", output: "NUM" }, seed)).toMatchObject({ row });
    seen.add(row.input);
  }
  expect(seen.size).toBeGreaterThan(10);
});

test("what it cannot answer is refused", async () => {
  expect((await ask({ input: "who ?", output: "HUM" })).status).toBe(400);
  expect((await ask({ messages: [], output: "NUM" })).status).toBe(400);
  expect((await fetch(`${oracle.url}/models`)).status).toBe(404);
});

test("its profile stands beside those that are there", async () => {
  const home = await mkdtemp(join(tmpdir(), "tutelage-oracle-"));
  try {
    const given = join(home, "given.yaml");
    await writeFile(given, "profiles:\n  - { name: mine, provider: embedded, model: file:/m.gguf }\n");
    const written = await readFile(await withOracle(home, oracle.url, given), "utf8");
    expect(written).toContain("name: mine");
    expect(written).toContain(`base_url: ${oracle.url}`);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});
