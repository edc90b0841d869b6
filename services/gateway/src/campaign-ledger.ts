/** /v1/campaigns/{id}/ledger: every teacher call that a campaign made, and what it cost. */
import type { LedgerEntry, LedgerTotal } from "@tutelage/proto/campaigns/v1/campaigns";
import { z } from "zod";
import { campaignKey, campaignRef } from "./campaigns.js";
import { snake } from "./cases.js";
import { nextCursor, pageQuery, problems } from "./fields.js";
import type { Routes } from "./routes.js";

const tags = ["campaigns"];
const whole = z.number().int();

const ledgerCall = z.object({
  id: z.string(),
  purpose: z
    .string()
    .describe(
      "preflight_write, preflight_label, write (new rows), check (their labels), check_record (a check's record) or audit " +
        "(labels of seed rows that the students contradict)",
    ),
  iteration: whole.optional().describe("Left out for what belongs to none"),
  finished_at: z.date().optional(),
  teacher_profile: z.string(),
  model: z.string(),
  outcome: z.string().describe("answered or failed"),
  error_code: z.string().describe("Why it failed; empty when it was answered"),
  prompt_tokens: whole,
  completion_tokens: whole,
  cost_micro_usd: whole,
  seconds: z.number().describe("From sending to the last byte"),
  after_crash: z
    .boolean()
    .describe("An earlier try (in_flight_at_crash) was under way when its holder died: the provider may bill both"),
});

const ledgerPage = z
  .object({
    calls: z.array(ledgerCall).describe("In the order in which they ended"),
    next_cursor: nextCursor,
    totals: z
      .array(
        z.object({
          purpose: z.string(),
          calls: whole.describe("Failed ones too"),
          failed_calls: whole,
          reused_calls: whole.describe("Answered from stored replies, at no cost; not among calls"),
          prompt_tokens: whole,
          completion_tokens: whole,
          cost_micro_usd: whole,
          teacher_seconds: z.number().describe("In which at least one call was under way"),
          saved_micro_usd: whole.describe("What the replies had cost that were used again"),
        }),
      )
      .optional()
      .describe("What each purpose took, over all pages; on the first page only"),
  })
  .meta({ id: "CampaignLedger" });

export const campaignLedgerRoutes: Routes = (app, { backends }) => {
  const { campaigns } = backends;

  app.get(
    "/campaigns/:campaign/ledger",
    {
      schema: {
        tags,
        summary: "Every teacher call of a campaign, and what each purpose took",
        params: campaignRef,
        querystring: z.strictObject(pageQuery),
        response: { 200: ledgerPage, ...problems },
      },
    },
    async ({ params, query }) => {
      const page = { pageSize: query.limit, cursor: query.cursor };
      const ledger = await campaigns.listLedger({ ...campaignKey(params.campaign), ...page });
      return {
        calls: ledger.entries.map(callJson),
        next_cursor: ledger.nextCursor,
        totals: query.cursor === "" ? ledger.totals.flatMap(totalJson) : undefined,
      };
    },
  );

  app.get(
    "/campaigns/:campaign/ledger/:call",
    {
      schema: {
        tags,
        summary: "One teacher call with its prompt and raw reply",
        params: campaignRef.extend({ call: z.string().describe("Id of the call; a candidate's call_id is one") }),
        response: {
          200: ledgerCall
            .extend({
              prompt: z.string().describe("As sent; messages as JSON for a chat"),
              raw_reply: z.string().describe("As received"),
            })
            .meta({ id: "TeacherCall" }),
          ...problems,
        },
      },
    },
    async ({ params }) => {
      const entry = await campaigns.getLedgerEntry({ ...campaignKey(params.campaign), callId: params.call });
      return { ...callJson(entry), prompt: entry.call?.prompt ?? "", raw_reply: entry.call?.rawReply ?? "" };
    },
  );
};

function totalJson({ purpose, failedCalls, usage }: LedgerTotal) {
  return usage === undefined ? [] : [snake({ purpose, failedCalls, ...usage })];
}

/** Without prompt and reply: those are for whoever asks for one call. */
function callJson({ purpose, iteration, call }: LedgerEntry): z.output<typeof ledgerCall> {
  return {
    id: call?.id ?? "",
    purpose,
    ...(iteration < 0 ? {} : { iteration }),
    finished_at: call?.finishedAt,
    teacher_profile: call?.teacherProfile ?? "",
    model: call?.model ?? "",
    outcome: call?.status ?? "",
    error_code: call?.errorCode ?? "",
    prompt_tokens: call?.promptTokens ?? 0,
    completion_tokens: call?.completionTokens ?? 0,
    cost_micro_usd: call?.costMicroUsd ?? 0,
    seconds: (call?.durationMs ?? 0) / 1_000,
    after_crash: call?.afterCrash ?? false,
  };
}
