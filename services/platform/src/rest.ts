/** Runs that rest: nobody claims them until they are resumed or their time has come. */

/** Why a run rests: somebody paused it, or its budget does not pay for what comes next. */
export type RestStatus = "PAUSED" | "BUDGET_EXHAUSTED";

/** Reason with which a lease's signal aborts when somebody asked the run to rest: what is under way may still end. */
export class RunPaused extends Error {}

/** Of a run that rests because somebody asked. */
export const pausedCode = "paused";
export const pausedMessage = "Somebody paused it; resume it to go on.";

/** Thrown by a handler that cannot go on until somebody does something, or a time has come: the run rests. */
export class Rest extends Error {
  constructor(
    readonly status: RestStatus,
    /** Stable and machine-readable, e.g. "campaign_budget". */
    readonly code: string,
    /** For a person: what happened and what makes the run go on. */
    message: string,
    readonly until?: Date,
  ) {
    super(message);
  }
}
