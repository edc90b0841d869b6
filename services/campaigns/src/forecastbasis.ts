/** Looks up what a forecast rests on. */
import { notFound } from "@tutelage/platform/errors";
import type { Runs } from "@tutelage/platform/runs";
import { Split } from "@tutelage/proto/task/v1/task";
import type { CampaignState, ResolvedRequest } from "./campaign.js";
import { rowsOf, type Services } from "./clients.js";
import type { ForecastBasis } from "./forecast.js";
import type { CampaignStore } from "./store.js";

export async function forecastBasis(
  { runs, store, services }: { runs: Runs<ResolvedRequest, CampaignState>; store: CampaignStore; services: Services },
  resolved: ResolvedRequest,
  signal: AbortSignal,
): Promise<ForecastBasis> {
  const { projectId, datasetVersionId, studentProfile, teacherProfile, task, settings } = resolved;
  const [version, seedRows, { profiles }, earlierId] = await Promise.all([
    services.datasets.getVersion({ projectId, id: datasetVersionId }, { signal }),
    rowsOf(services, projectId, datasetVersionId, Split.TRAIN, signal),
    services.teacher.listTeacherProfiles({ projectId }, { signal }),
    store.newestLike(projectId, studentProfile, teacherProfile),
  ]);
  const teacher = profiles.find(({ name }) => name === teacherProfile);
  if (teacher === undefined) throw notFound("teacher profile", teacherProfile);
  const { dev = 0, test = 0 } = version.splits ?? {};
  const basis = { settings, task, seedRows, devRows: dev, testRows: test, teacher };
  if (earlierId === undefined) return { ...basis, earlier: undefined };
  const earlier = await runs.get(projectId, earlierId);
  const iterations = await store.iterations({ projectId, campaignId: earlierId });
  // Its wall time is without its arms.
  const arms = earlier.state.outcome?.otherArms ?? [];
  const used = (name: "teacherSeconds" | "calls") =>
    arms.reduce((left, { usage }) => left - (usage?.[name] ?? 0), earlier.state.usage?.[name] ?? 0);
  return {
    ...basis,
    earlier: {
      id: earlierId,
      settings: earlier.request.settings,
      trainRows: iterations.map((iteration) => iteration.trainRows),
      devRows: iterations[0]?.devAccuracy?.n ?? 0,
      wallSeconds: earlier.state.outcome?.wallSeconds ?? 0,
      teacherSeconds: used("teacherSeconds"),
      teacherCalls: used("calls"),
    },
  };
}
