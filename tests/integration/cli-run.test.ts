/** `tutelage run` again on the same files: joined while under way, shown when it succeeded, tried again when it did not. */
import request from "supertest";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CliFixture, startCliFixture } from "./cli-fixture.js";

const slow = 180_000;
let fixture: CliFixture;

beforeAll(async () => {
  fixture = await startCliFixture();
  const rows = Array.from({ length: 12 }, (_, i) => `message ${i},${["billing", "delivery"][i % 2]}\n`);
  await fixture.put("rows.csv", `input,output\n${rows.join("")}`);
  await fixture.put(
    "again.yaml",
    `name: again
data: {train: rows.csv}
task: {kind: classification, prompt_template: "Text: {input}\\nIt is about", labels: [billing, delivery]}
settings: {preflight: false}
`,
  );
}, slow);
afterAll(() => fixture?.stop(), slow);

const idOf = (told: string) => /Campaign ([0-9a-f-]{36})/.exec(told)?.[1];
const date = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d UTC";

test(
  "a campaign that failed or was cancelled is followed by another attempt, one that succeeded is shown",
  async () => {
    const run = (...options: string[]) => fixture.tutelage("run", ...options, "again.yaml");
    const first = await run();
    expect(first.code).toBe(1);
    expect(first.told).toContain("The campaign failed");
    expect(first.told).toContain("The student's disk is full.");
    const failed = idOf(first.told);

    // The disk has room again: at once and again, it is one campaign.
    fixture.student.fails = false;
    const [second, beside] = await Promise.all([run("--detach"), run("--detach")]);
    const again = await run("--detach");
    const id = idOf(second?.told ?? "");
    expect(id).not.toBe(failed);
    expect([idOf(beside?.told ?? ""), idOf(again.told)]).toEqual([id, id]);
    for (const { told } of [second, beside, again]) {
      expect(told).toMatch(
        new RegExp(
          `^The earlier campaign ${failed} of ${date} failed \\(.*disk is full.*\\); this is another attempt\\.$`,
          "m",
        ),
      );
    }

    await request(fixture.url).post(`/v1/campaigns/${id}/cancel`).send({}).expect(200);
    // It may take seconds to end, and is over all the same.
    const third = await run("--detach");
    expect(third.told).toMatch(
      new RegExp(`^The earlier campaign ${id} of ${date} was cancelled; this is another`, "m"),
    );
    const last = idOf(third.told);
    expect([failed, id]).not.toContain(last);

    await fixture.end(last ?? "", "SUCCEEDED");
    const shown = await run("--detach");
    expect(idOf(shown.told)).toBe(last);
    expect(shown.told).toMatch(
      new RegExp(`^This is the earlier campaign of ${date} on the same files; --new starts another\\.$`, "m"),
    );
    const anew = await run("--detach", "--new");
    expect([failed, id, last]).not.toContain(idOf(anew.told));
    await request(fixture.url)
      .post(`/v1/campaigns/${idOf(anew.told)}/cancel`)
      .send({})
      .expect(200);
  },
  slow,
);
