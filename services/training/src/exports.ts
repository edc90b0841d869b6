/** Exports of checkpoints: each made once, by the student, and kept in the artifact store. */
import type { ArtifactStore } from "@tutelage/platform/artifacts";
import { TutelageError } from "@tutelage/platform/errors";
import { watchDeadlineMs } from "@tutelage/platform/grpc";
import type { Lease, Runs } from "@tutelage/platform/runs";
import { studentJob } from "@tutelage/platform/studentjob";
import type { Students } from "@tutelage/platform/students";
import type { Result } from "@tutelage/platform/worker";
import type { ExportComparison, ExportedStudent } from "@tutelage/proto/student/v1/student";
import { type CheckedExport, type ExportState, exportKey, type StoredExportRun } from "./exportrun.js";

/** Rows that the check asks: enough to meet every label of most tasks, few enough for seconds. */
const checkRows = 16;
const mostAttempts = 1_000;

/** The export of this checkpoint in this form: the one that there is, or another try where that gave nothing. */
export async function startExport(
  runs: Runs<CheckedExport, ExportState>,
  artifacts: Pick<ArtifactStore, "exists">,
  request: CheckedExport,
): Promise<StoredExportRun> {
  const key = exportKey(request);
  for (let attempt = 0; attempt < mostAttempts; attempt += 1) {
    const run = await runs.start(request.projectId, `${key}/${attempt}`, request, { asked: key });
    if (run.status === "FAILED" || run.status === "CANCELLED") continue;
    const uri = run.state.exported?.uri ?? "";
    if (run.status !== "SUCCEEDED" || (uri !== "" && (await artifacts.exists(uri)))) return run;
  }
  throw new TutelageError(
    "failed_precondition",
    `This export was tried ${mostAttempts} times; see the student's log.`,
    {
      reason: "export_given_up",
    },
  );
}

interface Dependencies {
  students: Students;
  artifacts: Pick<ArtifactStore, "remove">;
}

/** Exports for one lease; the files become the run's with its final status. */
export async function exportStudent(
  lease: Lease<CheckedExport, ExportState>,
  { students, artifacts }: Dependencies,
): Promise<Result<ExportState>> {
  const { id: runId, projectId, request, state } = lease.run;
  // Below the training run's folder, so that whoever removes a student removes what was made of it.
  // Files of a lost attempt lie elsewhere: the fence is in the path.
  const beside = request.checkpoint.uri.replace(/\/[^/]+\/?$/, "");
  const folderOf = (fence: number) => `${beside}/exports/${runId}/${fence}`;
  const earlier = state.attempts ?? [];
  const open = (signal: AbortSignal) =>
    students.client.exportCheckpoint(
      {
        projectId,
        runId,
        fence: lease.fence,
        model: request.checkpoint.model,
        checkpointUri: request.checkpoint.uri,
        form: request.form,
        includeBase: request.includeBase,
        task: request.task,
        rows: request.rows,
        checkRows,
        outputUri: `${folderOf(lease.fence)}/export`,
      },
      { signal, deadline: watchDeadlineMs },
    );
  const events = studentJob(lease, open, { students: students.count });
  let exported: ExportedStudent | undefined;
  for await (const { event } of events) {
    if (event?.$case === "stage") {
      const { name, number, total } = event.value;
      await lease.report(
        { done: number - 1, total: total - 1, unit: "stages", etaSeconds: 0, message: name },
        { unreachableSince: null, attempts: [...earlier, lease.fence] },
      );
    } else if (event?.$case === "exported") {
      exported = event.value;
    }
  }
  if (exported === undefined) {
    throw new TutelageError("internal", "The student ended the export without files; its log may say why.", {
      reason: "student_failed",
    });
  }
  if (exported.check?.passed !== true) {
    // What the check found is kept beside the failure.
    await lease.report({}, { exported: { ...exported, uri: "", files: [] } });
    throw checkFailed(exported);
  }
  return {
    state: { exported },
    // What lost attempts left is nobody's.
    tidy: async () => {
      for (const fence of earlier) await artifacts.remove(folderOf(fence));
    },
  };
}

function checkFailed({ check, model, dtype }: ExportedStudent): TutelageError {
  const rows = check?.rows ?? 0;
  const found = (check?.comparisons ?? []).filter(({ passed }) => !passed).map((one) => comparisonText(one, rows));
  const why = found.length === 0 ? "no row was short enough to ask" : found.join("; ");
  return new TutelageError(
    "failed_precondition",
    `The exported student does not answer as the measured one, so it is not offered: ${why}. The base is ${model}, the files ${dtype}. Try the other form; if both fail, report it with the student's log.`,
    { reason: "export_check_failed" },
  );
}

function comparisonText(one: ExportComparison, rows: number): string {
  const difference = one.maxLogProbabilityDifference.toPrecision(2);
  return `${one.compared} against ${one.reference}: ${one.sameAnswers} of ${rows} answers the same, log-probabilities differ by up to ${difference} nats where ${one.tolerance} are allowed`;
}
