/** What may be changed of a campaign that is there. Pure. */
import { invalidField, TutelageError } from "@tutelage/platform/errors";
import { isFinal, type RunRow } from "@tutelage/platform/runs";
import type { UpdateCampaignRequest } from "@tutelage/proto/campaigns/v1/campaigns";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import { bounds } from "./settings.js";

type CampaignRow = Pick<RunRow<ResolvedRequest, CampaignState>, "request" | "status">;

const maxNameLength = 200;
const maxNoteLength = 10_000;
const maxTags = 20;
const maxTagLength = 50;

/**
 * The request and the part of the state that the change gives. Every setting
 * but the caps is what steps so far rest on, and stays. The caps may be raised
 * while the campaign runs, and one that stopped for want of them goes on. Where
 * it orders only what its caps pay for, the loop reads them in a step of each
 * iteration (Spending.fixCaps), so a loop that runs again finds the caps under
 * which it ordered. They are not lowered, as what is under way was ordered under the
 * higher ones, and not changed once the campaign has ended, as it would not
 * go on.
 */
export function patched(
  run: CampaignRow,
  change: Omit<UpdateCampaignRequest, "projectId" | "id">,
): { request: ResolvedRequest; state: Pick<Partial<CampaignState>, "note" | "tags"> } {
  const { name, note, tags } = change;
  if (name !== undefined) {
    requireText("name", name, maxNameLength);
    if (name.trim() === "") throw invalidField("name", "is empty; give the campaign a name, or leave it out.");
  }
  if (note !== undefined) requireText("note", note, maxNoteLength);
  if (tags !== undefined) checkTags(tags.values);
  const settings = { ...run.request.settings };
  for (const cap of caps) {
    const asked = change[cap];
    if (asked !== undefined) raise(run, cap, asked, settings);
  }
  return {
    request: { ...run.request, settings, ...(name === undefined ? {} : { name }) },
    state: { ...(note === undefined ? {} : { note }), ...(tags === undefined ? {} : { tags: tags.values }) },
  };
}

const fieldOf = {
  maxTeacherCalls: "max_teacher_calls",
  maxTeacherTokens: "max_teacher_tokens",
  maxCostMicroUsd: "max_cost_micro_usd",
  maxTrainingSeconds: "max_training_seconds",
} as const;
type Cap = keyof typeof fieldOf;
const caps = Object.keys(fieldOf) as Cap[];

/** Whether a change names a cap: a campaign that rests for want of it may go on. */
export function raisesCap(change: Omit<UpdateCampaignRequest, "projectId" | "id">): boolean {
  return caps.some((cap) => change[cap] !== undefined);
}

function raise(run: CampaignRow, cap: Cap, asked: number, settings: ResolvedRequest["settings"]): void {
  // A campaign of an earlier release has not all of them.
  const now = settings[cap] ?? 0;
  const field = fieldOf[cap];
  const [, highest] = bounds[cap];
  if (!Number.isSafeInteger(asked) || asked < 0 || asked > highest) {
    throw invalidField(field, `is ${asked}; must be a whole number from 0 (no cap) to ${highest}.`);
  }
  if (asked === now) return;
  if (isFinal(run.status)) {
    throw new TutelageError(
      "failed_precondition",
      `The campaign has ended; start another one with a higher ${field}.`,
      {
        reason: "campaign_ended",
        fields: [{ field, description: "cannot be changed once the campaign has ended." }],
      },
    );
  }
  const isHigher = asked === 0 || (now !== 0 && asked > now);
  if (!isHigher) {
    const fix = now === 0 ? "there is no cap now; leave it out." : `give more than ${now}, or 0 for no cap.`;
    throw invalidField(field, `can only be raised while the campaign runs: ${fix}`, "cap_lowered");
  }
  settings[cap] = asked;
}

function checkTags(tags: readonly string[]): void {
  if (tags.length > maxTags) throw invalidField("tags", `are ${tags.length}; give at most ${maxTags}.`);
  for (const [index, tag] of tags.entries()) {
    requireText(`tags[${index}]`, tag, maxTagLength);
    if (tag.trim() === "") throw invalidField(`tags[${index}]`, "is empty; leave it out.");
    if (tags.indexOf(tag) !== index) throw invalidField(`tags[${index}]`, `repeats "${tag}"; name it once.`);
  }
}

function requireText(field: string, text: string, maxLength: number): void {
  if (text.length > maxLength) throw invalidField(field, `has ${text.length} characters; at most ${maxLength} fit.`);
  // Postgres' JSON cannot hold it.
  if (text.includes("\u0000")) throw invalidField(field, "holds the character U+0000; remove it.");
}
