/** The gRPC handlers. */
import type { Database } from "@tutelage/platform/database";
import { notFound } from "@tutelage/platform/errors";
import { MonthBudget } from "@tutelage/platform/monthbudget";
import { stopOwnedRuns } from "@tutelage/platform/ownedruns";
import { heldBy } from "@tutelage/platform/ownerfence";
import { isNumber, nextCursor, readCursor, requirePageSize } from "@tutelage/platform/page";
import { requireProject } from "@tutelage/platform/project";
import { pauseRun, resumeOrRetryRun } from "@tutelage/platform/runcontrol";
import { toRunMessage } from "@tutelage/platform/runmessage";
import { isUuid, type RunRow, type Runs } from "@tutelage/platform/runs";
import {
  BreakerState,
  type GenerationRun,
  type TeacherProfile,
  type TeacherServiceImplementation,
  type TeacherWait,
} from "@tutelage/proto/teacher/v1/teacher";
import { deleteGenerationRuns } from "./deletion.js";
import { projectUsage } from "./deletionstore.js";
import type { Ledger } from "./ledger.js";
import { scoresLabels, type TeacherProfileSettings } from "./profile.js";
import { checkBudgets, checkStartRequest, refuseConversations, requireRunIds, requireRunKeyPrefix } from "./request.js";
import { putBudget, type Store } from "./store.js";
import type { Teachers } from "./teachers.js";
import type { WeatherStore } from "./weatherstore.js";
import type { GenerationRequest, GenerationState, StoredWait } from "./work.js";

type GenerationRow = RunRow<GenerationRequest, GenerationState>;

export function teacherService(dependencies: {
  runs: Runs<GenerationRequest, GenerationState>;
  store: Store;
  ledger: Ledger;
  teachers: Teachers;
  weather: WeatherStore;
  database: Database;
}): TeacherServiceImplementation {
  const { runs, store, ledger, teachers, weather, database } = dependencies;
  const toMessage = async (row: GenerationRow): Promise<GenerationRun> => ({
    run: toRunMessage(row),
    teacherProfile: row.request.teacherProfile,
    ...(await store.usage(row.projectId, row.id)),
    budgetExhausted: row.state.budgetExhausted ?? false,
    ordersLeft: row.state.ordersLeft ?? 0,
    // One that rests waits for nobody.
    waiting: row.status === "QUEUED" || row.status === "RUNNING" ? toWait(row.state.waiting) : undefined,
    budgetNotices: row.state.budgetNotices ?? [],
  });
  return {
    ...new MonthBudget(database, ["teacher_calls", "teacher_tokens", "cost_micro_usd"]).handlers(),
    async startGenerationRun({ idempotencyKey, owner, ...request }) {
      checkStartRequest({ idempotencyKey, ...request });
      refuseConversations(request, teachers.get(request.teacherProfile).profile.prompt_form);
      // A successor of whoever started it may know another budget, and an earlier release named none.
      const { budget: _, patienceSeconds: __, ...asked } = request;
      const alongside = heldBy(request.projectId, owner, idempotencyKey);
      return await toMessage(await runs.start(request.projectId, idempotencyKey, request, { asked, alongside }));
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
    async pauseGenerationRun({ projectId, id }) {
      return await toMessage(await pauseRun(runs, projectId, id));
    },
    async resumeGenerationRun({ projectId, id, budget, owner }) {
      checkBudgets(budget);
      const requireHeld = heldBy(projectId, owner);
      return await toMessage(
        await resumeOrRetryRun(runs, projectId, id, async (transaction) => {
          await requireHeld(transaction);
          if (budget !== undefined) await putBudget(transaction, projectId, id, budget);
        }),
      );
    },
    async stopOwnedRuns(request) {
      return await stopOwnedRuns(runs, request);
    },
    async deleteGenerationRuns({ projectId, keyPrefix, createdBefore }, { signal }) {
      requireProject(projectId);
      return await deleteGenerationRuns(database, projectId, keyPrefix, signal, createdBefore);
    },
    async getProjectUsage({ projectId }) {
      return await projectUsage(database, requireProject(projectId));
    },
    async *listResults({ projectId, id }) {
      await runs.get(projectId, id);
      for await (const results of store.results(projectId, id)) yield { results };
    },
    async *listCalls({ projectId, id }) {
      await runs.get(projectId, id);
      for await (const calls of store.calls(projectId, id)) yield { calls };
    },
    async listLedger({ projectId, runKeyPrefix, pageSize, cursor }) {
      requireProject(projectId);
      requireRunKeyPrefix(runKeyPrefix);
      const limit = requirePageSize(pageSize);
      const listing = `ledger ${projectId} ${runKeyPrefix}`;
      const page = await ledger.calls(projectId, runKeyPrefix, limit + 1, readCursor(cursor, listing, isNumber) ?? 0);
      const shown = page.slice(0, limit);
      return {
        calls: shown.map(({ call, runKey }) => ({ call, runKey })),
        nextCursor: nextCursor(listing, page.length > limit, shown.at(-1)?.sequence),
        runs: cursor === "" ? await ledger.totals(projectId, runKeyPrefix) : [],
      };
    },
    async *exportLedger({ projectId, runKeyPrefix, runIds }) {
      requireProject(projectId);
      requireRunKeyPrefix(runKeyPrefix);
      requireRunIds(runIds);
      yield* ledger.export(projectId, runKeyPrefix, runIds);
    },
    async getCall({ projectId, id, runKeyPrefix }) {
      requireProject(projectId);
      requireRunKeyPrefix(runKeyPrefix);
      const found = isUuid(id) ? await ledger.call(projectId, runKeyPrefix, id) : undefined;
      if (found === undefined) throw notFound("teacher call", id);
      return found;
    },
    async listTeacherProfiles({ projectId }) {
      requireProject(projectId);
      return { profiles: [...teachers.profiles.values()].map(toProfile) };
    },
    async getTeacherProfile({ projectId, name }) {
      requireProject(projectId);
      const profile = teachers.profiles.get(name);
      if (profile === undefined) throw notFound("teacher profile", name);
      const [breaker, senders] = await Promise.all([weather.breaker(name), weather.senders(name)]);
      return {
        profile: toProfile(profile),
        breaker: { ...breaker, state: breakerStates[breaker.state] },
        maxConcurrency: profile.max_concurrency,
        senders,
      };
    },
  };
}

const breakerStates = {
  closed: BreakerState.CLOSED,
  open: BreakerState.OPEN,
  half_open: BreakerState.HALF_OPEN,
} as const;

function toProfile(profile: TeacherProfileSettings): TeacherProfile {
  return {
    name: profile.name,
    provider: profile.provider,
    model: profile.model,
    description: profile.description,
    promptMicroUsdPerMillionTokens: profile.prices.prompt_micro_usd_per_million_tokens,
    completionMicroUsdPerMillionTokens: profile.prices.completion_micro_usd_per_million_tokens,
    scoresLabels: scoresLabels(profile),
    promptForm: profile.prompt_form,
    terms: profile.terms,
    fallback: (profile.provider === "embedded" ? undefined : profile.fallback) ?? "",
  };
}

function toWait(waiting: StoredWait | null | undefined): TeacherWait | undefined {
  if (waiting === null || waiting === undefined) return undefined;
  return { ...waiting, since: new Date(waiting.since), until: new Date(waiting.until) };
}
