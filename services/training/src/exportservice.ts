/** gRPC handlers of exports. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { invalidField } from "@tutelage/platform/errors";
import type { Runs } from "@tutelage/platform/runs";
import type { TrainingServiceImplementation } from "@tutelage/proto/training/v1/training";
import { type CheckedExport, checkExportRequest, type ExportState, toExportRun } from "./exportrun.js";
import { startExport } from "./exports.js";

type ExportHandlers = Pick<
  TrainingServiceImplementation,
  "startExportRun" | "getExportRun" | "watchExportRun" | "cancelExportRun"
>;

/** Whether a URI lies in a folder, as it stands: one with ".." in it does not. */
function isBelow(uri: string, folderUri: string): boolean {
  return uri.startsWith(`${folderUri}/`) && URL.canParse(uri) && new URL(uri).href === uri;
}

export function exportHandlers(dependencies: {
  runs: Runs<CheckedExport, ExportState>;
  artifacts: Pick<ArtifactStore, "exists" | "uri">;
}): ExportHandlers {
  const { runs, artifacts } = dependencies;
  return {
    async startExportRun(message) {
      const request = checkExportRequest(message);
      if (!isBelow(request.checkpoint.uri, artifacts.uri(`${request.projectId}/runs`))) {
        throw invalidField("checkpoint.uri", `${request.checkpoint.uri} is no checkpoint of this project.`);
      }
      if (!isBelow(request.rows.uri, artifacts.uri(request.projectId))) {
        throw invalidField("rows.uri", `${request.rows.uri} is no artifact of this project.`);
      }
      if (!(await artifacts.exists(request.checkpoint.uri))) {
        throw invalidField("checkpoint.uri", `${request.checkpoint.uri} is not there; train again, or name another.`);
      }
      if (await artifacts.exists(`${request.checkpoint.uri}/probe.safetensors`)) {
        throw invalidField(
          "checkpoint.uri",
          "is a probe, which leaves the base weights as they are and holds none to load; export a lora or full student.",
          "probe_not_exportable",
        );
      }
      return toExportRun(await startExport(runs, artifacts, request));
    },

    async getExportRun({ projectId, id }) {
      return toExportRun(await runs.get(projectId, id));
    },

    async *watchExportRun({ projectId, id }, { signal }) {
      for await (const run of runs.watch(projectId, id, signal)) yield toExportRun(run);
    },

    async cancelExportRun({ projectId, id }) {
      return toExportRun(await runs.cancel(projectId, id));
    },
  };
}
