/** What an export of a checkpoint is: its request, checked, and its message. */
import { createHash } from "node:crypto";
import { invalidField } from "@tutelage/platform/errors";
import { requireProject } from "@tutelage/platform/project";
import { toRunMessage } from "@tutelage/platform/runmessage";
import type { RunRow } from "@tutelage/platform/runs";
import type { StudentWait } from "@tutelage/platform/studentjob";
import { requireTask } from "@tutelage/platform/task";
import { type Checkpoint, type ExportedStudent, ExportForm } from "@tutelage/proto/student/v1/student";
import type { RowSource, Task } from "@tutelage/proto/task/v1/task";
import type { ExportRun, StartExportRunRequest } from "@tutelage/proto/training/v1/training";

/** A request that passed `checkExportRequest`. */
export type CheckedExport = StartExportRunRequest & { checkpoint: Checkpoint; rows: RowSource; task: Task };

export interface ExportState extends StudentWait {
  exported?: ExportedStudent;
  /** Fences of the attempts that wrote files. */
  attempts?: number[];
}

export type StoredExportRun = RunRow<CheckedExport, ExportState>;

/** Throws invalid_argument that names the field. */
export function checkExportRequest(request: StartExportRunRequest): CheckedExport {
  requireProject(request.projectId);
  const { checkpoint, rows, form } = request;
  if (checkpoint === undefined || checkpoint.uri === "" || checkpoint.model === "") {
    throw invalidField("checkpoint", "is missing; give the checkpoint of a training run that succeeded.");
  }
  if (form !== ExportForm.ADAPTER && form !== ExportForm.MERGED) {
    throw invalidField("form", "is missing; use adapter or merged.");
  }
  if (request.includeBase && form === ExportForm.MERGED) {
    throw invalidField("include_base", "is for an adapter; a merged student holds the base weights already.");
  }
  if (rows === undefined || rows.uri === "" || !/^[0-9a-f]{64}$/.test(rows.sha256)) {
    throw invalidField("rows", "must name the artifact to check with, and its SHA-256.");
  }
  return { ...request, checkpoint, rows, task: requireTask(request.task) };
}

/** What makes two exports the same one; which rows check it does not. */
export function exportKey({ checkpoint, form, includeBase, task }: CheckedExport): string {
  const shaped = [checkpoint.uri, checkpoint.sha256, form, includeBase, task];
  return createHash("sha256").update(JSON.stringify(shaped)).digest("hex");
}

/** A stored run as its message. */
export function toExportRun(run: StoredExportRun): ExportRun {
  return { run: toRunMessage(run), request: run.request, exported: run.state.exported };
}
