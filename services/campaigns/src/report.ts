/** Gathers what a report shows from the services that know it. */

import { pairedGain } from "@tutelage/platform/choosing";
import { claims, compare } from "@tutelage/platform/comparisons";
import { TutelageError } from "@tutelage/platform/errors";
import { thinned } from "@tutelage/platform/losscurve";
import {
  type Campaign,
  type LossCurve,
  type Outcome,
  type Report,
  ReviewStatus,
} from "@tutelage/proto/campaigns/v1/campaigns";
import type { Metrics } from "@tutelage/proto/evaluation/v1/evaluation";
import { advise } from "./advice.js";
import type { ResolvedRequest } from "./campaign.js";
import { predictionsOf, type Services } from "./clients.js";
import { type StoredSplitOverlaps, shownSplitOverlaps, splitsStep, withoutHeldOutText } from "./overlaps.js";
import { departures } from "./paper.js";
import type { ReviewStore } from "./reviewstore.js";
import { seedRowsPage } from "./seedrows.js";
import type { CampaignStore } from "./store.js";

/** A report is read by a person: no more rows of a kind than this. */
const mostRows = 1_000;

/** Throws failed_precondition "campaign_not_finished" before there is an outcome. */
export async function gatherReport(
  deps: { store: CampaignStore; reviews: ReviewStore; services: Services },
  campaign: Campaign & { request?: ResolvedRequest | undefined },
  signal: AbortSignal,
): Promise<Report> {
  const { store, reviews, services } = deps;
  const { outcome, run, request } = campaign;
  if (outcome === undefined || run === undefined || request === undefined) {
    throw new TutelageError("failed_precondition", "The campaign has no report before it has succeeded.", {
      reason: "campaign_not_finished",
    });
  }
  const key = { projectId: run.projectId, campaignId: run.id };
  const metricsOf = async (evaluationRunId: string | undefined): Promise<Metrics | undefined> => {
    if (evaluationRunId === undefined || evaluationRunId === "") return undefined;
    const which = { projectId: run.projectId, id: evaluationRunId };
    return (await services.evaluation.getEvaluationRun(which, { signal })).metrics;
  };
  const curveOf = async (name: string, trainingRunId: string | undefined): Promise<LossCurve | undefined> => {
    if (trainingRunId === undefined || trainingRunId === "") return undefined;
    const losses: number[] = [];
    const which = { projectId: run.projectId, id: trainingRunId };
    for await (const { steps } of services.training.listTrainingSteps(which, { signal })) {
      losses.push(...steps.map((step) => step.loss));
    }
    return thinned(name, losses);
  };
  const [
    comparisons,
    iterations,
    seedRows,
    candidates,
    reviewed,
    counts,
    splits,
    baselineMetrics,
    finalMetrics,
    ...curves
  ] = await Promise.all([
    comparisonsOf(services, run.projectId, outcome, signal),
    store.iterations(key),
    seedRowsPage(deps, key, { datasetVersionId: request.datasetVersionId, pageSize: mostRows, cursor: "" }, signal),
    store.candidates.page(key, { after: -1, pageSize: mostRows, iteration: undefined }),
    reviews.reviews(key, { status: ReviewStatus.UNSPECIFIED, after: -1, pageSize: mostRows }),
    store.candidates.countsBySeedRow(key),
    store.step(key, splitsStep),
    metricsOf(outcome.baseline?.testEvaluationRunId),
    metricsOf(outcome.final?.testEvaluationRunId),
    curveOf("plain", outcome.baseline?.trainingRunId),
    curveOf("campaign", outcome.plainReturned ? undefined : outcome.final?.trainingRunId),
  ]);
  return {
    campaign,
    iterations,
    seedRows: seedRows.rows,
    candidates: candidates.candidates.map(withoutHeldOutText),
    candidateCount: [...counts.values()].reduce((sum, one) => sum + one.candidates, 0),
    baselineMetrics,
    finalMetrics,
    lossCurves: curves.filter((curve) => curve !== undefined),
    advice: advise(outcome, iterations, request.settings, request.task.kind),
    departures: departures(request.settings, { student: request.studentProfile, teacher: request.teacherProfile }),
    comparisons,
    claims: claims(outcome, comparisons),
    splitOverlaps: shownSplitOverlaps(splits?.output as StoredSplitOverlaps | undefined),
    reviews: reviewed.reviews,
  };
}

/** The returned student against each arm that the test rows measured. */
async function comparisonsOf(
  services: Services,
  projectId: string,
  { final, baseline, otherArms }: Outcome,
  signal: AbortSignal,
): Promise<ReturnType<typeof compare>> {
  const measured = [baseline, ...otherArms].flatMap((arm) => (arm?.testEvaluationRunId ? [arm] : []));
  if (!final?.testEvaluationRunId) return [];
  const answers = await predictionsOf(services, projectId, final.testEvaluationRunId, signal);
  const gains = await Promise.all(
    measured.map(async ({ name, testEvaluationRunId }) => ({
      arm: name,
      gain: pairedGain(answers, await predictionsOf(services, projectId, testEvaluationRunId, signal)),
    })),
  );
  return compare(gains);
}
