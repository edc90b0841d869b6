/** A campaign whose budget does not pay for what comes next: looks up what is missing, and says it. */
import { Rest } from "@tutelage/platform/rest";
import type { Runs } from "@tutelage/platform/runs";
import type { Shortfall } from "@tutelage/proto/campaigns/v1/campaigns";
import type { Campaign, CampaignState, ResolvedRequest } from "./campaign.js";
import { forecast } from "./forecast.js";
import { forecastBasis } from "./forecastbasis.js";
import { ownSettings } from "./fork.js";
import { restMessage, shortfalls } from "./shortfall.js";

/** The rest of a child run as its campaign's own, with a forecast of what is missing; that is stored, too. */
export async function exhausted(
  campaign: Campaign,
  runs: Runs<ResolvedRequest, CampaignState>,
  met: Rest,
): Promise<Rest> {
  const scope = met.code.startsWith("project_") ? "project_budget" : "campaign_budget";
  let message = met.message;
  let missing: Shortfall[] = [];
  try {
    missing = await whatIsMissing(campaign, runs, met.code);
    message = restMessage(missing);
  } catch (error) {
    // It rests also where nobody can say what is missing.
    campaign.signal.throwIfAborted();
    runs.log.warn({ err: error, campaignId: campaign.key.campaignId }, "could not forecast what a budget lacks");
  }
  // Also where it is not known: what an earlier rest lacked is not what this one does.
  await campaign.lease.report({}, { shortfalls: missing });
  return new Rest(met.status, scope, message, met.until);
}

async function whatIsMissing(
  campaign: Campaign,
  runs: Runs<ResolvedRequest, CampaignState>,
  code: string,
): Promise<Shortfall[]> {
  const { projectId, request, services, signal, store } = campaign;
  const settings = { ...ownSettings(request), maxTeacherCalls: 0, maxCostMicroUsd: 0 };
  const [basis, teacherMonth, trainingMonth, trained] = await Promise.all([
    forecastBasis({ runs, store, services }, { ...request, settings }, signal),
    services.teacher.getMonthBudget({ projectId }, { signal }),
    services.training.getMonthBudget({ projectId }, { signal }),
    store.trained(campaign.key),
  ]);
  await campaign.spending.readCaps();
  const month = [...teacherMonth.lines, ...trainingMonth.lines];
  return shortfalls(code, campaign.spending.caps, campaign.spending.used, month, forecast(basis), trained);
}
