import { Arm, ForkCampaignRequest, Settings, StartFrom, Switch } from "@tutelage/proto/campaigns/v1/campaigns";
import { expect, test } from "vitest";
import type { ResolvedRequest } from "./campaign.js";
import { forked, ownSettings, settingsAt, withArms } from "./fork.js";
import { defaultSettings } from "./settings.js";

const recipe = { epochs: 4 };
const request = {
  name: "first",
  task: { kind: "TASK_KIND_CLASSIFICATION" },
  settings: { ...defaultSettings, recipe, iterations: 5, rowsPerSeedRow: 2 },
} as unknown as ResolvedRequest;
const parent = { id: "p", request, state: { retries: 1 } as never };
const asked = (more: Partial<ForkCampaignRequest>) =>
  ForkCampaignRequest.fromPartial({ id: "p", iteration: 2, ...more });

test("a fork has its own settings from its iteration on, and its parent's before", () => {
  const fork = forked(parent, asked({ settings: Settings.fromPartial({ rowsPerSeedRow: 7, iterations: 4 }) }), 3);
  expect(fork).toMatchObject({ name: "first (fork)", fork: { campaignId: "p", iteration: 2, retries: 1 } });
  expect([0, 1, 2, 3].map((number) => settingsAt(fork, number).rowsPerSeedRow)).toEqual([2, 2, 7, 7]);
  // The parent's own recipe, where no other is given.
  expect(fork.settings.recipe).toEqual(recipe);
});

test("a forecast of what a fork does itself leaves out what it shares", () => {
  expect(ownSettings(request)).toEqual(request.settings);
  expect(ownSettings(forked(parent, asked({}), 3))).toMatchObject({ iterations: 3, preflight: Switch.OFF });
});

test("a fork of a fork keeps the settings of everything before it, and is forked as early as one likes", () => {
  const settings = (rowsPerSeedRow: number) => Settings.fromPartial({ rowsPerSeedRow, iterations: 9 });
  const child = { id: "c", state: {} as never, request: forked(parent, asked({ settings: settings(7) }), 3) };
  const late = forked(child, asked({ iteration: 4, settings: settings(9) }), 4);
  expect([0, 1, 2, 3, 4].map((number) => settingsAt(late, number).rowsPerSeedRow)).toEqual([2, 2, 7, 7, 9]);
  const early = forked(child, asked({ iteration: 1, settings: settings(9) }), 4);
  expect([0, 1, 2].map((number) => settingsAt(early, number).rowsPerSeedRow)).toEqual([2, 9, 9]);
  expect(early.fork).toMatchObject({ campaignId: "c", retries: 1 });
});

test.each([
  [{ iteration: 4 }, 3, "iteration", "from 1 to 3"],
  [{ iteration: 0 }, 3, "iteration", "from 1 to 3"],
  [{ iteration: 1 }, 0, "iteration", "none of the campaign's iterations has added rows yet"],
  [{ iteration: 3, settings: Settings.fromPartial({ iterations: 2 }) }, 3, "settings.iterations", "at least 3"],
  [{ settings: Settings.fromPartial({ iterations: 50 }) }, 3, "settings.iterations", "must be from 1 to 20"],
])("%j of a parent with %i finished iterations is refused", (more, finished, field, fix) => {
  try {
    forked(parent, asked(more), finished);
    expect.fail("it was not refused");
  } catch (error) {
    expect(error).toMatchObject({
      code: "invalid_argument",
      fields: [{ field, description: expect.stringContaining(fix) }],
    });
  }
});

test("students that begin from checkpoints which are gone are refused, others are not", () => {
  const swept = { ...parent, state: { checkpointsSwept: true } as never };
  const previous = Settings.fromPartial({ startFrom: StartFrom.PREVIOUS, iterations: 4 });
  expect(() => forked(swept, asked({ settings: previous }), 3)).toThrow(/checkpoints .* were removed/);
  const checked = Settings.fromPartial({ arms: [Arm.RANDOM], iterations: 4 });
  expect(() => forked(swept, asked({ settings: checked }), 3)).toThrow(/check the arm random's rows were removed/);
  expect(forked(swept, asked({}), 3).fork?.campaignId).toBe("p");
  expect(forked(parent, asked({ settings: previous }), 3).fork?.campaignId).toBe("p");
});

test("what an earlier release stored as switches are arms", () => {
  const { arms: _, oracleTeacherProfile: __, ...before } = request.settings;
  const stored = { ...request, settings: { ...before, matchedArm: Switch.ON, noneAllArm: Switch.OFF } } as never;
  expect(settingsAt(stored, 0).arms).toEqual([Arm.NONE_MATCHED]);
  expect(forked({ ...parent, request: stored }, asked({}), 3).settings).toMatchObject({
    arms: [Arm.NONE_MATCHED],
    oracleTeacherProfile: "",
  });
  expect(withArms(before as never)).toMatchObject({ arms: [] });
  expect(settingsAt(request, 0)).toBe(request.settings);
});
