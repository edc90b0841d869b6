import { connect } from "@tutelage/platform/grpc";
import { EvaluationServiceDefinition } from "@tutelage/proto/evaluation/v1/evaluation";
import type { ServiceName, Stack } from "@tutelage/standalone/stack";
import { call, runTrial, type Trial } from "@tutelage/standalone/trial";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TeacherServer } from "../support/teacher-server.js";
import { labelOf, task } from "../support/tinytask.js";
import { type CampaignFixture, profiles, quick, rows, slow, startCampaignFixture } from "./campaign-fixture.js";

let fixture: CampaignFixture;
let stack: Stack;
let teacher: TeacherServer;

beforeAll(async () => {
  fixture = await startCampaignFixture({ teachers: ["scripted", "oracle"], environment: { TUTELAGE_STUDENTS: "2" } });
  ({ stack, teacher } = fixture);
}, slow);
afterAll(() => fixture?.stop(), slow);

const arms = [
  ...["zero_shot", "few_shot", "teacher", "probe", "none_matched", "none_all", "eda", "auggpt", "random", "oracle"],
];
const settings = { ...quick, seed: 7, arms: ["none", ...arms], oracle_teacher_profile: "oracle" };

/** What must not depend on who died when. */
const told = ({ outcome }: Trial) =>
  outcome.other_arms.map(({ name, train_rows, made_rows, steps, test_accuracy }) => ({
    name,
    train_rows,
    made_rows,
    steps,
    right: test_accuracy?.value,
  }));

/** Rows of an evaluation that did not fit the student's context. */
async function tooLong(id: string): Promise<number | undefined> {
  const evaluation = connect(EvaluationServiceDefinition, stack.addresses.evaluation);
  try {
    return (await evaluation.getEvaluationRun({ projectId: "default", id })).metrics?.tooLongRows;
  } finally {
    evaluation.close();
  }
}

let first: Trial;

test(
  "every arm is measured on the same test rows, with as many tries, and says what it took",
  async () => {
    teacher.options = { labelOf };
    const before = teacher.calls.length;
    first = await fixture.trial("arms", settings);
    const { outcome, iterations, campaign } = first;
    const byName = new Map(outcome.other_arms.map((arm) => [arm.name, arm]));
    expect([...byName.keys()]).toEqual(arms);
    for (const arm of outcome.other_arms) {
      expect(arm.left_out, arm.name).toBe("");
      expect(arm.test_accuracy?.n, arm.name).toBe(20);
      expect(arm.final_gain?.n, arm.name).toBe(20);
      expect(arm.final_gain?.gain, arm.name).toBeCloseTo(
        (outcome.final.test_accuracy?.value ?? 0) - (arm.test_accuracy?.value ?? 0),
      );
    }
    const made = outcome.other_arms.filter(({ made_rows }) => made_rows > 0).map(({ name }) => name);
    expect(made).toEqual(["eda", "auggpt", "random", "oracle"]);
    for (const name of made) expect(byName.get(name)?.train_rows).toBe(12 + (byName.get(name)?.made_rows ?? 0));
    // What the base model does, and the probe on it, has no seed to try.
    const tries = outcome.baseline.tries;
    expect(tries).toBe(3);
    for (const name of ["few_shot", "none_matched", "eda", "auggpt", "random", "oracle"])
      expect(byName.get(name)?.tries, name).toBe(tries);
    for (const name of ["zero_shot", "teacher", "probe", "none_all"]) expect(byName.get(name)?.tries, name).toBe(1);
    // A good teacher is right; a probe learns a closed vocabulary.
    expect(byName.get("teacher")?.test_accuracy?.value).toBe(1);
    expect(byName.get("zero_shot")).toMatchObject({ train_rows: 0, steps: 0, training_run_id: "" });
    expect(byName.get("few_shot")).toMatchObject({ steps: 0, training_run_id: "" });
    // As many as fit the student's 128 tokens: half of twelve, or half of that.
    expect([3, 6]).toContain(byName.get("few_shot")?.train_rows);
    expect(await tooLong(byName.get("few_shot")?.test_evaluation_run_id ?? "")).toBe(0);
    // As many calls as the loop's writing took; the oracle is asked for as many rows as there are.
    const written = iterations.reduce((sum, one) => sum + one.candidates, 0);
    const asked = (name: string) => {
      const { calls = 0, reused_calls = 0 } = byName.get(name)?.usage ?? {};
      return calls + reused_calls;
    };
    expect(asked("auggpt")).toBe(written);
    // Each may be checked, too.
    expect(asked("random")).toBeGreaterThanOrEqual(written);
    expect(asked("random")).toBeLessThanOrEqual(2 * written);
    const grown = outcome.chosen_iteration > 0 ? iterations[outcome.chosen_iteration] : iterations.at(-1);
    expect(byName.get("oracle")?.made_rows).toBe((grown?.train_rows ?? 0) - 12);
    expect(byName.get("eda")?.made_rows).toBe((grown?.train_rows ?? 0) - 12);
    // A comparison's rows are nobody's newest version.
    const read = <View>(path: string) => call<View>(stack, "GET", path);
    const { dataset_id } = await read<{ dataset_id: string }>(`/v1/campaigns/${campaign.run.id}`);
    const dataset = await read<{ latest_version_id: string }>(`/v1/datasets/${dataset_id}`);
    const loop = await read<{ iterations: { dataset_version_id: string }[] }>(
      `/v1/campaigns/${campaign.run.id}/iterations`,
    );
    expect(dataset.latest_version_id).toBe(loop.iterations.at(-1)?.dataset_version_id);
    expect(campaign.usage?.calls).toBe(teacher.calls.length - before);
    // Only the arm "teacher" shows it test rows, and those without their labels.
    const leaked = teacher.calls.slice(before).filter(({ prompt }) => /\b(dev|test) \d+ /.test(prompt));
    expect(leaked).toHaveLength(20);
    for (const { wants, prompt } of leaked) {
      expect(wants).toBe("label");
      expect(prompt.match(/\btest \d+ /g)).toHaveLength(1);
      expect(prompt).not.toMatch(/\bdev \d+ /);
    }
  },
  slow,
);

test(
  "the same arms come out when services die while they are made",
  async () => {
    teacher.options = { labelOf, delayMs: 50 };
    const victims: ServiceName[] = ["campaigns", "teacher", "training", "evaluation"];
    const again = await runTrial(
      stack,
      { name: "arms-again", rows, task, settings, ...profiles },
      ({ phase }) => {
        const victim = phase === "arms" ? victims.shift() : undefined;
        const pid = victim === undefined ? undefined : stack.pidOf(victim);
        if (pid !== undefined) process.kill(pid, "SIGKILL");
      },
      50,
    );
    expect(victims).toEqual([]);
    expect(told(again)).toEqual(told(first));
  },
  slow,
);

test(
  "an arm that cannot be is refused before anything is paid, or left out with its reason",
  async () => {
    let tried = 0;
    const trial = (changed: object) => fixture.trial(`refused-${tried++}`, { ...settings, ...changed });
    await expect(trial({ oracle_teacher_profile: "" })).rejects.toThrow("settings.oracle_teacher_profile is empty");
    await expect(trial({ oracle_teacher_profile: "orakel" })).rejects.toThrow('Did you mean "oracle"?');
    await expect(trial({ arms: ["nun"] })).rejects.toThrow("arms");
    await expect(trial({ arms: [] })).rejects.toThrow("settings.oracle_teacher_profile is for the arm oracle only");
    const { oracle_teacher_profile: _, ...plain } = settings;
    const untested = await fixture.trial(
      "untested",
      { ...plain, arms: ["auggpt"] },
      rows.filter(({ split }) => split !== "test"),
    );
    expect(untested.outcome.other_arms.map(({ left_out }) => left_out)).toEqual([
      "There are no test rows to compare on.",
    ]);
    // A cap that pays for no comparison keeps nobody from the result, whatever it does to the loop.
    const { outcome } = await fixture.trial(
      "left-out",
      {
        ...plain,
        max_teacher_calls: 60,
        check_teacher: false,
        reuse_replies: false,
        arms: ["none_all", "teacher", "random"],
      },
      rows.filter(({ split }) => split !== "dev"),
    );
    expect(outcome.other_arms.map(({ name, left_out }) => [name, left_out !== ""])).toEqual([
      ["teacher", true],
      ["none_all", true],
      ["random", true],
    ]);
  },
  slow,
);
