/** The part of a run that every service's messages share. */
import { type Run, RunStatus } from "@tutelage/proto/run/v1/run";
import type { RunRow } from "./runs.js";
import { shownStatus } from "./shownstatus.js";

/** A stored run as its message. */
export function toRunMessage(row: RunRow<unknown, unknown>): Run {
  return {
    id: row.id,
    projectId: row.projectId,
    status: RunStatus[shownStatus(row)],
    progress: { ...row.progress },
    failure: row.failure,
    cancelRequested: row.cancelRequested,
    fence: row.fence,
    createdAt: row.createdAt,
    startedAt: row.startedAt,
    finishedAt: row.finishedAt,
    rest: row.rest === undefined ? undefined : { ...row.rest, until: row.wakeAt },
  };
}
