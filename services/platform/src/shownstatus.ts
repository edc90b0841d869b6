/** What a run's status is called to the outside. */
import type { RunStatus } from "./runs.js";

/** What a run is said to be: one that was asked to stop or to rest, and has not yet, is on its way there. */
export function shownStatus(run: {
  status: RunStatus;
  cancelRequested: boolean;
  pauseRequested: boolean;
}): RunStatus | "CANCELLING" | "PAUSING" {
  if (run.status !== "RUNNING" && run.status !== "QUEUED") return run.status;
  return run.cancelRequested ? "CANCELLING" : run.pauseRequested ? "PAUSING" : run.status;
}

/** The same in SQL, for whoever chooses runs by it. */
export const shownStatusSql = `case when status not in ('RUNNING', 'QUEUED') then status
  when cancel_requested then 'CANCELLING' when pause_requested then 'PAUSING' else status end`;
