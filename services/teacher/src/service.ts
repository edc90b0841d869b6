/** The gRPC handlers. */
import { requireProject } from "@tutelage/platform/project";
import { toRunMessage } from "@tutelage/platform/runmessage";
import type { RunRow, Runs } from "@tutelage/platform/runs";
import type { GenerationRun, TeacherServiceImplementation } from "@tutelage/proto/teacher/v1/teacher";
import { scoresLabels } from "./profile.js";
import { checkStartRequest } from "./request.js";
import type { Store } from "./store.js";
import type { Teachers } from "./teachers.js";
import type { GenerationRequest } from "./work.js";

type GenerationRow = RunRow<GenerationRequest, object>;

export function teacherService(dependencies: {
  runs: Runs<GenerationRequest, object>;
  store: Store;
  teachers: Teachers;
}): TeacherServiceImplementation {
  const { runs, store, teachers } = dependencies;
  const toMessage = async (row: GenerationRow): Promise<GenerationRun> => ({
    run: toRunMessage(row),
    teacherProfile: row.request.teacherProfile,
    ...(await store.usage(row.projectId, row.id)),
  });
  return {
    async startGenerationRun({ idempotencyKey, ...request }) {
      checkStartRequest({ idempotencyKey, ...request });
      teachers.get(request.teacherProfile);
      return await toMessage(await runs.start(request.projectId, idempotencyKey, request));
    },
    async getGenerationRun({ projectId, id }) {
      return await toMessage(await runs.get(projectId, id));
    },
    async *watchGenerationRun({ projectId, id }, { signal }) {
      for await (const row of runs.watch(projectId, id, signal)) yield await toMessage(row);
    },
    async cancelGenerationRun({ projectId, id }) {
      return await toMessage(await runs.cancel(projectId, id));
    },
    async *listResults({ projectId, id }) {
      await runs.get(projectId, id);
      for await (const results of store.results(projectId, id)) yield { results };
    },
    async *listCalls({ projectId, id }) {
      await runs.get(projectId, id);
      for await (const calls of store.calls(projectId, id)) yield { calls };
    },
    async listTeacherProfiles({ projectId }) {
      requireProject(projectId);
      return {
        profiles: [...teachers.profiles.values()].map((profile) => ({
          name: profile.name,
          provider: profile.provider,
          model: profile.model,
          description: profile.description,
          promptMicroUsdPerMillionTokens: profile.prices.prompt_micro_usd_per_million_tokens,
          completionMicroUsdPerMillionTokens: profile.prices.completion_micro_usd_per_million_tokens,
          scoresLabels: scoresLabels(profile),
          terms: profile.terms,
        })),
      };
    },
  };
}
