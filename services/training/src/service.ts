/** gRPC handlers of the training service. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import type { Database } from "@tutelage/platform/database";
import { invalidField } from "@tutelage/platform/errors";
import { MonthBudget } from "@tutelage/platform/monthbudget";
import { stopOwnedRuns } from "@tutelage/platform/ownedruns";
import { heldBy } from "@tutelage/platform/ownerfence";
import { requireProject } from "@tutelage/platform/project";
import { pauseRun, resumeOrRetryRun } from "@tutelage/platform/runcontrol";
import type { Runs } from "@tutelage/platform/runs";
import type { StudentProfile, TrainingServiceImplementation } from "@tutelage/proto/training/v1/training";
import { deleteTrainingRuns } from "./deletion.js";
import type { CheckedExport, ExportState } from "./exportrun.js";
import { exportHandlers } from "./exportservice.js";
import { collectGarbage } from "./garbage.js";
import { listSteps, putMaxSeconds } from "./store.js";
import {
  type CheckedRequest,
  checkMaxSeconds,
  checkRequest,
  type TrainingState,
  toTrainingRun,
} from "./trainingrun.js";

interface Dependencies {
  database: Database;
  runs: Runs<CheckedRequest, TrainingState>;
  exports: Runs<CheckedExport, ExportState>;
  profiles: ReadonlyMap<string, StudentProfile>;
  artifacts: ArtifactStore;
}

export function trainingService(dependencies: Dependencies): TrainingServiceImplementation {
  const { database, runs, profiles, artifacts } = dependencies;
  return {
    ...exportHandlers({ runs: dependencies.exports, artifacts }),
    ...new MonthBudget(database, ["training_seconds"]).handlers(),

    async startTrainingRun({ owner, ...message }) {
      const { request, state } = checkRequest(message, profiles);
      const { startCheckpointUri } = request;
      if (startCheckpointUri !== "" && !(await artifacts.exists(startCheckpointUri))) {
        throw invalidField(
          "start_checkpoint_uri",
          `${startCheckpointUri} is not there; leave it empty or name another.`,
        );
      }
      // A successor of whoever started it may know another bound.
      const { maxSeconds: _, ...asked } = request;
      const { projectId, idempotencyKey } = request;
      const alongside = heldBy(projectId, owner, idempotencyKey);
      return toTrainingRun(await runs.start(projectId, idempotencyKey, request, { state, asked, alongside }));
    },

    async getTrainingRun({ projectId, id }) {
      return toTrainingRun(await runs.get(projectId, id));
    },

    async *watchTrainingRun({ projectId, id }, { signal }) {
      for await (const run of runs.watch(projectId, id, signal)) yield toTrainingRun(run);
    },

    async cancelTrainingRun({ projectId, id }) {
      return toTrainingRun(await runs.cancel(projectId, id));
    },

    async pauseTrainingRun({ projectId, id }) {
      return toTrainingRun(await pauseRun(runs, projectId, id));
    },

    async resumeTrainingRun({ projectId, id, maxSeconds, owner }) {
      checkMaxSeconds(maxSeconds);
      const requireHeld = heldBy(projectId, owner);
      return toTrainingRun(
        await resumeOrRetryRun(runs, projectId, id, async (transaction) => {
          await requireHeld(transaction);
          if (maxSeconds !== undefined) await putMaxSeconds(transaction, { projectId, runId: id }, maxSeconds);
        }),
      );
    },

    async stopOwnedRuns(request) {
      return await stopOwnedRuns(runs, request);
    },

    async deleteTrainingRuns(request, { signal }) {
      requireProject(request.projectId);
      return await deleteTrainingRuns({ database, exports: dependencies.exports, artifacts }, request, signal);
    },

    async collectGarbage(request, { signal }) {
      return await collectGarbage({ database, exports: dependencies.exports, artifacts }, request, signal);
    },

    async *listTrainingSteps({ projectId, id }) {
      const run = await runs.get(projectId, id);
      for await (const steps of listSteps(database, { projectId, runId: run.id })) yield { steps };
    },

    async listStudentProfiles() {
      return { profiles: [...profiles.values()] };
    },
  };
}
