/**
 * Forks: a campaign that goes on from an iteration of another one with other
 * settings. The steps of the iterations before are taken over as they are, so
 * that the loop finds them done, each under the settings that it was done with.
 */
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import type { RunRow } from "@tutelage/platform/runs";
import {
  Arm,
  type ForkCampaignRequest,
  HeldOutOverlaps,
  Schedule,
  type Settings,
  StartFrom,
  Switch,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import { resolveSettings } from "./settings.js";

const { WARN } = HeldOutOverlaps;

/** Where a fork comes from; part of its stored request. */
export interface Fork {
  campaignId: string;
  /** The campaign with which the line of forks began: replies that are kept to it are its forks', too. */
  root: string;
  /** The first iteration that is the fork's own. */
  iteration: number;
  /** The settings of what is shared: each of iterations below `until`, in order. */
  shared: { until: number; settings: ResolvedRequest["settings"] }[];
  /** Times that the parents were tried again: that many pre-flights may be shared. */
  retries: number;
}

type Parent = Pick<RunRow<ResolvedRequest, CampaignState>, "id" | "request" | "state">;

/**
 * The stored request of a fork. Throws invalid_argument, and failed_precondition "checkpoints_removed".
 * @param finished iterations of the parent that have made a version, in a row from 0
 */
export function forked(parent: Parent, asked: ForkCampaignRequest, finished: number): ResolvedRequest {
  const { iteration, name, idempotencyKey } = asked;
  const { fork, ...request } = parent.request;
  const retries = (fork?.retries ?? 0) + (parent.state.retries ?? 0);
  if (!Number.isInteger(iteration) || iteration < 1 || iteration > finished) {
    const fix =
      finished === 0
        ? "none of the campaign's iterations has added rows yet; start another campaign instead"
        : `give a whole number from 1 to ${finished}: the iterations before it are shared`;
    throw invalidField("iteration", `is ${iteration}; ${fix}.`, "iteration_not_finished");
  }
  const settings = withArms(
    asked.settings === undefined ? request.settings : resolveSettings(asked.settings, request.task),
  );
  if ((settings.schedule ?? Schedule.TUTELAGE) !== (request.settings.schedule ?? Schedule.TUTELAGE)) {
    throw invalidField(
      "settings.schedule",
      "differs from the parent's, all of whose settings a fork has until it changes them; change the settings themselves.",
    );
  }
  if ((settings.heldOutOverlaps ?? WARN) !== (request.settings.heldOutOverlaps ?? WARN)) {
    throw invalidField(
      "settings.held_out_overlaps",
      "differs from the parent's, whose students a fork shares; leave it, or start another campaign.",
    );
  }
  if (settings.iterations < iteration) {
    throw invalidField(
      "settings.iterations",
      `is ${settings.iterations}; give at least ${iteration}, as so many are shared, or fork at an earlier iteration.`,
    );
  }
  requireCheckpoints(parent, settings);
  return {
    ...request,
    idempotencyKey,
    name: name === "" ? `${request.name} (fork)`.slice(0, 200) : name,
    settings: { ...settings, recipe: settings.recipe ?? request.settings.recipe },
    fork: {
      campaignId: parent.id,
      root: fork?.root ?? parent.id,
      iteration,
      shared: sharedSettings(parent, iteration),
      retries,
    },
  };
}

/** Throws failed_precondition where students would begin from those of the shared folds, and these are gone. */
export function requireCheckpoints(
  { state }: Pick<Parent, "state">,
  { startFrom, arms, checkStudents }: Pick<ResolvedRequest["settings"], "startFrom" | "arms" | "checkStudents">,
): void {
  if (!state.checkpointsSwept) return;
  const needs =
    startFrom === StartFrom.PREVIOUS
      ? ["that the fork's students would begin from", 'fork it with start_from "base"']
      : arms.includes(Arm.RANDOM) && checkStudents === Switch.ON
        ? ["that check the arm random's rows", "fork it without that arm"]
        : undefined;
  if (needs === undefined) return;
  throw new TutelageError(
    "failed_precondition",
    `The checkpoints ${needs[0]} were removed since the campaign ended; ${needs[1]}, or start another campaign.`,
    { reason: "checkpoints_removed" },
  );
}

/** A parent may be a fork itself, and share what came before under other settings still. */
function sharedSettings({ request }: Parent, iteration: number): Fork["shared"] {
  const inherited = (request.fork?.shared ?? []).filter(({ until }) => until < iteration);
  const next = (request.fork?.shared ?? []).find(({ until }) => until >= iteration);
  return [...inherited, { until: iteration, settings: next?.settings ?? request.settings }];
}

/** Settings that an earlier release stored name two arms by switches of their own, and know no other. */
export function withArms<Stored extends Settings>(settings: Stored): Stored {
  if (settings.arms !== undefined) return settings;
  const { matchedArm, noneAllArm } = settings as { matchedArm?: Switch; noneAllArm?: Switch };
  const arms = [
    ...(matchedArm === Switch.ON ? [Arm.NONE_MATCHED] : []),
    ...(noneAllArm === Switch.ON ? [Arm.NONE_ALL] : []),
  ];
  return { ...settings, arms, oracleTeacherProfile: "" };
}

/** The settings under which an iteration runs, or ran where it is shared. */
export function settingsAt(request: ResolvedRequest, iteration: number): ResolvedRequest["settings"] {
  return withArms(request.fork?.shared.find(({ until }) => iteration < until)?.settings ?? request.settings);
}

/** The settings of a campaign that does no more than this one does itself: what a fork shares is not forecast. */
export function ownSettings({
  settings,
  fork,
}: Pick<ResolvedRequest, "settings" | "fork">): ResolvedRequest["settings"] {
  if (fork === undefined) return settings;
  return { ...settings, iterations: settings.iterations - fork.iteration, preflight: Switch.OFF };
}

/** Refused until its forks are gone: they rest on its rows, students and replies. */
export function hasForks(forks: readonly string[]): TutelageError {
  return new TutelageError(
    "failed_precondition",
    `Campaign ${forks[0]} is a fork of this one and rests on what it made${forks.length > 1 ? `, and ${forks.length - 1} more` : ""}; delete that first.`,
    { reason: "campaign_has_forks" },
  );
}
